"""Proofs of the segment's protocol: models in ``proofs/segment``, checked exhaustively by spin. See docs/segment.md."""
