"""The strategies there are, and what becomes of them with Traders' parameters: asked of a process of their own.

Strategies are never imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from chandlery.core.configurations import Answer, Answers, Configuration, Configured
from chandlery.core.errors import InputError, InvariantError, MachineError
from chandlery.core.processes import child_environment

log = logging.getLogger("chandlery.up")

#: Importing numpy, TA-Lib and the strategies takes 1 s; thirty times that for a cold disk and a busy machine.
_CATALOGUE_TIMEOUT_S: Final = 30.0
#: Configuring strategies takes under 1 ms each; one that reads a file for it may take seconds. What has no answer then is for
#: the Trader's own process to find out.
_ANSWERS_TIMEOUT_S: Final = 10.0
#: Longest line that is read: a catalogue of hundreds of strategies with long docs.
_MOST_LINE_BYTES: Final = 64 * 1024 * 1024

_decode_entries: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_answer: Final = msgspec.json.Decoder(Answer).decode


@dataclass(frozen=True)
class Catalogue:
    """What is known of strategies.

    Attributes:
        entries: as ``python -m chandlery.workers.catalogue`` prints them.
        answers: what becomes of strategies with the parameters that were asked for.
    """

    entries: Sequence[Mapping[str, Any]] = ()
    answers: Answers = field(default_factory=dict)


async def read_catalogue(strategies: Path | None, asked: Mapping[str, Configuration] | None = None) -> Catalogue:
    """The strategies there are.

    Args:
        strategies: a folder beside the shipped ones. asked: what to configure, by key.

    Raises:
        InputError: no such folder. MachineError: the process failed.
    """
    asked = asked or {}
    arguments = ["--strategies", str(strategies)] if strategies is not None else []
    process = await asyncio.create_subprocess_exec(
        # By way of processes: a file that never returns must not outlive a command that was killed.
        sys.executable, "-m", "chandlery.core.processes", sys.executable, "-m", "chandlery.workers.catalogue",
        "--configure", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env=child_environment(), start_new_session=True, limit=_MOST_LINE_BYTES,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    complaint = asyncio.create_task(process.stderr.read())
    try:
        async with asyncio.timeout(_CATALOGUE_TIMEOUT_S):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended: its words say why
                process.stdin.write(msgspec.json.encode(list(asked.values())))
                process.stdin.write_eof()
                await process.stdin.drain()
            line = await process.stdout.readline()
            if not line:
                raise _why_failed(await process.wait(), await complaint)
        answers = await _answers(process.stdout, asked)
    except TimeoutError as error:
        raise MachineError(
            f"listing the strategies took more than {_CATALOGUE_TIMEOUT_S:.0f} s: does one of them hang at import?"
        ) from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        complaint.cancel()
        await asyncio.gather(complaint, return_exceptions=True)
    try:
        return Catalogue(_decode_entries(line), answers)
    except msgspec.DecodeError as error:
        raise InvariantError(f"the catalogue can't be read: {error}") from error


def _why_failed(code: int, complaint: bytes) -> InputError | MachineError:
    said = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    if code == InputError.exit_code:
        return InputError(said[0])
    return MachineError(f"the strategies can't be listed (exit code {code}): {said[0]}")


async def _answers(output: asyncio.StreamReader, asked: Mapping[str, Configuration]) -> dict[str, Configured | None]:
    """The answers that come, each to the configuration that it names; None for what has none in time."""
    answers: dict[str, Configured | None] = dict.fromkeys(asked)
    waiting = dict(enumerate(asked))
    with contextlib.suppress(TimeoutError, msgspec.DecodeError):  # of an empty line: the process ended
        async with asyncio.timeout(_ANSWERS_TIMEOUT_S):
            while waiting:
                answer = _decode_answer(await output.readline())
                if (key := waiting.pop(answer.index, None)) is not None:
                    answers[key] = answer.configured
            return answers
    without = sorted({asked[key].strategy for key in waiting.values()})
    log.warning("strategies left without a check of their parameters", extra={"strategies": without})
    return answers
