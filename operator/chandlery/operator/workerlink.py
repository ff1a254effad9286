"""One worker as the operator reaches it: its assignment kept delivered, its status followed by long-poll."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import aiohttp
import msgspec

from chandlery.core.assignment import Assignment, WorkerStatus, decode_status
from chandlery.core.behind import Lag
from chandlery.core.errors import UnavailableError
from chandlery.core.http_errors import in_words
from chandlery.operator.children.naming import Object
from chandlery.operator.conditions import PodRefusal, WorkerView
from chandlery.operator.delivery import Caller, Delivery, Reply
from chandlery.operator.planner import WorkerNow
from chandlery.operator.planner_standing import news_of
from chandlery.operator.podstate import ContainerTrouble, address_of, container_trouble_of, is_ready, trouble_of

log = logging.getLogger("chandlery.operator.worker")

#: How long a worker may hold back its answer for news; the feed allows 55 s.
_LONG_POLL_MS: Final = 20_000
#: Workers have news every second (counters); while nothing is awaited, this is often enough to hear of a crash.
_QUIET_S: Final = 2.0
#: While an assignment is under way every change is heard at once, but for bursts.
_BUSY_S: Final = 0.05
#: While a Trader gets warm, which may take days, its last step is heard of within this.
_WARMING_S: Final = 0.5
#: A push fails for a moment while a pod comes up: what has passed by then is no news. It is tried again every 2 s at most.
_LASTS_S: Final = 1.0
_RETRY_S: Final = 0.5
_LAST_RETRY_S: Final = 5.0


class PodEndpoint:
    """The API of a worker's pod, wherever it runs now.

    Attributes:
        address: IP of the pod; empty: it has none.
    """

    def __init__(self, session: aiohttp.ClientSession, token: Callable[[], str], port: int) -> None:
        self.address = ""
        self._session = session
        self._token = token
        self._port = port

    async def call(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float | None = None) -> Reply:
        """One request.

        Raises:
            UnavailableError: no pod, or no answer.
        """
        if not self.address:
            raise UnavailableError("its pod has no address yet")
        host = f"[{self.address}]" if ":" in self.address else self.address
        # Connecting within a cluster takes a millisecond; a pod that is gone never answers.
        timeout = aiohttp.ClientTimeout(total=timeout_s or 2.0, sock_connect=1.0)
        headers = {"Authorization": f"Bearer {self._token()}"}
        url = f"http://{host}:{self._port}{path}"
        try:
            async with self._session.request(method, url, data=body, headers=headers, timeout=timeout) as response:
                return Reply(response.status, await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise UnavailableError(f"no answer to {method} {path} at {self.address}: {in_words(error)}") from error


class ClusterDelivery(Delivery):
    """Delivery that keeps the assignment in a ConfigMap before it pushes.

    Args:
        keep: writes it; see :meth:`Delivery._keep`. told: called when ``problem`` may be another.

    Attributes:
        least_sequence: of whatever is wanted next.
    """

    def __init__(
        self,
        assignment: Assignment,
        endpoint: Caller,
        keep: Callable[[Assignment], Awaitable[None]],
        told: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(assignment, endpoint)
        self.least_sequence = 1
        self._told = told
        self._write = keep
        self._kept_sequence = assignment.sequence
        self._kept = asyncio.Event()
        #: How often what was kept went: it may have been what was just written.
        self._times_lost = 0

    def want(self, assignment: Assignment) -> bool:
        """See :meth:`Delivery.want`."""
        return super().want(msgspec.structs.replace(assignment, sequence=max(assignment.sequence, self.least_sequence)))

    @property
    def is_newest_kept(self) -> bool:
        """Whether the wanted assignment is kept."""
        return self._kept_sequence == self.assignment.sequence

    async def kept(self) -> None:
        """Return when the wanted assignment is kept: a feed that starts from now on reads it."""
        while not self.is_newest_kept:
            self._kept.clear()
            await self._kept.wait()

    async def _keep(self, assignment: Assignment) -> None:
        if self._kept_sequence != assignment.sequence:
            lost_before = self._times_lost
            await self._write(assignment)
            if self._times_lost != lost_before:
                return  # whoever told so has set the delivery going once more: it is written again then
            self._kept_sequence = assignment.sequence
            self._kept.set()

    def _tell(self, problem: str) -> None:
        before, self.problem = self.problem, problem
        if before != problem:
            self._told()

    def above(self, sequence: int) -> None:
        """Somebody else kept an assignment of this sequence: the wanted one must be above it."""
        if sequence >= self.assignment.sequence and self.assignment.sequence:
            self._replace(msgspec.structs.replace(self.assignment, sequence=sequence + 1))

    def keep_again(self) -> None:
        """What was kept is gone, or not what was kept: keep and push it once more."""
        self._kept_sequence = 0
        self._times_lost += 1
        if self.assignment.sequence:
            self.nudge()


class WorkerLink:
    """A worker.

    Args:
        ended: called with a task of this link that has ended, for whatever reason.

    Attributes:
        name: as the planner calls it. status: its newest answer, None: none since its pod came.
        problem: why it can't be reached; empty: it can. denied: whether it refuses our token.
        refused: why its pod can't be made; None: it can, or nothing is known.
    """

    def __init__(
        self,
        assignment: Assignment,
        endpoint: PodEndpoint,
        keep: Callable[[Assignment], Awaitable[None]],
        changed: Callable[[], None],
        ended: Callable[[asyncio.Task[None]], None],
    ) -> None:
        self.name = assignment.worker
        self.delivery = ClusterDelivery(assignment, endpoint, keep, self._delivery_told)
        self.status: WorkerStatus | None = None
        self.problem = ""
        self.denied = False
        self.refused: PodRefusal | None = None
        self._endpoint = endpoint
        self._changed = changed
        self._ended = ended
        self._hurry = asyncio.Event()
        self._pod = ""
        self._pod_uid = ""
        self._pod_ready = False
        self._trouble = ""
        self._ails: ContainerTrouble | None = None
        self._ready = False
        # One that had Traders before this operator began counts as having been Ready: a dead one is not given the
        # longer time of one that is being made.
        self._was_ready = bool(assignment.traders)
        self._since_ms = now_ms()
        self._lag = Lag()
        self._undelivered = ""
        self._telling: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[WorkerStatus] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to deliver and to listen."""
        self._tasks = [
            asyncio.create_task(self.delivery.run(), name=f"deliver to {self.name}"),
            asyncio.create_task(self._listen(), name=f"listen to {self.name}"),
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End both."""
        if self._telling is not None:
            self._telling.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def want(self, assignment: Assignment) -> None:
        """Keep this assignment delivered from now on."""
        if self.delivery.want(assignment):
            self._hurry.set()

    def pod_changed(self, pod: Object | None) -> None:
        """The worker's pod as it is now."""
        uid = pod["metadata"]["uid"] if pod is not None else ""
        self._pod = pod["metadata"]["name"] if pod is not None else ""
        self._pod_ready = is_ready(pod)
        self._trouble = trouble_of(pod)
        self._ails = container_trouble_of(pod)
        address = address_of(pod)
        if uid != self._pod_uid or address != self._endpoint.address:
            # Another pod: what the one before answered counts no more, and it must be told everything.
            self._pod_uid, self._endpoint.address = uid, address
            self.status = None
            self._lag.forget()
            self.delivery.delivered_sequence = 0
            if self._asking is not None:
                self._asking.cancel()  # the pod asked may never answer
        if address and self.delivery.assignment.sequence and not self.delivery.delivered_sequence:
            self.delivery.nudge()
        self._hurry.set()
        self._note_ready()

    @property
    def is_ready(self) -> bool:
        """Whether its pod is Ready, and its feed doesn't say that the supervisor is away.

        A pod that is Ready but can't be reached from here counts as Ready: what the operator can't see is no reason
        to move what runs.
        """
        return self._pod_ready and (self.status is None or self.status.supervisor_connected)

    def now(self) -> WorkerNow:
        """The worker as the planner sees it."""
        self._note_ready()
        return WorkerNow(self.delivery.assignment, self._ready, self._since_ms, self._was_ready, self.status)

    def view(self) -> WorkerView:
        """The worker as conditions see it."""
        return WorkerView(
            name=self.name,
            pod=self._pod,
            ready=self.is_ready,
            was_ready=self._was_ready,
            status=self.status,
            problem=self.problem,
            undelivered=self.delivery.problem,
            trouble=self._trouble,
            pod_uid=self._pod_uid,
            ails=self._ails,
            refused=self.refused,
            lags_ms=self._lag.told_ms if self.is_ready else 0,
        )

    @property
    def settled(self) -> bool:
        """Whether the worker has acknowledged the newest assignment."""
        return self.status is not None and self.status.sequence == self.delivery.assignment.sequence

    def pace_s(self) -> float:
        """How long to wait before the next question: what hands over, is to, or gets warm, is heard of soon."""
        if not self.settled or any(one.until_ms is not None for one in self.delivery.assignment.traders):
            return _BUSY_S
        standing_by = any(one.mode == "standby" for one in self.delivery.assignment.traders)
        told = self.status.traders.values() if self.status is not None else ()
        return _WARMING_S if standing_by or any(one.state == "Ready" for one in told) else _QUIET_S

    def _note_ready(self) -> None:
        ready = self.is_ready
        if ready != self._ready:
            self._ready, self._since_ms = ready, now_ms()
            self._was_ready = self._was_ready or ready

    async def _listen(self) -> None:
        failures = 0
        while True:
            asked = self._pod_uid
            self._asking = asyncio.create_task(self._ask())
            try:
                status = await self._asking
            except asyncio.CancelledError:
                if not self._asking.cancelled() or self._is_ending():
                    self._asking.cancel()
                    raise
                continue
            except UnavailableError as error:
                failures += 1
                self._unreached(str(error))
                await self._pause(min(_RETRY_S * 2.0 ** min(failures - 1, 5), _LAST_RETRY_S))
                continue
            failures, self.problem = 0, ""
            if asked == self._pod_uid:
                self._take(status)
            await self._pause(self.pace_s())

    @staticmethod
    def _is_ending() -> bool:
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0

    async def _pause(self, longest_s: float) -> None:
        self._hurry.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._hurry.wait()

    def _unreached(self, problem: str) -> None:
        before, self.problem = self.problem, problem
        # With an answer of before there is something better to say.
        if before != problem and self.status is None and self.is_ready:
            self._changed()

    def _delivery_told(self) -> None:
        """What keeps an assignment from being delivered is news once it lasts."""
        if self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_LASTS_S, self._tell_undelivered)

    def _tell_undelivered(self) -> None:
        self._telling = None
        before, self._undelivered = self._undelivered, self.delivery.problem
        if before != self._undelivered:
            self._changed()

    async def _ask(self) -> WorkerStatus:
        after = self.status.version if self.status is not None else 0
        # The answer comes when the wait is over at the latest; 3 s more for a busy machine.
        reply = await self._endpoint.call(
            "GET", f"/v1/status?after={after}&wait_ms={_LONG_POLL_MS}", timeout_s=_LONG_POLL_MS / 1000 + 3
        )
        denied, self.denied = self.denied, reply.status == 401
        if self.denied and not denied:
            self._changed()
        if reply.status != 200:
            raise UnavailableError(f"GET /v1/status gave {reply.status}")
        try:
            return decode_status(reply.body)
        except msgspec.DecodeError as error:
            raise UnavailableError(f"no worker status: {error}") from error

    def _take(self, status: WorkerStatus) -> None:
        before, self.status = self.status, status
        if status.received_sequence < self.delivery.assignment.sequence:
            self.delivery.nudge()
        self._note_ready()
        behind_ms = status.feed.get("behind_ms")
        lags = self._lag.note(behind_ms if isinstance(behind_ms, int) else 0, time.monotonic())
        if lags or before is None or news_of(before) != news_of(status):
            self._changed()


def now_ms() -> int:
    """Monotonic, ms: the clock of the planner's delays."""
    return time.monotonic_ns() // 1_000_000


def wall_ms() -> int:
    """Wall clock, ms: since when candles are a new Trader's to decide."""
    return time.time_ns() // 1_000_000
