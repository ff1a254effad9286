"""What tests do with a cluster: kubectl in one namespace, waiting with a deadline, and what to tell after a failure."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e.cluster.commands import ClusterError, run
from tests.e2e.diagnosis import ended_containers, stated

Resource = dict[str, Any]
Manifest = str | Path | Mapping[str, Any] | Sequence[Mapping[str, Any]]

# An API server that answers at all does so within 5 s; 30 s allow for a machine at full load.
_COMMAND_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.2
_LOG_LINES: Final = 40
_LAST_WORDS_LINES: Final = 15
_COMPONENT_LOG_LINES: Final = 8
_LINE_LENGTH: Final = 400
# Each log is a command of 0.1 s, and nobody reads those of a hundred equal pods.
_TOLD_PODS: Final = 10


@dataclass(frozen=True)
class Cluster:
    """A cluster that tests may use.

    Attributes:
        kubeconfig: of an administrator.
        binaries: folder with kubectl and helm; None where those of ``PATH`` are to be used.
        load: makes image archives known to the nodes; None where images come from a registry.
        tag: gives an image that the nodes have a second name; None where images come from a registry.
        signal: sends a container, by its id, a signal, by its name; None where the nodes are somebody else's.
        logs: the components' log files; None where the cluster is somebody else's.
        tests_address: of this machine, as pods reach it; empty where they may not.
    """

    kubeconfig: Path
    binaries: Path | None = None
    load: Callable[[Sequence[Path]], None] | None = None
    tag: Callable[[str, str], None] | None = None
    signal: Callable[[str, str], None] | None = None
    logs: Path | None = None
    tests_address: str = ""

    def environment(self) -> dict[str, str]:
        """Variables for programs that speak to this cluster (kubectl, helm)."""
        path = os.environ.get("PATH", "")
        if self.binaries:
            path = f"{self.binaries}{os.pathsep}{path}"
        return os.environ | {"KUBECONFIG": str(self.kubeconfig), "PATH": path}

    def run(self, program: str, *arguments: str, stdin: str | None = None, timeout_s: float | None = None) -> str:
        """Run kubectl or helm and return what it printed; raises ClusterError with its message if it fails."""
        found = str(self.binaries / program) if self.binaries else program
        return run(found, *arguments, env=self.environment(), stdin=stdin, timeout_s=timeout_s or _COMMAND_TIMEOUT_S)

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float | None = None) -> str:
        """Run kubectl; see :meth:`run`."""
        return self.run("kubectl", *arguments, stdin=stdin, timeout_s=timeout_s)

    def apply(self, manifest: Manifest, *arguments: str) -> str:
        """``kubectl apply`` of a file or folder, of text, or of plain values; further arguments are kubectl's."""
        if isinstance(manifest, Path):
            return self.kubectl("apply", "-f", str(manifest), *arguments)
        return self.kubectl("apply", "-f", "-", *arguments, stdin=_text_of(manifest))

    def get(self, *arguments: str) -> Resource:
        """``kubectl get … -o json``: one resource, or a list with ``items``."""
        resource: Resource = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return resource

    def namespace(self, name: str) -> Namespace:
        """Make a namespace."""
        self.kubectl("create", "namespace", name)
        return Namespace(self, name)


def _text_of(manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(manifest, str):
        return manifest
    items = [manifest] if isinstance(manifest, Mapping) else list(manifest)
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


@dataclass(frozen=True)
class Namespace:
    """One namespace of a cluster: all commands go there unless they say otherwise."""

    cluster: Cluster
    name: str

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout_s: float | None = None) -> str:
        """Run kubectl in this namespace."""
        return self.cluster.kubectl("--namespace", self.name, *arguments, stdin=stdin, timeout_s=timeout_s)

    def apply(self, manifest: Manifest, *arguments: str) -> str:
        """``kubectl apply`` here; see :meth:`Cluster.apply`."""
        return self.cluster.apply(manifest, "--namespace", self.name, *arguments)

    def get(self, *arguments: str) -> Resource:
        """``kubectl get … -o json`` here."""
        return self.cluster.get("--namespace", self.name, *arguments)

    def wait(self, target: str, condition: str, timeout_s: float = 60.0) -> None:
        """``kubectl wait --for=CONDITION TARGET``, which fails if the target isn't there."""
        arguments = ("wait", f"--for={condition}", target, f"--timeout={timeout_s:.0f}s")
        self.kubectl(*arguments, timeout_s=timeout_s + _COMMAND_TIMEOUT_S)

    def until(
        self, what: str, target: Sequence[str], holds: Callable[[Resource], bool], timeout_s: float = 60.0
    ) -> Resource:
        """Get a resource until ``holds`` says yes of it, and return it. It need not be there from the beginning.

        Args:
            what: what is waited for, as the failure's message names it.
            target: arguments of ``kubectl get``, such as ``("pod", "a")`` or ``("pods", "-l", "app=a")``.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            last: object
            try:
                resource = self.get(*target)
            except ClusterError as error:
                last = error
            else:
                if holds(resource):
                    return resource
                last = json.dumps(resource.get("status", resource), indent=1)
            if time.monotonic() > deadline:
                raise ClusterError(f"{what}: not within {timeout_s:.0f} s; last seen: {last}")
            time.sleep(_POLL_S)

    def logs(self, pod: str, container: str = "") -> str:
        """What a pod's container (or its only one) has logged."""
        return self.kubectl("logs", pod, *(("-c", container) if container else ()))

    def execute(self, pod: str, *command: str, container: str = "") -> str:
        """Run a program in a pod's container and return what it printed; ClusterError if it fails."""
        return self.kubectl("exec", pod, *(("-c", container) if container else ()), "--", *command)

    def kill(self, pod: str, container: str) -> None:
        """Kill a container without its knowing, and wait until another runs in its place."""
        before = self._signal(pod, container, "SIGKILL")

        def runs_again(resource: Resource) -> bool:
            now = _status_of(resource, container)
            return now["containerID"] != before and "running" in now["state"]

        self.until(f"{container} of {pod} runs again", ("pod", pod), runs_again)

    @contextmanager
    def stopped(self, pod: str, container: str) -> Iterator[None]:
        """A container whose first process stands still meanwhile: whatever it is told, it hears at the end."""
        stopped = self._signal(pod, container, "SIGSTOP")
        try:
            yield
        finally:
            self._send(stopped, "SIGCONT")

    def _signal(self, pod: str, container: str, name: str) -> str:
        """Send a container a signal; returns which one it is."""
        found: str = _status_of(self.get("pod", pod), container)["containerID"]
        self._send(found, name)
        return found

    def _send(self, container_id: str, name: str) -> None:
        if self.cluster.signal is None:
            raise ClusterError("containers of a cluster that isn't this run's own can't be sent signals")
        self.cluster.signal(container_id.removeprefix("containerd://"), name)

    @contextmanager
    def following(self, *arguments: str) -> Iterator[Callable[[], str]]:
        """A kubectl that goes on meanwhile, as ``logs --follow`` or ``get --watch``, and what it has printed so far."""
        program = str(self.cluster.binaries / "kubectl") if self.cluster.binaries else "kubectl"
        command = [program, "--namespace", self.name, *arguments]
        with tempfile.TemporaryFile("w+") as printed:
            process = subprocess.Popen(command, stdout=printed, env=self.cluster.environment())
            try:
                yield lambda: os.pread(printed.fileno(), os.fstat(printed.fileno()).st_size, 0).decode()
            finally:
                process.terminate()
                process.wait()

    def remove(self) -> None:
        """Have the namespace deleted, without waiting for it."""
        self.cluster.kubectl("delete", "namespace", self.name, "--ignore-not-found", "--wait=false")

    def diagnosis(self) -> str:
        """What one looks at after a failure. First, for reports are cut at their end, what tells most.

        Containers that ended, with their last words; what Chandlery's resources say; events, pods and the ends of their
        logs.
        """
        parts = [
            *self._ends(),
            _titled(f"statuses in {self.name}", self._statuses()),
        ]
        parts += [
            _titled(f"{what} in {self.name}", self._tried(*arguments))
            for what, arguments in (
                ("resources", ("get", "all,configmaps,secrets", "-o", "wide")),
                ("chandlery", ("get", "chandlery", "-o", "wide", "--ignore-not-found")),
                ("events", ("get", "events", "--sort-by=.lastTimestamp")),
            )
        ]
        return "\n".join((*parts, *self._pods_logs()))

    def _ends(self) -> Iterator[str]:
        try:
            ended = list(ended_containers(self.get("pods")["items"]))
        except ClusterError as error:
            yield _titled("containers that ended", str(error))
            return
        for one in ended[:_TOLD_PODS]:
            arguments = (one.pod, "-c", one.container, f"--tail={_LAST_WORDS_LINES}", *(("--previous",) * one.again))
            lines = [line[:_LINE_LENGTH] for line in self._tried("logs", *arguments).splitlines()]
            yield _titled(f"ended: {one.pod} {one.container}: {one.how}", "\n".join(lines))

    def _statuses(self) -> str:
        try:
            return "\n".join(stated(self.get("chandlery")["items"]))
        except ClusterError as error:  # a cluster without the CustomResourceDefinitions
            return str(error)

    def _pods_logs(self) -> Iterator[str]:
        try:
            pods = self.get("pods")["items"][:_TOLD_PODS]
        except ClusterError as error:
            yield _titled("pods", str(error))
            return
        for pod in pods:
            name = pod["metadata"]["name"]
            for container in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"]):
                for arguments in ((), ("--previous",)):
                    log = self._tried("logs", name, "-c", container["name"], f"--tail={_LOG_LINES}", *arguments)
                    if "previous terminated container" not in log:
                        yield _titled(f"log of {name} {container['name']} {' '.join(arguments)}", log)

    def _tried(self, *arguments: str) -> str:
        try:
            return self.kubectl(*arguments)
        except ClusterError as error:
            return str(error)


def versions_in(printed: str) -> Iterator[Resource]:
    """The resources that ``kubectl get --watch --output=json`` has printed so far, one after another."""
    decoder, rest = json.JSONDecoder(), printed.lstrip()
    while rest:
        try:
            resource, end = decoder.raw_decode(rest)
        except ValueError:
            return  # the last one isn't whole yet
        rest = rest[end:].lstrip()
        yield resource


def _status_of(pod: Resource, container: str) -> Resource:
    status = pod["status"]
    every = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    found: Resource = next(each for each in every if each["name"] == container)
    return found


def _titled(title: str, text: str) -> str:
    return f"--- {title}\n{text.rstrip()}"


def ends_of_logs(folder: Path) -> str:
    """The ends of all log files of a folder."""
    return "\n".join(_titled(file.name, _ending(file)) for file in sorted(folder.glob("*.log")))


def _ending(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()[-_COMPONENT_LOG_LINES:]
    return "\n".join(line[:_LINE_LENGTH] for line in lines)
