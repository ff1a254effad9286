"""A process that imports strategies and tells the catalogue, begun again without what ends it or never returns.

Whoever asks imports no strategy, and is ended or held up by none. Supervisors and commands ask in this one way.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from chandlery.core.configurations import Configuration
from chandlery.core.errors import InputError, MachineError
from chandlery.core.processes import child_environment
from chandlery.workers.supervisor.exits import signal_name

#: Importing TA-Lib takes a second, thirty times that on a cold disk and a busy machine. Of each import by itself: one that
#: never returns costs this once.
TIMEOUT_S: Final = 30.0
#: Longest line that is read: a catalogue of hundreds of strategies with long docs.
_MOST_LINE_BYTES: Final = 64 * 1024 * 1024
#: What is kept of the process's standard error: its last line says why it failed, however much strategies write there.
_LAST_WORDS_BYTES: Final = 8 * 1024
#: How long they are waited for when the process has ended.
_LAST_WORDS_S: Final = 1.0

_decode: Final = msgspec.json.Decoder(str | list[dict[str, Any]]).decode


class Listed(NamedTuple):
    """What a process has told.

    Attributes:
        entries: the catalogue. left_out: what it names as broken without having imported it, and what became of the process
            that did: entry points and files of the folder, by name.
        output: where its answers to what was asked come, a line each.
    """

    entries: list[dict[str, Any]]
    left_out: dict[str, str]
    output: asyncio.StreamReader


class _Stopped(NamedTuple):
    """A process that told no catalogue: at which import (empty: at none of them), and what became of it."""

    name: str
    problem: str
    code: int | None = None


@contextlib.asynccontextmanager
async def listed(
    strategies_dir: str,
    asked: Collection[Configuration] | None = None,
    *,
    without: Mapping[str, str] | None = None,
    keeps_errors: bool = False,
) -> AsyncIterator[Listed]:
    """A process that has told the catalogue, and goes on with its answers; ended at the end.

    Args:
        strategies_dir: folder of strategy files, or empty. asked: what to configure; None: nothing is.
        without: what isn't imported, and why. keeps_errors: standard error is kept from this process's own, and the last line
            of it told where it says why there is no catalogue.

    Raises:
        InputError: no such folder. MachineError: the process failed otherwise than by a strategy's import.
        OSError: it can't be started.
    """
    left_out = dict(without or {})
    while True:
        async with _begun(strategies_dir, left_out, asked is not None, keeps_errors) as (process, last_words):
            told = await _listing(process, asked)
            if not isinstance(told, _Stopped):
                assert process.stdout is not None
                yield Listed(told, left_out, process.stdout)
                return
            if not told.name or told.name in left_out:
                raise _why_failed(told, await _ended(last_words))
        left_out[told.name] = told.problem


@contextlib.asynccontextmanager
async def _begun(
    strategies_dir: str, without: Mapping[str, str], is_asked: bool, keeps_errors: bool
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.Task[bytes]]]:
    arguments = ["-m", "chandlery.workers.catalogue", "--announce"]
    if strategies_dir:
        arguments += ["--strategies", strategies_dir]
    if is_asked:
        arguments.append("--configure")
    arguments += [f"--without={name}={problem}" for name, problem in without.items()]
    process = await asyncio.create_subprocess_exec(
        # By way of processes: a file that never returns must not outlive who asked and was killed.
        sys.executable, "-m", "chandlery.core.processes", sys.executable, *arguments,
        stdin=asyncio.subprocess.PIPE if is_asked else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE if keeps_errors else None,
        env=child_environment(), start_new_session=True, limit=_MOST_LINE_BYTES,
    )  # fmt: skip
    last_words = asyncio.create_task(_last_words(process.stderr))
    try:
        yield process, last_words
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                # With what a strategy started and waits for: its session is its own.
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        last_words.cancel()
        await asyncio.gather(last_words, return_exceptions=True)


async def _last_words(errors: asyncio.StreamReader | None) -> bytes:
    kept = b""
    while errors is not None and (chunk := await errors.read(_LAST_WORDS_BYTES)):
        kept = (kept + chunk)[-_LAST_WORDS_BYTES:]
    return kept


async def _ended(last_words: asyncio.Task[bytes]) -> bytes:
    # What a strategy started may hold standard error open for ever.
    done, _ = await asyncio.wait([last_words], timeout=_LAST_WORDS_S)
    return last_words.result() if done else b""


async def _listing(
    process: asyncio.subprocess.Process, asked: Collection[Configuration] | None
) -> list[dict[str, Any]] | _Stopped:
    assert process.stdout is not None
    now = asyncio.get_running_loop().time
    name = ""
    try:
        async with asyncio.timeout(TIMEOUT_S) as limit:
            if asked is not None:
                await _ask(process, asked)
            async for line in process.stdout:
                said: str | list[dict[str, Any]] = _decode(line)
                if not isinstance(said, str):
                    return said
                name = said
                # For each anew: on a slow machine the last one must not pay for all before it.
                limit.reschedule(now() + TIMEOUT_S)
            code = await process.wait()
    except TimeoutError:
        return _Stopped(name, f"took more than {TIMEOUT_S:g} s")
    except (msgspec.DecodeError, ValueError):  # of no text, or of a line that is too long
        return _Stopped(name, "said what is no catalogue")
    return _Stopped(name, _end(code), code)


async def _ask(process: asyncio.subprocess.Process, asked: Collection[Configuration]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended: its exit code says how
        process.stdin.write(msgspec.json.encode(list(asked)))
        process.stdin.write_eof()
        await process.stdin.drain()


def _end(code: int) -> str:
    return f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def _why_failed(stopped: _Stopped, last_words: bytes) -> InputError | MachineError:
    said = last_words.decode(errors="replace").strip().splitlines()[-1:]
    if stopped.code == InputError.exit_code and said:
        return InputError(said[0])
    return MachineError(
        ": ".join([f"the strategies can't be listed: the process that does it {stopped.problem}", *said])
    )
