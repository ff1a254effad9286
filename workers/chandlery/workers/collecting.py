"""Importing strategies, one after the other, to describe them and to say what becomes of them with parameters.

For the process of ``catalogue`` alone: what is imported here may end it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from chandlery.core.configurations import Configuration, Configured
from chandlery.core.errors import StrategyError
from chandlery.core.parameters import ParameterSpec
from chandlery.workers.discovery import (
    Found,
    entry_points,
    find_strategy,
    folder_files,
    import_file,
    strategies_in_text,
    text_of,
)
from chandlery.workers.strategy import strategies_in

_encode: Final = msgspec.json.Encoder().encode


class CatalogueEntry(msgspec.Struct, omit_defaults=True):
    """One strategy, or one file that should hold one.

    Attributes:
        name: name in manifests. summary: first line of the doc. doc: the whole docstring.
        parameters: specification by name.
        warmup: closed candles needed with default parameters.
        source: ``entry-point`` or ``folder``.
        digest: of code and default parameters, 16 hex digits.
        errors: why it can't be used; empty when it can.
    """

    name: str
    summary: str
    doc: str
    parameters: dict[str, ParameterSpec]
    warmup: int
    source: str
    digest: str
    errors: list[str] = []


def _entry(found: Found) -> CatalogueEntry:
    strategy = found.strategy
    doc = _unicode(inspect.cleandoc(strategy.__doc__ or ""))
    entry = CatalogueEntry(
        name=strategy.name,
        summary=doc.split("\n", 1)[0],
        doc=doc,
        parameters=dict(strategy.specs),
        warmup=0,
        source=found.origin,
        digest="",
    )
    try:
        configured = strategy()
        entry.warmup = int(configured.warmup)
        entry.digest = found.code(configured)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- a strategy may raise anything; the entry says what
        entry.errors.append(_unicode(f"with default parameters: {type(error).__name__}: {error}"))
    return entry


def _broken(name: str, source: str, problem: str) -> CatalogueEntry:
    return CatalogueEntry(name, "", "", {}, 0, source, "", [_unicode(problem)])


def _broken_file(path: Path, text: str, problem: str) -> list[CatalogueEntry]:
    """An entry for each strategy that the file seems to hold, so that who names one is told; else one by the file's name."""
    names = strategies_in_text(text) or [_unicode(path.stem).replace("_", "-")]
    return [_broken(name, "folder", problem) for name in names]


def _unicode(text: str) -> str:
    """The text as JSON can have it: a file's name may be any bytes, and what code raises any characters."""
    return text.encode(errors="backslashreplace").decode()


def _fatal(name: str, source: str, problem: str) -> str:
    way_out = "mend or remove it" if source == "folder" else "mend or uninstall it"
    return f"{name}: the process that imported it {problem}; {way_out}"


class _Collection:
    """Imports every strategy there is, one after the other, and describes it.

    Attributes:
        entries: what can be told of, by name; ``broken``: files, and strategies whose name is taken. strategies: what could be
            imported, by name.
    """

    def __init__(self, without: Mapping[str, str], begin: Callable[[str], None]) -> None:
        """See :func:`collect`."""
        self.entries: dict[str, CatalogueEntry] = {}
        self.broken: list[CatalogueEntry] = []
        self.strategies: dict[str, Found] = {}
        self._without = without
        self._begin = begin

    def add_installed(self, name: str) -> None:
        if name in self._without:
            self.entries[name] = _broken(name, "entry-point", _fatal(name, "entry-point", self._without[name]))
            return
        self._begin(name)
        try:
            self._add(name, find_strategy(name))
        except StrategyError as error:
            self.entries[name] = _broken(name, "entry-point", str(error))

    def add_file(self, path: Path) -> None:
        name = _unicode(path.name)
        if name in self._without:
            self.broken += _broken_file(path, text_of(path), _fatal(name, "folder", self._without[name]))
            return
        self._begin(name)
        try:
            module, text = import_file(path)
        except StrategyError as error:
            self.broken += _broken_file(path, text_of(path), str(error))
            return
        for strategy in strategies_in(module):
            if strategy.name in self.entries:
                taken = self.entries[strategy.name].source
                problem = f"{name}: the name {strategy.name!r} is taken already ({taken}); give it another"
                self.broken.append(_broken(strategy.name, "folder", problem))
            else:
                self._add(strategy.name, Found(strategy, "folder", text))

    def _add(self, name: str, found: Found) -> None:
        entry = _entry(found)
        try:
            _encode(entry)
        except Exception as error:  # noqa: BLE001 -- whatever can't be told of it must not cost the others
            self.entries[name] = _broken(_unicode(name), found.origin, f"can't be described: {error}")
            return
        self.strategies[name] = found
        self.entries[name] = entry


def collect(
    strategies_dir: str = "", without: Mapping[str, str] | None = None, begin: Callable[[str], None] = lambda _: None
) -> tuple[list[CatalogueEntry], dict[str, Found]]:
    """Import every strategy there is and describe it; what is broken gets an entry with ``errors``.

    Args:
        without: entry points, and files of the folder, that are not imported, and what became of the process that did.
        begin: called with the name of each before its import, and with an empty one after the last.

    Returns:
        The catalogue, and the strategies that could be imported, by name.
    """
    collection = _Collection(without or {}, begin)
    for name in sorted(entry_points()):
        collection.add_installed(name)
    for path in folder_files(strategies_dir):
        collection.add_file(path)
    begin("")
    return [*collection.entries.values(), *collection.broken], collection.strategies


def configure(found: Found, configuration: Configuration) -> Configured | None:
    """Make a strategy with parameters, as its Trader's process will.

    Returns:
        None where its code fails otherwise than by refusing them: that may pass, and is for that process to meet.
    """
    try:
        return Configured(int(found.strategy(configuration.parameters).warmup))
    except StrategyError as error:
        return Configured(
            problem=_unicode(str(error)), reason="BadParameter" if error.reason == "BadParameter" else "BadStrategy"
        )
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- a strategy may raise anything
        print(f"{configuration.strategy}: {type(error).__name__}: {error}", file=sys.stderr)
        return None
