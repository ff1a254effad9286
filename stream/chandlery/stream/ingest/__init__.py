"""Ingest: one market source (exchange, replay or synthetic market) appended to the topic ``trades``.

``source.py`` is the interface between a source and the rest; ``app.py`` puts one run together.
"""
