"""``kubectl chandlery`` as a person calls it, and a cluster with an operator to call it on."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from tests.e2e.kubectl import Cluster, Namespace
from tests.support.operator_stage import Stage, feed, pool, trader

_ROOT: Final = Path(__file__).parents[2]
#: A command takes 1 s on a quiet machine; the longest is followed for as long as a container needs to start again.
COMMAND_S = 60.0


class Plugin:
    """``kubectl chandlery`` as a person calls it, in one namespace."""

    def __init__(self, cluster: Cluster, folder: Path, namespace: str) -> None:
        self.namespace = namespace
        self._folder = folder
        self._cluster = cluster
        for name, module in (("kubectl-chandlery", "app"), ("kubectl_complete-chandlery", "completion")):
            program = f"from chandlery.cli.plugin.{module} import main; main()"
            self._script(name, f'exec {sys.executable} -c "{program}" "$@"')

    def _script(self, name: str, body: str) -> None:
        path = self._folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    def before_patch(self, command: str) -> None:
        """Have a shell command run just before kubectl next patches something: somebody else is quicker."""
        real = self._cluster.binaries / "kubectl" if self._cluster.binaries else "/usr/bin/kubectl"
        once = self._folder / "patched-once"
        self._script(
            "kubectl",
            f'if [ "$1" = patch ] && [ ! -e {once} ]; then touch {once}; KUBECTL={real}; {command} > /dev/null; fi\nexec {real} "$@"',
        )

    def environment(self) -> dict[str, str]:
        """Where kubectl finds the plugin."""
        known = self._cluster.environment()
        paths = [str(_ROOT / root) for root in ("core", "stream", "workers", "operator", "console", "cli")]
        return known | {
            "PATH": f"{self._folder}{os.pathsep}{known['PATH']}",
            "PYTHONPATH": os.pathsep.join([*paths, known.get("PYTHONPATH", "")]),
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Call it, and go on."""
        return subprocess.Popen(
            ["kubectl", "chandlery", *arguments, "--namespace", self.namespace],
            env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def call(self, *arguments: str, anywhere: bool = False) -> subprocess.CompletedProcess[str]:
        """Call it to its end."""
        place = () if anywhere else ("--namespace", self.namespace)
        return subprocess.run(
            ["kubectl", "chandlery", *arguments, *place],
            env=self.environment(), capture_output=True, text=True, timeout=COMMAND_S, check=False,
        )  # fmt: skip

    def told(self, *arguments: str, code: int = 0) -> str:
        """What it printed: standard output where it succeeds, else standard error."""
        done = self.call(*arguments)
        assert done.returncode == code, f"{arguments}: {done.returncode}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout if code == 0 else done.stderr

    def refused(self, *arguments: str, code: int = 2) -> str:
        """The one line that says why not."""
        (line,) = self.told(*arguments, code=code).splitlines()
        return line

    def json(self, *arguments: str) -> Any:
        """What it printed, decoded."""
        return json.loads(self.told(*arguments, "--json"))


class Operated:
    """A running operator on a real API server, with simulated workers that answer while the test waits for commands."""

    def __init__(self, namespace: Namespace, folder: Path) -> None:
        self.namespace = namespace
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._stage = Stage(namespace.cluster.kubeconfig, folder)

    def start(self) -> None:
        """With a feed and a pool."""
        self._do(self._stage.start())
        self._do(self._stage.operator("--namespace", self.namespace.name, "--own-namespace", self.namespace.name))
        self._do(self._stage.apply(feed(self.namespace.name), pool(self.namespace.name)))

    def stop(self) -> None:
        """End all of it."""
        self._do(self._stage.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def trader(self, name: str, **spec: Any) -> None:
        """Make a Trader, or change it."""
        self._do(self._stage.apply(trader(self.namespace.name, name, **spec)))

    def until(self, name: str, reason: str) -> None:
        """Wait until a Trader is Ready, or not, for this reason."""
        self._do(self._stage.until_reason(self.namespace.name, name, reason))

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()
