"""The strategies there are, and what becomes of them with Traders' parameters: asked of a process of their own.

Strategies are never imported here.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from chandlery.core.configurations import Answer, Answers, Configuration, Configured
from chandlery.core.errors import InputError, InvariantError, MachineError
from chandlery.core.processes import child_environment

#: Importing numpy, TA-Lib and the strategies takes 1 s; thirty times that for a cold disk and a busy machine.
_CATALOGUE_TIMEOUT_S: Final = 30.0
#: Configuring a strategy takes under 1 ms; one that reads a file for it may take seconds.
_ANSWER_TIMEOUT_S: Final = 5.0
#: All of them: five that hang, and a second each for the process that is asked after that. What hasn't been asked by then is
#: asked the next time.
_ANSWERS_TIMEOUT_S: Final = 30.0
#: Longest line that is read: a catalogue of hundreds of strategies with long docs.
_MOST_LINE_BYTES: Final = 64 * 1024 * 1024
#: What is kept of the process's standard error: its last line says why it failed, however much strategies write there.
_LAST_WORDS_BYTES: Final = 8 * 1024

#: Strategies that can't be used of which a notice says why.
_MOST_NAMED: Final = 5

_decode_entries: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_answer: Final = msgspec.json.Decoder(Answer).decode


@dataclass(frozen=True)
class Catalogue:
    """What is known of strategies.

    Attributes:
        entries: as ``python -m chandlery.workers.catalogue`` prints them.
        answers: what becomes of strategies with the parameters that were asked for; without those there was no time for.
    """

    entries: Sequence[Mapping[str, Any]] = ()
    answers: Answers = field(default_factory=dict)

    def unchecked(self, asked: Mapping[str, Configuration]) -> dict[str, Configuration]:
        """Those of which nobody can say what becomes of them, though their strategy can be used."""
        usable = {entry["name"] for entry in self.entries if not entry.get("errors")}
        return {key: one for key, one in asked.items() if one.strategy in usable and self.answers.get(key) is None}

    def unusable(self) -> str:
        """What of the folder of strategies can't be used, and why; empty: all of it can.

        Traders tell of it only where they name it and nothing else has the name.
        """
        broken = [
            f"{entry['name']}: {entry['errors'][0]}"
            for entry in self.entries
            if entry.get("errors") and entry.get("source") == "folder"
        ]
        more = f"; and {len(broken) - _MOST_NAMED} more" if len(broken) > _MOST_NAMED else ""
        return "; ".join(broken[:_MOST_NAMED]) + more


def unusable_notice(folder: Path, unusable: str) -> str:
    """What is to be said of what :meth:`Catalogue.unusable` tells of a folder."""
    return f"{folder}: not all of its strategies can be used: {unusable}"


async def read_catalogue(strategies: Path | None, asked: Mapping[str, Configuration] | None = None) -> Catalogue:
    """The strategies there are.

    Where one hangs or ends the process when it is configured, it is left without an answer, and a new process is asked for the
    others.

    Args:
        strategies: a folder beside the shipped ones. asked: what to configure, by key.

    Raises:
        InputError: no such folder. MachineError: the process failed.
    """
    asked = asked or {}
    answers: dict[str, Configured | None] = {}
    async with _listed(strategies, asked.values()) as (line, output):
        by_s = asyncio.get_running_loop().time() + _ANSWERS_TIMEOUT_S
        left = await _answers(output, asked, answers, by_s)
    if left:
        await _ask_others(strategies, left, answers, by_s)
    try:
        return Catalogue(_decode_entries(line), answers)
    except msgspec.DecodeError as error:
        raise InvariantError(f"the catalogue can't be read: {error}") from error


@contextlib.asynccontextmanager
async def _listed(
    strategies: Path | None, asked: Collection[Configuration]
) -> AsyncIterator[tuple[bytes, asyncio.StreamReader]]:
    """A process that has told the strategies there are, and goes on with its answers; ended at the end.

    Raises:
        InputError, MachineError: see :func:`read_catalogue`.
    """
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
    complaint = asyncio.create_task(_last_words(process.stderr))
    try:
        try:
            async with asyncio.timeout(_CATALOGUE_TIMEOUT_S):
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended: its words say why
                    process.stdin.write(msgspec.json.encode(list(asked)))
                    process.stdin.write_eof()
                    await process.stdin.drain()
                line = await process.stdout.readline()
                if not line:
                    raise _why_failed(await process.wait(), await complaint)
        except TimeoutError as error:
            raise MachineError(
                f"listing the strategies took more than {_CATALOGUE_TIMEOUT_S:.0f} s: does one of them hang at import?"
            ) from error
        yield line, process.stdout
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        complaint.cancel()
        await asyncio.gather(complaint, return_exceptions=True)


async def _last_words(errors: asyncio.StreamReader) -> bytes:
    kept = b""
    while chunk := await errors.read(_LAST_WORDS_BYTES):
        kept = (kept + chunk)[-_LAST_WORDS_BYTES:]
    return kept


def _why_failed(code: int, complaint: bytes) -> InputError | MachineError:
    said = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
    if code == InputError.exit_code:
        return InputError(said[0])
    return MachineError(f"the strategies can't be listed (exit code {code}): {said[0]}")


async def _answers(
    output: asyncio.StreamReader, asked: Mapping[str, Configuration], answers: dict[str, Configured | None], by_s: float
) -> dict[str, Configuration]:
    """Add the answers of one process as they come.

    Args:
        asked: what it was asked, in that order. by_s: when to stop, on the loop's clock.

    Returns:
        What is left without an answer: first that at which the process hangs or ended.
    """
    now = asyncio.get_running_loop().time
    waiting = dict(enumerate(asked))
    with contextlib.suppress(TimeoutError, msgspec.DecodeError):  # of an empty line: the process ended
        while waiting:
            async with asyncio.timeout_at(min(now() + _ANSWER_TIMEOUT_S, by_s)):
                answer = _decode_answer(await output.readline())
            if (key := waiting.pop(answer.index, None)) is not None:
                answers[key] = answer.configured
    return {key: asked[key] for key in waiting.values()}


async def _ask_others(
    strategies: Path | None, left: dict[str, Configuration], answers: dict[str, Configured | None], by_s: float
) -> None:
    """Ask new processes for what one left without an answer, as long as there is time.

    Args:
        left: first that at which it hangs or ended.
    """
    now = asyncio.get_running_loop().time
    held_up: set[str] = set()
    with contextlib.suppress(TimeoutError, InputError, MachineError, OSError):  # without an answer, then
        while left and now() < by_s:
            key = next(iter(left))
            answers[key] = None
            held_up.add(left.pop(key).strategy)
            # What hung with other parameters may hang again, and must not keep the others from their turn.
            left = dict(sorted(left.items(), key=lambda item: item[1].strategy in held_up))
            if left:
                async with asyncio.timeout_at(by_s), _listed(strategies, left.values()) as (_, output):
                    left = await _answers(output, left, answers, by_s)
