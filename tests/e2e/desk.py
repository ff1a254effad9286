"""A whole Chandlery in one namespace, installed by its chart from its own images, and what it says on its topics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.cluster.commands import ClusterError
from tests.e2e.kubectl import Namespace, Resource

from chandlery.core.settings import KafkaSettings
from chandlery.core.signals import Completion, Life, Signal, decode_record
from chandlery.core.topics import topics_of

API: Final = "chandlery.dev/v1alpha1"
CHART: Final = Path(__file__).parents[2] / "charts" / "chandlery"
RELEASE: Final = "desk"
OPERATOR: Final = f"deployment/{RELEASE}-operator"
FEED: Final = "market"
POOL: Final = "quants"
WORKER: Final = f"{POOL}-0-0"
# From nothing to Ready takes 12 s on two quiet cores: a JVM, three Pythons, a topic's first records. Ten times that.
START_S: Final = 120.0
ROLES: Final = ("operator", "stream", "workers", "kafka")

# Prints every record of a topic up to its end, one a line.
_READER: Final = """
import asyncio, sys
from aiokafka import AIOKafkaConsumer

async def main(bootstrap, topic):
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap) as anything:
        if topic not in await anything.topics():
            return f"no topic {topic} yet"
    async with AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest") as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=1000)).values():
                for record in records:
                    print(record.value.decode())

sys.exit(asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 20)))
"""


@dataclass(frozen=True)
class Desk:
    """One installed Chandlery with a feed ``market``, a pool ``quants`` of one worker, and a pod to read topics from."""

    namespace: Namespace

    @property
    def bootstrap(self) -> str:
        """Kafka's address inside the cluster."""
        return f"{RELEASE}-kafka.{self.namespace.name}.svc:9092"

    def trader(self, name: str, symbol: str = "BTC/USDT", **spec: Any) -> dict[str, Any]:
        """A Trader's manifest; the keys of ``spec`` replace those here."""
        whole = {
            "pool": {"name": POOL},
            "strategy": {"name": "sma-cross", "parameters": {"fast": 3, "slow": 8}},
            "market": {"symbols": [symbol], "interval": "1s"},
        }
        return resource("Trader", name, whole | spec)

    def wait_ready(self, name: str, timeout_s: float = START_S) -> None:
        """Wait until a Trader is Ready, as ``kubectl wait`` sees it."""
        self.namespace.wait(f"trader/{name}", "condition=Ready", timeout_s)

    def reason(self, name: str, namespace: Namespace | None = None) -> str:
        """Reason of a Trader's condition Ready; empty as long as it has none."""
        return reason_of((namespace or self.namespace).get("trader", name))

    def signals(self, name: str) -> tuple[dict[str, Signal], dict[str, Completion]]:
        """Signals and completions of a Trader on the topic, by id.

        Raises:
            ClusterError: Kafka can't be read now.
        """
        return _by_id(self.records(name))

    def all_signals(self, name: str, timeout_s: float = START_S) -> tuple[dict[str, Signal], dict[str, Completion]]:
        """The same, asked for again as long as Kafka can't be read (a busy machine takes long to start the reader)."""
        return _by_id(self.all_records(name, timeout_s))

    def all_records(self, name: str, timeout_s: float = START_S) -> list[Signal | Completion]:
        """Every record of :meth:`records`, asked for in the same way: one that is there twice comes twice."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.records(name)
            except ClusterError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1.0)

    def records(self, name: str) -> list[Signal | Completion]:
        """Every signal and completion of a Trader on the topic.

        Raises:
            ClusterError: Kafka can't be read now.
        """
        kafka = KafkaSettings(bootstrap=self.bootstrap, feed=f"{self.namespace.name}.{FEED}")
        text = self.namespace.execute("reader", "python", "-c", _READER, self.bootstrap, topics_of(kafka).signals)
        records = [decode_record(line) for line in text.splitlines()]
        own = f"{self.namespace.name}/{name}"
        return [record for record in records if record.trader == own and not isinstance(record, Life)]

    def more_signals(self, name: str, than: Mapping[str, Signal], timeout_s: float = START_S) -> dict[str, Signal]:
        """Wait for signals of a Trader that weren't among ``than``, acknowledged, and return them."""
        deadline = time.monotonic() + timeout_s
        last = ""
        while True:
            try:
                signals, completions = self.signals(name)
            except ClusterError as error:  # Kafka or the topic isn't there yet
                last = str(error)
            else:
                fresh = {each: signals[each] for each in signals.keys() & completions.keys() - than.keys()}
                if fresh:
                    return fresh
                last = f"{len(signals)} signals, {len(completions)} completions, none of them new"
            if time.monotonic() > deadline:
                raise ClusterError(f"new signals of {name}: not within {timeout_s:.0f} s: {last}")
            time.sleep(1.0)

    def scale_operator(self, replicas: int) -> None:
        """Have as many operators as that: 0 or 1; returns when it is so."""
        self.namespace.kubectl("scale", OPERATOR, f"--replicas={replicas}")

        def is_so(deployment: Resource) -> bool:
            status = deployment["status"]
            return {status.get("replicas", 0), status.get("readyReplicas", 0)} == {replicas}

        self.namespace.until(f"{replicas} operators", OPERATOR.split("/"), is_so, START_S)

    def restarts(self) -> dict[str, int]:
        """How often each container of the worker's pod was restarted."""
        return _restarts_of(self.namespace.get("pod", WORKER))

    def pods(self) -> dict[str, tuple[str, dict[str, int]]]:
        """Of each pod of the feed, the pool and Kafka: which one it is, and how often its containers were restarted."""
        names = (f"{RELEASE}-kafka-0", f"{FEED}-ingest-0", f"{FEED}-aggregator-0", WORKER)
        pods = self.namespace.get("pods", *names)["items"]
        return {pod["metadata"]["name"]: (pod["metadata"]["uid"], _restarts_of(pod)) for pod in pods}


def _by_id(records: list[Signal | Completion]) -> tuple[dict[str, Signal], dict[str, Completion]]:
    return (
        {record.id: record for record in records if isinstance(record, Signal)},
        {record.id: record for record in records if isinstance(record, Completion)},
    )


def reason_of(trader: Resource) -> str:
    """Reason of the condition Ready of a Trader as it is there; empty as long as it has none."""
    conditions = trader.get("status", {}).get("conditions", ())
    return next((str(each["reason"]) for each in conditions if each["type"] == "Ready"), "")


def resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A manifest of one of Chandlery's resources."""
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name}, "spec": spec}


def install(
    namespace: Namespace,
    images: Mapping[str, str],
    console: Mapping[str, Any] | None = None,
    symbol_grace: str = "5m",
) -> Desk:
    """Install the chart with the embedded Kafka, a lively synthetic market and a pool, and a pod to read topics from.

    Args:
        images: role → name of its image, as :data:`ROLES` has them.
        console: the chart's values of a console, which there is then; wants an image of that role.
        symbol_grace: how long a symbol is ingested that no Trader asks for any more.
    """
    values: dict[str, Any] = {
        "images": {role: _image(images[role]) for role in images},
        "kafka": {"embedded": {"enabled": True}},
        "operator": {"delays": {"unready": "30s", "starting": "5m", "shrink": "5m", "symbolGrace": symbol_grace}},
    }
    if console is not None:
        values["console"] = {"enabled": True, **console}
    arguments = ("--namespace", namespace.name, "--values", "-", "--wait", "--timeout", f"{START_S:.0f}s")
    namespace.cluster.run(
        "helm", "install", RELEASE, str(CHART), *arguments, stdin=json.dumps(values), timeout_s=2 * START_S
    )
    market = {
        "source": {"synthetic": {"seed": 7, "tradesPerSecond": 20, "volatility": 0.0005}},
        "symbols": "auto",
        "history": {"candles": 100},
    }
    pool = {
        "feed": {"name": FEED},
        "workers": {"min": 1, "max": 1},
        "tradersPerWorker": 10,
        "allowConfigMapStrategies": True,
    }
    namespace.apply([resource("MarketFeed", FEED, market), resource("TraderPool", POOL, pool), _reader(images)])
    namespace.wait("pod/reader", "condition=Ready", START_S)
    return Desk(namespace)


def eventually(what: str, holds: Callable[[], bool]) -> None:
    """Wait until ``holds`` says yes.

    Raises:
        ClusterError: it doesn't within :data:`START_S`.
    """
    deadline = time.monotonic() + START_S
    while not holds():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {START_S:.0f} s")
        time.sleep(0.1)


def _restarts_of(pod: Resource) -> dict[str, int]:
    status = pod["status"]
    every = [*status.get("initContainerStatuses", ()), *status["containerStatuses"]]
    return {each["name"]: each["restartCount"] for each in every}


def _image(name: str) -> dict[str, str]:
    repository, _, tag = name.rpartition(":")
    return {"repository": repository, "tag": tag}


def _reader(images: Mapping[str, str]) -> dict[str, Any]:
    container = {
        "name": "reader",
        "image": images["workers"],
        "command": ["python", "-c", "import signal; signal.sigwait([signal.SIGTERM])"],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "reader"},
        "spec": {"terminationGracePeriodSeconds": 1, "enableServiceLinks": False, "containers": [container]},
    }
