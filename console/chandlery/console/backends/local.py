"""`chandlery up` behind the API: its view, asked once a second over its Unix socket, and its folders of manifests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import aiohttp
import msgspec

from chandlery.console.backend import (
    BadFieldError,
    ConflictError,
    FeedKafka,
    NotFoundError,
    RefusedError,
    Snapshot,
    TraderManifest,
)
from chandlery.console.backends.local_folder import ManifestFolders
from chandlery.console.backends.local_models import (
    Losses,
    MarketTime,
    feed_of,
    pids_of,
    pool_of,
    processes_of,
    segment_of,
    trader_of,
)
from chandlery.console.backends.local_shares import LocalShares
from chandlery.console.backends.memory_history import MemoryHistory
from chandlery.console.model import TraderRow, View, decode_view
from chandlery.console.settings import LocalSettings
from chandlery.core.errors import UnavailableError
from chandlery.core.manifests import STDIN

log = logging.getLogger("chandlery.console")

_EVERY_S: Final = 1.0
#: Of that: several consoles of one machine don't ask in step.
_JITTER: Final = 0.1
# The view takes some ms; a machine that is busy with a market twenty times that; then it is said to be away.
_TIMEOUT_S: Final = 2.0
#: A check makes the strategy with its parameters in a process of its own: 0.5 s, and half a minute on a busy machine.
_CHECK_TIMEOUT: Final = aiohttp.ClientTimeout(total=30.0)
# The instance sees a change after 0.1 s, a deletion after 0.4 s, and plans at once; a busy machine gets twice that.
_TAKEN_IN_S: Final = 1.0
_LOOK_AGAIN_S: Final = 0.1
#: In notices of an instance that keeps what a folder declared (missing, or emptied at once).
_KEPT: Final = "keeps running until"


class _Written(msgspec.Struct):
    """Answer of ``GET /v1/trader``."""

    manifest: dict[str, Any]
    file: str


_decode_written: Final = msgspec.json.Decoder(_Written).decode
_decode_wrong: Final = msgspec.json.Decoder(list[tuple[str, str]]).decode


class LocalBackend:
    """The instance of `chandlery up` on this machine.

    Attributes:
        writable: whether one of its manifests is a folder; Traders that stand in a single file, or came through
            standard input, can't be changed here.
    """

    mode: Literal["local", "cluster"] = "local"

    def __init__(self, settings: LocalSettings) -> None:
        self._instance = settings.instance
        self._folders = ManifestFolders(settings.manifests)
        self.writable = self._folders.writable
        self._view: View | None = None
        self._told_s = self._made_s = 0.0
        self._why_away = "`chandlery up` has not answered yet"
        self._tag = ""
        self._market_time = MarketTime()
        self._losses = Losses()
        self._memory = MemoryHistory()
        self._shares = LocalShares()
        self._looking = asyncio.Lock()
        self._snapshot = Snapshot(away=(self._why_away,))
        self._session: aiohttp.ClientSession | None = None
        self._polling: asyncio.Task[None] | None = None
        self._changing = asyncio.Lock()
        self._look_now = asyncio.Event()

    # Following ------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to ask. Returns at once."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(self._instance), timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S)
        )
        self._polling = asyncio.create_task(self._poll(), name="ask the instance")

    async def stop(self) -> None:
        """Stop asking."""
        try:
            if self._polling is not None:
                self._polling.cancel()
                await asyncio.gather(self._polling, return_exceptions=True)
                self._polling = None
        finally:
            if self._session is not None:
                await self._session.close()
                self._session = None

    def snapshot(self) -> Snapshot:
        """What the instance said last; while it is away, with figures that grow old."""
        if self._why_away and self._view is not None and time.monotonic() - self._made_s > _EVERY_S:
            self._snapshot = self._made(self._view)
        return self._snapshot

    def kafkas(self) -> Sequence[FeedKafka]:
        """Of each feed that has started."""
        feeds = self._view.feeds if self._view is not None else []
        return [FeedKafka(row.feed, row.kafka()) for row in feeds if row.bootstrap]

    async def refresh(self) -> None:
        """Ask now.

        Raises:
            UnavailableError: no answer, or none that can be read.
        """
        headers = {"If-None-Match": self._tag} if self._tag else {}
        status, body, tag = await self._get("/v1/view", headers, {"signals": "0"})
        if status == 200:
            try:
                self._view = decode_view(body)
            except msgspec.DecodeError as error:
                raise UnavailableError(f"`chandlery up` is of another version: {error}") from error
            self._tag = tag
        elif status != 304 or self._view is None:
            raise UnavailableError(f"`chandlery up` answers {status}")
        assert self._view is not None
        self._told_s, self._why_away = time.monotonic(), ""
        self._market_time.note(self._view.feeds, self._told_s)
        self._losses.note(self._view.feeds, self._told_s)
        # In a thread: on a busy machine the kernel takes its time, and streams don't wait for it.
        async with self._looking:
            shares = await asyncio.to_thread(self._shares.look, pids_of(self._view))
        self._memory.note(processes_of(self._view, shares), time.time_ns() // 1_000_000)
        self._snapshot = self._made(self._view)

    async def _poll(self) -> None:
        while True:
            try:
                await self.refresh()
            except UnavailableError as error:
                self._go_away(str(error))
            except Exception:  # a defect of ours must not stop what everybody looks at: kept as evidence, tried again
                log.exception("the instance's view can't be used")
                self._go_away("what `chandlery up` answers can't be used; see the console's log")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_S * (1 + _JITTER * (random.random() - 0.5))):
                    await self._look_now.wait()
            self._look_now.clear()

    def _go_away(self, why: str) -> None:
        if not self._why_away:
            log.warning("the instance is away", extra={"problem": why})
        self._why_away = why
        if self._view is None:
            self._snapshot = Snapshot(away=(why,))

    def _made(self, view: View) -> Snapshot:
        now_ms, now_s = time.time_ns() // 1_000_000, time.monotonic()
        self._made_s = now_s
        away = (self._why_away,) if self._why_away else ()
        return Snapshot(
            traders=[trader_of(row, now_ms, int((now_s - self._told_s) * 1000)) for row in view.traders],
            pools=[pool_of(row) for row in view.pools],
            feeds=[
                feed_of(
                    row, self._market_time, now_s, answers=not away, lost_ages_ms=self._losses.ages_ms(row.feed, now_s)
                )
                for row in view.feeds
            ],
            memory=self._memory.told([segment_of(row) for row in view.segments]),
            away=away,
            notices=list(view.notices),
            started_ms=view.started_ms,
            transports={row.trader: row.transport for row in view.traders},
        )

    async def _get(self, path: str, headers: dict[str, str], query: dict[str, str]) -> tuple[int, bytes, str]:
        return await self._ask("GET", path, headers=headers, params=query)

    async def _ask(self, method: str, path: str, **more: Any) -> tuple[int, bytes, str]:
        if self._session is None:
            raise UnavailableError("the console is ending")
        try:
            async with self._session.request(method, f"http://local{path}", **more) as answer:
                return answer.status, await answer.read(), answer.headers.get("ETag", "")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            what = "nothing within 2 s" if isinstance(error, TimeoutError) else str(error) or repr(error)
            raise UnavailableError(f"`chandlery up` does not answer: {what}") from error

    # Traders as they are written ------------------------------------------------------------------------------

    async def manifest(self, namespace: str, name: str) -> TraderManifest:
        """Raises: NotFoundError; UnavailableError: it can't be asked."""
        try:
            return await asyncio.to_thread(self._folders.manifest, namespace, name)
        except NotFoundError:
            # Read from standard input, or gone from disk and kept.
            written = await self._written(namespace, name)
            if written is None:
                raise
            return TraderManifest(written.manifest, kept_by=written.file)

    async def create(self, manifest: dict[str, Any]) -> TraderManifest:
        """A file ``{namespace}.{name}.trader.yaml`` in the first folder. Raises: see ``Backend.create``."""
        async with self._changing:
            namespace, name = self._folders.identity(manifest)
            written = await self._written_or_away(namespace, name)
            if written is not None and written.file == STDIN:
                raise ConflictError(f"there is a Trader {namespace}/{name} already: it came through standard input")
            await self._refuse_wrong(manifest)
            made = await asyncio.to_thread(self._folders.create, manifest)
        await self._until_seen(f"{namespace}/{name}", lambda row: row is not None)
        return made

    async def replace(self, manifest: dict[str, Any], resource_version: str) -> TraderManifest:
        """Change the document it stands in. Raises: see ``Backend.replace``."""
        async with self._changing:
            namespace, name = self._folders.identity(manifest)
            await self._refuse_unwritten(namespace, name)
            await self._refuse_wrong(manifest)
            changed = await asyncio.to_thread(self._folders.replace, manifest, resource_version)
        self._look_now.set()
        return changed

    async def suspend(self, namespace: str, name: str, *, suspend: bool) -> TraderManifest:
        """Set ``spec.suspend`` in the document it stands in. Raises: see ``Backend.suspend``."""
        async with self._changing:
            await self._refuse_unwritten(namespace, name)
            changed = await asyncio.to_thread(self._folders.suspend, namespace, name, suspend)
        await self._until_seen(f"{namespace}/{name}", lambda row: row is not None and row.suspended is suspend)
        return changed

    async def delete(self, namespace: str, name: str) -> None:
        """Take the document out of its file, or the file away. Raises: see ``Backend.delete``."""
        async with self._changing:
            await self._refuse_unwritten(namespace, name)
            await asyncio.to_thread(self._folders.delete, namespace, name)
            # One after the other also for the instance: files that go at once it takes for a slip of the hand.
            if not await self._until_seen(f"{namespace}/{name}", lambda row: row is None):
                self._refuse_kept(namespace, name)

    def _refuse_kept(self, namespace: str, name: str) -> None:
        """Raises: ConflictError: the instance keeps what the folders don't declare any more, and says so."""
        for notice in self._view.notices if self._view is not None else ():
            if _KEPT in notice:
                raise ConflictError(f"Trader {namespace}/{name} is out of its file, and runs on: {notice}")

    async def _refuse_unwritten(self, namespace: str, name: str) -> None:
        written = await self._written_or_away(namespace, name)
        if written is not None and written.file == STDIN:
            raise RefusedError(f"Trader {namespace}/{name} came through standard input: there is no file to change")

    async def _refuse_wrong(self, manifest: dict[str, Any]) -> None:
        """What the instance wouldn't run, the next `chandlery up` refuses to start with: it is never written.

        Files can be changed without the instance: where it doesn't answer, it says so when it reads them.

        Raises:
            BadFieldError: the first field that is wrong; the sentence tells of all.
        """
        try:
            status, body, _ = await self._ask("POST", "/v1/check", json=manifest, timeout=_CHECK_TIMEOUT)
        except UnavailableError:
            return
        if status != 200:
            return
        try:
            found = _decode_wrong(body)
        except msgspec.DecodeError as error:
            raise UnavailableError(f"`chandlery up` is of another version: {error}") from error
        if found:
            raise BadFieldError("; ".join(f"{field}: {sentence}" for field, sentence in found), found[0][0])

    async def _written_or_away(self, namespace: str, name: str) -> _Written | None:
        """As the instance has it; None also where it doesn't answer: files can be changed without it."""
        try:
            return await self._written(namespace, name)
        except UnavailableError:
            return None

    async def _written(self, namespace: str, name: str) -> _Written | None:
        status, body, _ = await self._get("/v1/trader", {}, {"name": f"{namespace}/{name}"})
        if status != 200:
            return None
        try:
            return _decode_written(body)
        except msgspec.DecodeError as error:
            raise UnavailableError(f"`chandlery up` is of another version: {error}") from error

    async def _until_seen(self, trader: str, seen: Callable[[TraderRow | None], bool]) -> bool:
        """Wait until the instance has taken a change in, so that whoever made it sees it in the next answer.

        A change that it doesn't take in in time stands in its file all the same. Returns False: it answers, and hasn't.
        """
        deadline = time.monotonic() + _TAKEN_IN_S
        while time.monotonic() < deadline:
            try:
                await self.refresh()
            except UnavailableError:
                return True
            rows = self._view.traders if self._view is not None else []
            if seen(next((row for row in rows if row.trader == trader), None)):
                return True
            await asyncio.sleep(_LOOK_AGAIN_S)
        return False
