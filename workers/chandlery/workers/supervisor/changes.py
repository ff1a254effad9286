"""What a new assignment means for a trader that runs already. Pure."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from chandlery.core.assignment import TraderAssignment

Change = Literal["keep", "tell", "restart", "replace"]

#: Fields that a running process takes over without a restart.
_LIVE: Final = {"generation": 0, "tier": ""}


def compare(old: TraderAssignment, new: TraderAssignment) -> Change:
    """How a running trader gets from one specification to the next.

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
    return "tell" if _fixed(old, new.mode != old.mode) == _fixed(new, new.mode != old.mode) else "restart"


def _fixed(spec: TraderAssignment, mode_changes: bool) -> TraderAssignment:
    """The specification without what may change in a running process.

    A change between standby and active comes with an incarnation of its own; an incarnation that grows alone
    asks for a restart.
    """
    fixed = msgspec.structs.replace(spec, mode="active", **_LIVE)
    if mode_changes:
        fixed.incarnation = 0
    return fixed
