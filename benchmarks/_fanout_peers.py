"""The fan-out by what Python and two message systems bring. Every message is one candle, 56 bytes.

Each reader keeps its own window and appends the candle (:class:`benchmarks._fanout_work.OwnWindow`): a message that is
the whole window, 28 KB, was slower with all of them. The message is bytes and not pickled where a channel takes bytes.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final, Literal

from benchmarks._fanout_stage import CONTEXT, Mechanism, Reader, Unmeasured, Writer
from benchmarks._fanout_work import CASES, Case, Float, Leg, Log, OwnWindow, as_message, candles, pace, read_windows

Publish = Callable[[bytes], object]
Receive = Callable[[], bytes]
#: Enough for a server on a busy machine; it takes 50 ms on an idle one.
_SERVER_S: Final = 20.0
_POLL_S: Final = 0.01


def package(name: str) -> Any:
    """A peer's package.

    Raises:
        Unmeasured: it isn't installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Unmeasured(f"{error}; to install the peers: make bench-peers") from None


class MessageWriter:
    """Packs each candle and hands it to ``publish`` of its case."""

    def __init__(self, publish: dict[Case, Publish]) -> None:
        self._publish: Final = publish

    def publish(self, leg: Leg) -> list[int]:
        """Publish a leg's candles in its pace; their stamps, monotonic ns."""
        publish = self._publish[leg.case]
        made = candles(leg.first, leg.candles)
        stamps: list[int] = []
        for stamp_ns, candle in zip(pace(leg.candles, leg.period_ns), made, strict=True):
            publish(as_message(*candle))
            stamps.append(stamp_ns)
        return stamps


class MessageReader:
    """Receives candles and keeps a window a case."""

    def __init__(self, receive: Receive, offset: int = 0) -> None:
        self._receive: Final = receive
        self._offset: Final = offset
        self._own: Final = {case: OwnWindow() for case in CASES}

    def _windows(self, case: Case) -> Iterator[list[Float]]:
        receive, push, offset = self._receive, self._own[case].push, self._offset
        while True:
            yield push(receive(), offset)

    def read(self, case: Case, last_open_ms: int, log: Log) -> None:
        """Until the candle of that open time has been read."""
        read_windows(self._windows(case), last_open_ms, log)


class Multiprocessing:
    """``multiprocessing.Queue`` or ``Pipe``, one a reader."""

    daemons: Sequence[int] = ()

    def __init__(self, channel: Literal["Queue", "Pipe"]) -> None:
        self.name = f"multiprocessing.{channel}"
        self._channel = channel

    @contextmanager
    def prepare(self, folder: str, readers: int) -> Iterator[None]:
        """Make the channels, which both ends inherit."""
        self._receives: list[Receive] = []
        self._sends: list[Publish] = []
        with ExitStack() as stack:
            for _ in range(readers):
                if self._channel == "Queue":
                    queue: Any = CONTEXT.Queue()
                    stack.callback(queue.close)
                    self._receives.append(queue.get)
                    self._sends.append(queue.put)
                else:
                    theirs, ours = CONTEXT.Pipe(duplex=False)
                    stack.enter_context(theirs)
                    stack.enter_context(ours)
                    self._receives.append(theirs.recv_bytes)
                    self._sends.append(ours.send_bytes)
            yield

    def writer(self) -> Writer:
        """Sends to the one, or to each."""
        sends = self._sends

        def to_all(message: bytes) -> None:
            for send in sends:
                send(message)

        return MessageWriter({"one": sends[0], "all": to_all})

    def reader(self, index: int) -> Reader:
        """The channel's other end."""
        return MessageReader(self._receives[index])


#: A subscription in ZeroMQ is a message's first bytes; eight keep what follows aligned.
_TOPICS: Final[dict[Case, bytes]] = {"one": b"one-----", "all": b"all-----"}


class ZeroMq:
    """ZeroMQ PUB/SUB over ipc: one PUB, a SUB a reader, no limit to what waits (the default drops at 1,000)."""

    name = "zeromq"
    daemons: Sequence[int] = ()

    @contextmanager
    def prepare(self, folder: str, readers: int) -> Iterator[None]:
        """Name the address; sockets are made where they are used, as ZeroMQ wants it with forks."""
        self._zmq = package("zmq")
        self._address = f"ipc://{folder}/zmq"
        self._subscriptions = readers + 1 if readers > 1 else len(CASES)
        yield

    def writer(self) -> Writer:
        """An XPUB, which is a PUB that tells of subscriptions: it waits until all are there."""
        zmq = self._zmq
        socket = zmq.Context().socket(zmq.XPUB)
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.bind(self._address)
        for _ in range(self._subscriptions):
            socket.recv()
        return MessageWriter({case: self._to(socket.send, topic) for case, topic in _TOPICS.items()})

    @staticmethod
    def _to(send: Publish, topic: bytes) -> Publish:
        return lambda message: send(topic + message)

    def reader(self, index: int) -> Reader:
        """The first subscribes to both cases, the others to the second."""
        zmq = self._zmq
        socket = zmq.Context().socket(zmq.SUB)
        socket.setsockopt(zmq.RCVHWM, 0)
        for case in CASES if index == 0 else ("all",):
            socket.setsockopt(zmq.SUBSCRIBE, _TOPICS[case])
        socket.connect(self._address)
        return MessageReader(socket.recv, offset=len(_TOPICS["all"]))


class Redis:
    """Redis pub/sub on a Unix socket, nothing written to disk; the client is pure Python's."""

    name = "redis"

    def __init__(self) -> None:
        self.daemons: Sequence[int] = ()

    @contextmanager
    def prepare(self, folder: str, readers: int) -> Iterator[None]:
        """Start a server of this run's own."""
        self._redis = package("redis")
        program = shutil.which("redis-server")
        if program is None:
            raise Unmeasured("no redis-server; on Debian: apt-get install redis-server")
        self._path = f"{folder}/redis"
        words = [program, "--port", "0", "--unixsocket", self._path, "--save", "", "--appendonly", "no"]
        with subprocess.Popen([*words, "--dir", folder], stdout=subprocess.DEVNULL) as server:
            try:
                self._await(server)
                self.daemons = (server.pid,)
                yield
            finally:
                self.daemons = ()
                server.terminate()

    def _await(self, server: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + _SERVER_S
        with self._client() as client:
            while True:
                try:
                    client.ping()
                    return
                except self._redis.exceptions.ConnectionError:
                    if server.poll() is not None or time.monotonic() > deadline_s:
                        raise Unmeasured("redis-server doesn't answer") from None
                    time.sleep(_POLL_S)

    def _client(self) -> Any:
        return self._redis.Redis(unix_socket_path=self._path)

    def writer(self) -> Writer:
        """PUBLISH to a channel a case."""
        publish = self._client().publish
        return MessageWriter({"one": lambda message: publish("one", message), "all": lambda m: publish("all", m)})

    def reader(self, index: int) -> Reader:
        """SUBSCRIBE, acknowledged before it is ready."""
        listener = self._client().pubsub()
        channels = list(CASES) if index == 0 else ["all"]
        listener.subscribe(*channels)
        for _ in channels:
            answer = listener.get_message(timeout=_SERVER_S)
            if answer is None or answer["type"] != "subscribe":
                raise TimeoutError(f"Redis doesn't acknowledge a subscription: {answer}")
        messages = listener.listen()
        return MessageReader(lambda: next(messages)["data"])


def peers() -> list[Mechanism]:
    """Those of this module."""
    return [Multiprocessing("Queue"), Multiprocessing("Pipe"), ZeroMq(), Redis()]
