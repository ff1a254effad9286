"""The catalogue: which strategies a worker can run, with their parameters, as plain data.

``python -m chandlery.workers.catalogue [--strategies DIR]`` prints it as a JSON list. It imports strategies,
so it runs as a process of its own; planners check manifests against its output (``core.checks``) and import none.

With ``--configure`` it reads a JSON list of configurations (strategy and parameters) from standard input, and says in a line
each, behind the catalogue's, what becomes of them: a warm-up, a problem, or ``null`` where that can't be said; with its place
in the list.

A strategy can end this process, or never return. With ``--announce`` a line before each entry point's import has its name
(a JSON string; an empty one behind the last), so that whoever reads knows which one it was, and can start this again without
it: ``--without NAME=PROBLEM`` lists it as broken and doesn't import it.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from chandlery.core.configurations import Answer, Configuration, Configured
from chandlery.core.errors import StrategyError
from chandlery.core.parameters import ParameterSpec

if TYPE_CHECKING:
    from chandlery.workers.discovery import Found

_encode: Final = msgspec.json.Encoder().encode
_decode_asked: Final = msgspec.json.Decoder(list[Configuration]).decode


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
    doc = inspect.cleandoc(strategy.__doc__ or "")
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
        entry.errors.append(f"with default parameters: {type(error).__name__}: {error}")
    return entry


def _broken(name: str, source: str, problem: str) -> CatalogueEntry:
    return CatalogueEntry(name, "", "", {}, 0, source, "", [problem])


def collect(
    strategies_dir: str = "", without: Mapping[str, str] | None = None, begin: Callable[[str], None] = lambda _: None
) -> tuple[list[CatalogueEntry], dict[str, Found]]:
    """Import every strategy there is and describe it; what is broken gets an entry with ``errors``.

    Args:
        without: entry points that are not imported, with what is wrong with them.
        begin: called with the name of each entry point before its import, and with an empty one after the last.

    Returns:
        The catalogue, and the strategies that could be imported, by name.
    """
    # Imported late, so that planners that only check parameters don't load numpy and TA-Lib.
    from chandlery.workers.discovery import Found, entry_points, find_strategy, folder_files, import_file
    from chandlery.workers.strategy import strategies_in

    entries: dict[str, CatalogueEntry] = {}
    strategies: dict[str, Found] = {}
    without = without or {}
    for name in sorted(entry_points()):
        if name in without:
            entries[name] = _broken(name, "entry-point", without[name])
            continue
        begin(name)
        try:
            strategies[name] = find_strategy(name)
            entries[name] = _entry(strategies[name])
        except StrategyError as error:
            entries[name] = _broken(name, "entry-point", str(error))
    begin("")
    broken: list[CatalogueEntry] = []
    for path in folder_files(strategies_dir):
        stem = path.stem.replace("_", "-")
        try:
            module, text = import_file(path)
        except StrategyError as error:
            broken.append(_broken(stem, "folder", str(error)))
            continue
        for strategy in strategies_in(module):
            if strategy.name in entries:
                taken = entries[strategy.name].source
                problem = f"{path.name}: the name {strategy.name!r} is taken already ({taken}); give it another"
                broken.append(_broken(strategy.name, "folder", problem))
            else:
                strategies[strategy.name] = Found(strategy, "folder", text)
                entries[strategy.name] = _entry(strategies[strategy.name])
    return [*entries.values(), *broken], strategies


def configure(found: Found, configuration: Configuration) -> Configured | None:
    """Make a strategy with parameters, as its Trader's process will.

    Returns:
        None where its code fails otherwise than by refusing them: that may pass, and is for that process to meet.
    """
    try:
        return Configured(int(found.strategy(configuration.parameters).warmup))
    except StrategyError as error:
        return Configured(
            problem=str(error), reason="BadParameter" if error.reason == "BadParameter" else "BadStrategy"
        )
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- a strategy may raise anything
        print(f"{configuration.strategy}: {type(error).__name__}: {error}", file=sys.stderr)
        return None


def _claim_output() -> BinaryIO:
    """Keep standard output for the JSON alone.

    What strategies write to it (``print``, a C library, a program that they start) goes to standard error from here on.

    Returns:
        What standard output was; no other program gets it.
    """
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return output


def main(arguments: list[str] | None = None) -> None:
    """Print the catalogue."""
    parser = argparse.ArgumentParser(prog="python -m chandlery.workers.catalogue", description=main.__doc__)
    parser.add_argument("--strategies", default="", metavar="DIR", help="folder of strategy files")
    parser.add_argument(
        "--configure", action="store_true", help="say what becomes of the configurations on standard input"
    )
    parser.add_argument("--announce", action="store_true", help="print each entry point's name before its import")
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME=PROBLEM",
        help="list an entry point without importing it",
    )
    options = parser.parse_args(arguments)
    if options.strategies and not Path(options.strategies).is_dir():
        print(f"{options.strategies}: no such folder", file=sys.stderr)
        sys.exit(2)
    asked = _decode_asked(sys.stdin.buffer.read()) if options.configure else []
    # A name of an entry point has no equals sign.
    without = {name: problem for name, _, problem in (one.partition("=") for one in options.without)}
    with _claim_output() as output:

        def say(what: object) -> None:
            # At once: what comes next may never return, and must not hide what came before it.
            output.write(_encode(what) + b"\n")
            output.flush()

        begin = say if options.announce else lambda _: None
        entries, strategies = collect(options.strategies, without, begin)
        say(entries)
        for index, configuration in enumerate(asked):
            found = strategies.get(configuration.strategy)
            configured = configure(found, configuration) if found is not None else None
            say(Answer(index, configured))


if __name__ == "__main__":
    main()
