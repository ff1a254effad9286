"""An operator as a real process on a real API server, with simulated workers behind kwok's pods."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from tests.support.simulated_workers import SimulatedWorkers

from chandlery.core.errors import UnavailableError
from chandlery.core.kube_credentials import from_kubeconfig
from chandlery.operator.kubernetes.api import GoneError, Kind, KubeApi
from chandlery.operator.kubernetes.kinds import MARKET_FEED, TRADER, TRADER_POOL

ROOT = Path(__file__).resolve().parent.parent.parent
CRD = Kind("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False)
NODE = Kind("v1", "nodes", "Node", namespaced=False)
NAMESPACE = Kind("v1", "namespaces", "Namespace", namespaced=False)
Object = dict[str, Any]


def free_port() -> int:
    """A TCP port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class OperatorProcess:
    """``python -m chandlery.operator``.

    Args:
        arguments: beyond those that every operator of a stage has.
    """

    def __init__(self, kubeconfig: Path, log: Path, worker_port: int, arguments: Iterable[str] = ()) -> None:
        self.port = free_port()
        self.log = log
        self.arguments = tuple(arguments)
        self._command = [
            sys.executable, "-m", "chandlery.operator", "--kubeconfig", str(kubeconfig),
            "--listen", f"127.0.0.1:{self.port}", "--worker-image", "example.invalid/chandlery:test",
            "--worker-port", str(worker_port), *self.arguments,
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it and wait until it has listed everything."""
        self.process = await asyncio.to_thread(self._open)
        deadline = time.monotonic() + 60
        async with aiohttp.ClientSession() as session:
            while True:
                assert self.process.poll() is None, f"the operator ended: {self.log.read_text()[-3000:]}"
                assert time.monotonic() < deadline, "the operator isn't ready within 60 s"
                try:
                    async with session.get(f"http://127.0.0.1:{self.port}/readyz") as answer:
                        if answer.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.05)

    def _open(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, env=dict(os.environ), cwd=ROOT)

    async def metrics(self) -> dict[str, float]:
        """Its metrics by their name with labels."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/metrics") as answer,
        ):
            lines = (await answer.text()).splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    async def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return await asyncio.to_thread(self.process.wait, 30)


class Stage:
    """A cluster prepared for an operator: definitions, nodes whose pods have loopback addresses, simulated workers.

    Args:
        kubeconfig: of the cluster, an administrator's. folder: for logs. workers: absent: ones that always answer.
        account: gives the kubeconfig of an operator with these arguments; absent: the administrator's.
    """

    def __init__(
        self,
        kubeconfig: Path,
        folder: Path,
        workers: SimulatedWorkers | None = None,
        account: Callable[[tuple[str, ...]], Path] | None = None,
    ) -> None:
        self.kubeconfig = kubeconfig
        self._account = account
        self.worker_port = free_port()
        self.api = KubeApi(from_kubeconfig(kubeconfig))
        self.workers = workers or SimulatedWorkers(self.worker_port)
        self.workers.port = self.worker_port
        self._folder = folder
        self._operators: list[OperatorProcess] = []
        # A node's addresses can't be changed: each stage has a node of its own.
        self._node = loopback_node(f"loopback-{os.getpid()}-{self.worker_port}", self.worker_port % 200 + 20)

    async def start(self) -> None:
        """Prepare the cluster, and answer for the workers."""
        for path in sorted((ROOT / "charts" / "chandlery" / "crds").glob("*.yaml")):
            await self.api.apply(CRD, yaml.safe_load(path.read_text()))
        await self.until("definitions served", self._served)
        await self.api.create(NODE, self._node)
        await self.workers.start()

    async def _served(self) -> bool:
        try:
            for kind in (MARKET_FEED, TRADER_POOL, TRADER):
                await self.api.list(kind)
        except (GoneError, UnavailableError):
            return False
        return True

    async def operator(self, *arguments: str) -> OperatorProcess:
        """Start an operator."""
        log = self._folder / f"operator-{len(self._operators)}.log"
        kubeconfig = await asyncio.to_thread(self._account, arguments) if self._account else self.kubeconfig
        made = OperatorProcess(kubeconfig, log, self.worker_port, arguments)
        self._operators.append(made)
        await made.start()
        return made

    def logs(self) -> list[str]:
        """What each operator has said."""
        return [operator.log.read_text() for operator in self._operators]

    async def stop(self) -> None:
        """End what was started."""
        for operator in self._operators:
            operator.kill()
        await self.api.delete(NODE, "", self._node["metadata"]["name"])
        await self.workers.stop()
        await self.api.close()

    async def until(self, what: str, holds: Callable[[], Awaitable[bool]], timeout_s: float = 60.0) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + timeout_s
        while not await holds():
            assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
            await asyncio.sleep(0.05)

    async def apply(self, *manifests: Object) -> None:
        """Create or change resources as a person does: by another field manager than the operator's."""
        for manifest in manifests:
            await self.put(manifest)

    async def put(self, manifest: Object) -> Object:
        """Create a resource, or merge into the one that is there."""
        kind = {"MarketFeed": MARKET_FEED, "TraderPool": TRADER_POOL, "Trader": TRADER}[manifest["kind"]]
        meta = manifest["metadata"]
        try:
            await self.api.get(kind, meta["namespace"], meta["name"])
        except GoneError:
            return await self.api.create(kind, manifest)
        return await self.api.merge(kind, meta["namespace"], meta["name"], {"spec": manifest["spec"]})

    async def ready(self, namespace: str, name: str, kind: Kind = TRADER) -> tuple[str, str]:
        """(status, reason) of the Ready condition; empty: none."""
        found = conditions_of(await self.api.get(kind, namespace, name))
        ready = found.get("Ready", {})
        return ready.get("status", ""), ready.get("reason", "")

    async def until_reason(self, namespace: str, name: str, reason: str, kind: Kind = TRADER) -> None:
        """Wait until Ready has this reason."""

        async def holds() -> bool:
            return (await self.ready(namespace, name, kind))[1] == reason

        await self.until(f"{kind.name} {name}: {reason}", holds)

    async def until_rolled_out(self, namespace: str, name: str) -> None:
        """Wait until a Trader's newest generation decides, and no older one is left."""

        async def holds() -> bool:
            item = await self.api.get(TRADER, namespace, name)
            found = conditions_of(item)
            status = item.get("status", {})
            settled = found.get("Ready", {}).get("status") == "True" and found["Reconciling"]["status"] == "False"
            newest = item["metadata"]["generation"]
            return settled and (status.get("observedGeneration"), status.get("runningGeneration")) == (newest, newest)

        await self.until(f"Trader {name} rolled out", holds)


def conditions_of(item: Object) -> dict[str, Object]:
    """Conditions of a resource by type."""
    return {one["type"]: one for one in item.get("status", {}).get("conditions", ())}


def loopback_node(name: str, second: int) -> Object:
    """A node of kwok's whose pods get addresses of 127.SECOND.0.0/16."""
    room = {"cpu": "256", "memory": "4Ti", "pods": "4000"}
    return {
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "type": "loopback"},
        },
        "spec": {"podCIDR": f"127.{second}.0.0/16", "podCIDRs": [f"127.{second}.0.0/16"]},
        "status": {"allocatable": room, "capacity": room},
    }


def feed(namespace: str, name: str = "market", **spec: Any) -> Object:
    """A MarketFeed."""
    kafka = {"bootstrapServers": "kafka.invalid:9092"}
    return _resource("MarketFeed", namespace, name, {"source": {"synthetic": {}}, "kafka": kafka, **spec})


def pool(
    namespace: str, name: str = "quants", *, workers: int = 1, most: int = 0, room: int = 20, **spec: Any
) -> Object:
    """A TraderPool of ``workers`` up to ``most`` (0: as many); its pods on loopback nodes only."""
    return _resource(
        "TraderPool", namespace, name,
        {
            "feed": {"name": "market"},
            "workers": {"min": workers, "max": most or workers},
            "tradersPerWorker": room,
            "podTemplate": {"spec": {"nodeSelector": {"type": "loopback"}}},
            **spec,
        },
    )  # fmt: skip


def trader(namespace: str, name: str, *, in_pool: str = "quants", fast: int = 9, **spec: Any) -> Object:
    """A Trader."""
    return _resource(
        "Trader", namespace, name,
        {
            "pool": {"name": in_pool},
            "strategy": {"name": "sma-cross", "parameters": {"fast": fast}},
            "market": {"symbols": ["BTC/USDT"], "interval": "1s"},
            **spec,
        },
    )  # fmt: skip


def kafka_pod(image: str, namespace: str) -> list[Object]:
    """A Kafka for trying out, and its Service ``kafka``: namespace left to who applies it."""
    data = [{"name": "data", "mountPath": "/data"}, {"name": "tmp", "mountPath": "/tmp"}]
    advertised = f"kafka.{namespace}.svc:9092"
    return [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "kafka"},
            "spec": {"selector": {"app": "kafka"}, "ports": [{"port": 9092}]},
        },
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "kafka", "labels": {"app": "kafka"}},
            "spec": {
                "securityContext": {"runAsUser": 10001, "fsGroup": 10001},
                "containers": [{
                    "name": "kafka", "image": image, "volumeMounts": data,
                    "command": ["python", "-m", "chandlery.stream.broker_pod", "--data", "/data", "--advertise", advertised],
                    # As the chart's. Who asks for nothing has a fiftieth of what each of Chandlery's pods gets of full CPUs.
                    "resources": {"requests": {"cpu": "100m", "memory": "384Mi"}},
                }],
                "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
            },
        },
    ]  # fmt: skip


def _resource(kind: str, namespace: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": "chandlery.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
