"""The strategies there are, and what becomes of them with Traders' parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from chandlery.core.configurations import Answers, Configuration

#: Strategies that can't be used of which a notice says why.
_MOST_NAMED: Final = 5


@dataclass(frozen=True)
class Catalogue:
    """What is known of strategies.

    Attributes:
        entries: as ``python -m chandlery.workers.catalogue`` prints them.
        answers: what becomes of strategies with the parameters that were asked for; without those there was no time for.
        left_out: what ended the process that imported it, or never returned, and which of them: entry points and files of the
            folder. It is among the entries, as broken.
    """

    entries: Sequence[Mapping[str, Any]] = ()
    answers: Answers = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def unchecked(self, asked: Mapping[str, Configuration]) -> dict[str, Configuration]:
        """Those of which nobody can say what becomes of them, though their strategy can be used."""
        usable = {entry["name"] for entry in self.entries if not entry.get("errors")}
        return {key: one for key, one in asked.items() if one.strategy in usable and self.answers.get(key) is None}

    def unusable(self) -> str:
        """What of the folder of strategies can't be used, and what installed ones were left out, and why; empty: nothing.

        Traders tell of it only where they name it and nothing else has the name.
        """
        broken = [
            f"{entry['name']}: {entry['errors'][0]}"
            for entry in self.entries
            if entry.get("errors") and (entry.get("source") == "folder" or entry["name"] in self.left_out)
        ]
        more = f"; and {len(broken) - _MOST_NAMED} more" if len(broken) > _MOST_NAMED else ""
        return "; ".join(broken[:_MOST_NAMED]) + more


def unusable_notice(folder: Path | None, unusable: str) -> str:
    """What is to be said of what :meth:`Catalogue.unusable` tells, with a folder beside the installed strategies or without."""
    return f"{folder or 'this installation'}: not all of its strategies can be used: {unusable}"
