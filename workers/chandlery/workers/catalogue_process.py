"""A process that imports strategies and tells the catalogue, begun again without what ends it or never returns.

Whoever asks imports no strategy, and is ended or held up by none. Supervisors and commands ask in this one way.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from chandlery.core.configurations import Answer, Configuration
from chandlery.core.errors import InputError, MachineError
from chandlery.core.processes import child_environment, end_session
from chandlery.workers.supervisor.exits import signal_name

#: Importing TA-Lib takes a second, thirty times that on a cold disk and a busy machine. Of each import by itself: one that
#: never returns costs this once.
TIMEOUT_S: Final = 30.0
#: Longest line that is read: a catalogue of hundreds of strategies with long docs.
_MOST_LINE_BYTES: Final = 64 * 1024 * 1024
#: What is kept of the process's standard error: its last line says why it failed, however much strategies write there.
_LAST_WORDS_BYTES: Final = 8 * 1024
#: How long what it said last is waited for when the process has ended.
_LAST_WORDS_S: Final = 1.0

_decode: Final = msgspec.json.Decoder(str | list[dict[str, Any]]).decode
_decode_answer: Final = msgspec.json.Decoder(Answer | None).decode


class _Protocol(asyncio.subprocess.SubprocessStreamProtocol):
    """Tells that the process has ended, and ends what that has left in its session: later its number may be another's.

    ``Process.wait()`` waits for the end of its pipes too, and what a strategy started in a session of its own may hold those
    open for ever: it can't be reached.
    """

    def __init__(self) -> None:
        super().__init__(limit=_MOST_LINE_BYTES, loop=asyncio.get_running_loop())
        self.ended = asyncio.Event()
        self._pid = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._pid = transport.get_pid() or 0

    def process_exited(self) -> None:
        super().process_exited()
        try:
            end_session(self._pid)
        finally:
            self.ended.set()


class Output:
    """What a process says, a line each, until it has ended: whatever else holds its standard output open."""

    def __init__(self, stdout: asyncio.StreamReader, ended: asyncio.Event) -> None:
        self._stdout = stdout
        self._ended = ended

    async def readline(self) -> bytes:
        """The next line; empty: the process has ended, and there is none.

        Raises:
            ValueError: it is too long.
        """
        reading = asyncio.create_task(self._stdout.readline())
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait({reading, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                # What it had written before it ended is on its way.
                await asyncio.wait({reading}, timeout=_LAST_WORDS_S)
            return reading.result() if reading.done() else b""
        finally:
            reading.cancel()
            ended.cancel()
            await asyncio.gather(reading, ended, return_exceptions=True)


class _Begun(NamedTuple):
    """A process. ended: set once it has. last_words: what it writes to standard error; done at the end of that."""

    process: asyncio.subprocess.Process
    output: Output
    ended: asyncio.Event
    last_words: asyncio.Task[bytes]


class Listed:
    """What a process has told, and may be asked for.

    Attributes:
        entries: the catalogue. left_out: what it names as broken without having imported it, and what became of the process
            that did: entry points and files of the folder, by name.
        pid: the process's number. has_ended: it is gone; which is known a moment later. end: what became of it then.
        can_be_asked: it waits for a question; not while it answers one, nor when an answer was given up.
    """

    def __init__(self, begun: _Begun, entries: list[dict[str, Any]], left_out: dict[str, str]) -> None:
        self.entries = entries
        self.left_out = left_out
        self.pid = begun.process.pid
        self._begun = begun
        self._is_idle = True

    @property
    def has_ended(self) -> bool:
        return self._begun.ended.is_set()

    @property
    def end(self) -> str:
        code = self._begun.process.returncode
        return _end(code) if code is not None else ""

    @property
    def can_be_asked(self) -> bool:
        return self._is_idle and not self.has_ended

    async def ask(self, asked: Collection[Configuration]) -> None:
        """Ask what becomes of configurations; :meth:`answer` has the answers."""
        if not asked:
            return
        stdin = self._begun.process.stdin
        assert stdin is not None
        self._is_idle = False
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it ended: there will be no answer
            stdin.write(msgspec.json.encode(list(asked)) + b"\n")
            await stdin.drain()

    async def answer(self) -> Answer | None:
        """The next answer; None: there will be no other, be it that all have come or that who gave them has ended.

        Raises:
            msgspec.DecodeError: it is none, for who wrote it was ended meanwhile. ValueError: it is too long.
        """
        if self._is_idle:
            return None
        if not (line := await self._begun.output.readline()).endswith(b"\n"):
            # Its output may end a moment before that it has ended is known, and amid a line.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORDS_S):
                    await self._begun.ended.wait()
            return None
        answer: Answer | None = _decode_answer(line)
        self._is_idle = answer is None
        return answer


class _Stopped(NamedTuple):
    """A process that told no catalogue: at which import (empty: at none of them), and what became of it."""

    name: str
    problem: str
    code: int | None = None


@contextlib.asynccontextmanager
async def listed(
    strategies_dir: str, *, is_asked: bool = False, without: Mapping[str, str] | None = None, keeps_errors: bool = False
) -> AsyncIterator[Listed]:
    """A process that has told the catalogue, and waits for questions if it will be asked some; ended at the end.

    Args:
        strategies_dir: folder of strategy files, or empty. is_asked: whether it waits for questions.
        without: what isn't imported, and why. keeps_errors: standard error is kept from this process's own, and the last line
            of it told where it says why there is no catalogue.

    Raises:
        InputError: no such folder. MachineError: the process failed otherwise than by a strategy's import.
        OSError: it can't be started.
    """
    left_out = dict(without or {})
    while True:
        async with _begun(strategies_dir, left_out, is_asked, keeps_errors) as begun:
            told = await _listing(begun)
            if not isinstance(told, _Stopped):
                yield Listed(begun, told, left_out)
                return
            if not told.name or told.name in left_out:
                raise _why_failed(told, await _ended(begun.last_words))
        left_out[told.name] = told.problem


@contextlib.asynccontextmanager
async def _begun(
    strategies_dir: str, without: Mapping[str, str], is_asked: bool, keeps_errors: bool
) -> AsyncIterator[_Begun]:
    arguments = ["-m", "chandlery.workers.catalogue", "--announce"]
    if strategies_dir:
        arguments += ["--strategies", strategies_dir]
    if is_asked:
        arguments.append("--configure")
    arguments += [f"--without={name}={problem}" for name, problem in without.items()]
    loop = asyncio.get_running_loop()
    # As asyncio.create_subprocess_exec does, which keeps the transport to itself.
    transport, protocol = await loop.subprocess_exec(
        _Protocol,
        # By way of processes: a file that never returns must not outlive who asked and was killed.
        sys.executable, "-m", "chandlery.core.processes", sys.executable, *arguments,
        stdin=asyncio.subprocess.PIPE if is_asked else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE if keeps_errors else None,
        env=child_environment(), start_new_session=True,
    )  # fmt: skip
    process = asyncio.subprocess.Process(transport, protocol, loop)
    last_words = asyncio.create_task(_last_words(process.stderr))
    assert process.stdout is not None
    try:
        yield _Begun(process, Output(process.stdout, protocol.ended), protocol.ended, last_words)
    finally:
        if not protocol.ended.is_set():
            # With the one that answers, and what a strategy started; what has begun a session of its own can't be reached.
            end_session(process.pid)
        try:
            await protocol.ended.wait()
        finally:
            last_words.cancel()
            if process.stdin is not None and process.stdin.transport.get_write_buffer_size():
                process.stdin.transport.abort()  # closing it would wait for what nobody reads any more
            transport.close()
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


async def _listing(begun: _Begun) -> list[dict[str, Any]] | _Stopped:
    now = asyncio.get_running_loop().time
    name = ""
    try:
        async with asyncio.timeout(TIMEOUT_S) as limit:
            while line := await begun.output.readline():
                said: str | list[dict[str, Any]] = _decode(line)
                if not isinstance(said, str):
                    return said
                name = said
                # For each anew: on a slow machine the last one must not pay for all before it.
                limit.reschedule(now() + TIMEOUT_S)
            await begun.ended.wait()
    except TimeoutError:
        return _Stopped(name, f"took more than {TIMEOUT_S:g} s")
    except (msgspec.DecodeError, ValueError):  # of no text, or of a line that is too long
        return _Stopped(name, "said what is no catalogue")
    code = begun.process.returncode
    assert code is not None
    return _Stopped(name, _end(code), code)


def _end(code: int) -> str:
    return f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"


def _why_failed(stopped: _Stopped, last_words: bytes) -> InputError | MachineError:
    said = last_words.decode(errors="replace").strip().splitlines()[-1:]
    if stopped.code == InputError.exit_code and said:
        return InputError(said[0])
    return MachineError(
        ": ".join([f"the strategies can't be listed: the process that does it {stopped.problem}", *said])
    )
