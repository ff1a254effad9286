"""Manifests that change while strategies are being asked about parameters."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.runtime.up_process import trader, write_manifests

from chandlery.cli.runtime import checking, strategies
from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.cli.runtime.desired import Wanted
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.options import UpOptions
from chandlery.core.configurations import Configuration, Configured, configurations_of
from chandlery.core.manifests import read_manifests

ENTRIES = [{"name": "own", "parameters": {"a": {"type": "int", "default": 1}}}]


class Desk:
    """An instance over a folder, whose strategies answer when they are let."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = write_manifests(
            folder / "m", **{name: trader(name, strategy="own", a=1) for name in ("edited", "gone", "suspended")}
        )
        self.answered = asyncio.Event()
        self.asked: list[list[object]] = []
        monkeypatch.setattr(strategies, "Importer", lambda *_: self)
        monkeypatch.setattr(checking, "_PATIENCE_S", 0.0)
        manifests = read_manifests([str(self.folder)])
        answers = dict.fromkeys(configurations_of(manifests.traders.values()), Configured(1))
        options = UpOptions((str(self.folder),), folder / "state")
        known = Catalogue(ENTRIES, answers)
        self.runtime = LocalRuntime(options, Wanted(manifests, [], []), known, lambda *_: None)

    async def answers(self, asked: Mapping[str, Configuration], _: object) -> Catalogue:
        self.asked.append([one.parameters["a"] for one in asked.values()])
        await self.answered.wait()
        return Catalogue(ENTRIES, dict.fromkeys(asked, Configured(1)))

    def write(self, name: str, text: str) -> None:
        (self.folder / f"{name}.yaml").write_text(text)

    async def read(self) -> None:
        """Read the folder, as after a change."""
        async with asyncio.timeout(30):
            await self.runtime._read_manifests()

    async def answer(self) -> None:
        """Let strategies answer, and wait until all counts."""
        self.answered.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*self.runtime._tasks)

    def wanted(self) -> dict[str, tuple[object, bool]]:
        """Parameter, and whether it is suspended, by Trader."""
        traders = self.runtime.wanted.manifests.traders.values()
        return {one.name: (one.spec.strategy.parameters["a"], one.spec.suspend) for one in traders}


async def test_what_needs_no_answer_of_a_strategy_counts_while_one_has_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, monkeypatch)
    desk.write("edited", trader("edited", strategy="own", a=2))
    desk.write("new", trader("new", strategy="own", a=3))
    desk.write("alike", trader("alike", strategy="own", a=1))
    desk.write("suspended", trader("suspended", strategy="own", a=1) + "  suspend: true\n")
    (desk.folder / "gone.yaml").unlink()
    await desk.read()
    assert desk.wanted() == {"alike": (1, False), "edited": (1, False), "suspended": (1, True)}
    (told,) = [notice for notice in desk.runtime.notices if "wait until" in notice]
    assert told.startswith("changes of default/edited, default/new wait")
    await desk.answer()
    assert desk.wanted() == {"alike": (1, False), "edited": (2, False), "new": (3, False), "suspended": (1, True)}
    assert not [notice for notice in desk.runtime.notices if "wait until" in notice]


async def test_changes_while_a_strategy_is_being_asked_neither_wait_for_it_nor_ask_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = Desk(tmp_path, monkeypatch)
    desk.write("new", trader("new", strategy="own", a=3))
    await desk.read()
    (desk.folder / "gone.yaml").unlink()
    desk.write("edited", trader("edited", strategy="own", a=2))
    await desk.read()
    assert desk.wanted() == {"edited": (1, False), "suspended": (1, False)}
    desk.write("new", "kind: [")
    await desk.read()
    assert desk.asked == [[3]]
    await desk.answer()
    assert desk.wanted() == {"edited": (2, False), "suspended": (1, False)}, "the newest reading counts"
    assert desk.asked == [[3], [2]]
