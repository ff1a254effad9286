"""The catalogue: which strategies a worker can run, with their parameters, as plain data.

``python -m chandlery.workers.catalogue [--strategies DIR]`` prints it as a JSON list. It imports strategies,
so it runs as a process of its own; planners check manifests against its output (``core.checks``) and import none.

With ``--configure`` it reads a JSON list of configurations (strategy and parameters) from standard input, and says in a line
each, behind the catalogue's, what becomes of them: a warm-up, a problem, or ``null`` where that can't be said; with its place
in the list. Together with ``--announce`` it reads such a list a line, and answers one after the other until there is none any
more (``configuring``): who asks again doesn't wait for the imports.

A strategy can end the process that imports it, or never return. So another one does the importing, by ``--announce``: a line
before each import has the entry point's or the file's name (a JSON string; an empty one behind the last), so that whoever reads
knows which one it was, and can start it again without that one: ``--without NAME=PROBLEM`` lists it as broken and doesn't
import it (``catalogue_process``).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from chandlery.core.configurations import Configuration
from chandlery.core.errors import ChandleryError, MachineError
from chandlery.core.processes import die_with_parent
from chandlery.workers.catalogue_process import listed

_encode: Final = msgspec.json.Encoder().encode
_decode_asked: Final = msgspec.json.Decoder(list[Configuration]).decode


def _claim_input() -> BinaryIO:
    """Keep standard input for what is asked: strategies find an empty one from here on.

    Returns:
        What standard input was; no other program gets it.
    """
    claimed = os.fdopen(os.dup(0), "rb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    return claimed


def _claim_output() -> BinaryIO:
    """Keep standard output for the JSON alone.

    What strategies write to it (``print``, a C library, a program that they start) goes to standard error from here on.

    Returns:
        What standard output was; no other program gets it.
    """
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return output


async def _relay(strategies_dir: str, asked: list[Configuration] | None) -> None:
    """Print what another process tells: a strategy can end that one, or never return in it."""

    def say(line: bytes) -> None:
        # JSON is UTF-8, whatever the locale.
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    async with listed(strategies_dir, is_asked=bool(asked)) as found:
        say(_encode(found.entries) + b"\n")
        if not asked:
            return
        await found.ask(asked)
        for configuration in asked:
            if (answer := await found.answer()) is None:
                raise MachineError(f"{configuration.strategy}: ended the process that configured it; mend it")
            say(_encode(answer) + b"\n")


def _tell(options: argparse.Namespace) -> None:
    """Import strategies here, and print the catalogue and the answers."""
    # Imported late, so that who lets another process do it doesn't load numpy and TA-Lib.
    from chandlery.workers.collecting import collect
    from chandlery.workers.configuring import answer_lists

    # What is imported may ignore every signal that can be ignored, and must not outlive who asked.
    die_with_parent(signal.SIGKILL)
    asked = _claim_input() if options.configure else None
    with _claim_output() as output:

        def say(what: object) -> None:
            # At once: what comes next may never return, and must not hide what came before it.
            output.write(_encode(what) + b"\n")
            output.flush()

        # What is told of a process that ended has no equals sign; a file's name may.
        without = {name: problem for name, _, problem in (one.rpartition("=") for one in options.without)}
        entries, strategies = collect(options.strategies, without, say)
        say(entries)
        if asked is not None:
            answer_lists(asked, strategies, say)


def main(arguments: list[str] | None = None) -> None:
    """Print the catalogue."""
    parser = argparse.ArgumentParser(prog="python -m chandlery.workers.catalogue", description=main.__doc__)
    parser.add_argument("--strategies", default="", metavar="DIR", help="folder of strategy files")
    parser.add_argument(
        "--configure",
        action="store_true",
        help="say what becomes of the configurations on standard input: a list of them; with --announce a list a line",
    )
    parser.add_argument(
        "--announce",
        action="store_true",
        help="import strategies in this process, and print the name of each entry point and file before",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NAME=PROBLEM",
        help="with --announce: list an entry point or a file without importing it",
    )
    options = parser.parse_args(arguments)
    if options.strategies and not Path(options.strategies).is_dir():
        print(f"{options.strategies}: no such folder", file=sys.stderr)
        sys.exit(2)
    if options.announce:
        _tell(options)
        return
    asked = _decode_asked(sys.stdin.buffer.read()) if options.configure else None
    try:
        asyncio.run(_relay(options.strategies, asked))
    except ChandleryError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
