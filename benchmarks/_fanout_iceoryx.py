"""The fan-out by iceoryx2's Python binding: a candle in its shared memory, an event to wake the readers.

One publisher, a subscriber and a listener a reader, two services (one a case). iceoryx2's publish-subscribe has no
blocking receive; a reader waits on a listener, as its own examples do, and then takes every sample there is. What is
published is the candle and not the window: the window's 28 KB written anew for each candle were slower.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks._fanout_peers import MessageWriter, package
from benchmarks._fanout_stage import Reader, Writer
from benchmarks._fanout_work import CANDLE_BYTES, CASES, LOOK_AGAIN_S, Case, Float, Log, OwnWindow, read_windows

#: Samples that may wait for a reader (its own default is 2). Beyond that the writer waits: nothing is overwritten.
_BUFFER: Final = 256
_SHARED_MEMORY: Final = Path("/dev/shm")


def _prefix(folder: str) -> str:
    return f"{Path(folder).name}_"


class CandleSample(ctypes.Structure):
    """A candle's bytes."""

    _fields_ = [("message", ctypes.c_uint8 * CANDLE_BYTES)]


class _Ports:
    """The services of both cases as one process sees them."""

    def __init__(self, iox2: Any, folder: str, readers: int) -> None:
        config = iox2.config.default()
        config.global_cfg.root_path = iox2.Path.new(f"{folder}/")
        # Its shared memory is named by this prefix alone: the folder's name keeps runs apart.
        config.global_cfg.prefix = iox2.FileName.new(_prefix(folder))
        builder = iox2.NodeBuilder.new().config(config).signal_handling_mode(iox2.SignalHandlingMode.Disabled)
        self._iox2: Final = iox2
        self._readers: Final = readers
        self._node: Final = builder.create(iox2.ServiceType.Ipc)

    def samples(self, case: Case) -> Any:
        builder = self._node.service_builder(self._iox2.ServiceName.new(f"candles/{case}"))
        publishing = builder.publish_subscribe(CandleSample).max_subscribers(self._readers).max_publishers(1)
        keeping = publishing.enable_safe_overflow(False).subscriber_max_buffer_size(_BUFFER)
        return keeping.max_nodes(self._readers + 2).open_or_create()

    def events(self, case: Case) -> Any:
        builder = self._node.service_builder(self._iox2.ServiceName.new(f"candles/{case}"))
        waking = builder.event().max_listeners(self._readers).max_notifiers(1)
        return waking.max_nodes(self._readers + 2).open_or_create()


class _IceoryxReader:
    def __init__(self, iox2: Any, ports: _Ports, cases: Sequence[Case]) -> None:
        self._again = iox2.Duration.from_secs_f64(LOOK_AGAIN_S)
        self._ports = ports  # a node that goes takes its ports with it
        self._own: Final = {case: OwnWindow() for case in CASES}
        self._listeners = {case: ports.events(case).listener_builder().create() for case in cases}
        self._subscribers = {
            case: ports.samples(case).subscriber_builder().buffer_size(_BUFFER).create() for case in cases
        }

    def _windows(self, case: Case) -> Iterator[list[Float]]:
        receive, wait = self._subscribers[case].receive, self._listeners[case].timed_wait
        push, again = self._own[case].push, self._again
        while True:
            sample = receive()
            if sample is None:
                wait(again)
                continue
            columns = push(sample.payload().contents.message)
            sample.delete()
            yield columns

    def read(self, case: Case, last_open_ms: int, log: Log) -> None:
        read_windows(self._windows(case), last_open_ms, log)


class Iceoryx:
    """Zero-copy publish-subscribe with an event service beside."""

    name = "iceoryx2"
    daemons: Sequence[int] = ()

    @contextmanager
    def prepare(self, folder: str, readers: int) -> Iterator[None]:
        """Nothing runs in between: the first process makes the services."""
        self._iox2 = package("iceoryx2")
        self._iox2.set_log_level(self._iox2.LogLevel.Error)
        self._folder, self._readers = folder, readers
        try:
            yield
        finally:
            for left in _SHARED_MEMORY.glob(f"{_prefix(folder)}*"):
                left.unlink(missing_ok=True)

    def writer(self) -> Writer:
        """Copies the candle into a loaned sample, sends it and notifies."""
        self._ports = _Ports(self._iox2, self._folder, self._readers)
        publish = {case: self._to(case) for case in CASES}
        return MessageWriter(publish)

    def _to(self, case: Case) -> Any:
        publisher = self._ports.samples(case).publisher_builder().create()
        notify = self._ports.events(case).notifier_builder().create().notify
        loan, copy = publisher.loan_uninit, ctypes.memmove

        def publish(message: bytes) -> None:
            sample = loan()
            copy(sample.payload_ptr, message, CANDLE_BYTES)
            sample.assume_init().send()
            notify()

        return publish

    def reader(self, index: int) -> Reader:
        """The first subscribes to both cases, the others to the second."""
        ports = _Ports(self._iox2, self._folder, self._readers)
        return _IceoryxReader(self._iox2, ports, CASES if index == 0 else ("all",))
