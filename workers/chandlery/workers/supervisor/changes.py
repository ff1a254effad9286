"""What a new assignment means for a trader that runs already. Pure."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from chandlery.core.assignment import TraderAssignment

Change = Literal["keep", "tell", "restart", "replace"]

#: Fields that a running process takes over without a restart.
_LIVE: Final[dict[str, Any]] = {
    "mode": "active", "generation": 0, "tier": "", "from_ms": 0, "until_ms": None, "since_ms": 0,
}  # fmt: skip


def compare(old: TraderAssignment, new: TraderAssignment) -> Change:
    """How a running incarnation gets from one specification to the next.

    Returns:
        ``keep``: nothing changed. ``tell``: the process takes the change over. ``restart``: another process,
        the same ring. ``replace``: another Trader of the same name (its uid differs): another ring as well.
    """
    if old == new:
        return "keep"
    if old.uid != new.uid:
        return "replace"
    if "suspended" in (old.mode, new.mode) and old.mode != new.mode:
        return "restart"
    return "tell" if _fixed(old) == _fixed(new) else "restart"


def _fixed(spec: TraderAssignment) -> TraderAssignment:
    """The specification without what may change in a running process."""
    return msgspec.structs.replace(spec, **_LIVE)
