"""Everything the plugin asks of a cluster goes through ``kubectl``, which whoever calls a plugin has.

So contexts, client certificates, login plugins, proxies and impersonation are exactly kubectl's, no credential is ever
in this process, and what a person may do is what their roles say. A GET takes kubectl 0.1 s.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from chandlery.core.errors import ChandleryError, InputError, MachineError, UnavailableError

Object = dict[str, Any]

#: One request. The slowest answer of an API server at full load took 1 s here; ten times that.
REQUEST_S: Final = 10.0
#: kubectl asks up to five times for what kinds there are before it gives up.
_COMMAND_S: Final = 6 * REQUEST_S
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_KLOG: Final = re.compile(r"^[EWI]\d{4} \d\d:")
_FROM_SERVER: Final = re.compile(r"^Error from server(?: \((\w+)\))?: (.*)$", re.DOTALL)
_UNREACHABLE: Final = (
    "was refused - did you specify", "Unable to connect to the server", "connection refused", "no such host",
    "i/o timeout", "TLS handshake timeout", "net/http: request canceled", "context deadline exceeded",
    "unexpected EOF", "connection reset by peer", "http2: client connection lost",
)  # fmt: skip


class NotFoundError(InputError):
    """There is no such object, or no such kind."""


class ForbiddenError(InputError):
    """Whoever runs kubectl may not do this here."""


class ChangedError(UnavailableError):
    """The object is another version by now: look again."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl with the flags that a person gave.

    Attributes:
        given_namespace: of ``--namespace``; empty: the context's. everywhere: ``--all-namespaces``.
        flags: those that say which cluster and as whom, as kubectl takes them.
    """

    given_namespace: str = ""
    everywhere: bool = False
    flags: tuple[str, ...] = field(default=())
    program: str = "kubectl"

    @cached_property
    def _context(self) -> Object:
        """The context in use, without secrets: ``{}`` where there is no kubeconfig (in a pod, or none at all)."""
        try:
            return json.loads(self.run("config", "view", "--minify", "-o", "json")) or {}
        except InputError:
            return {}

    @property
    def namespace(self) -> str:
        """The namespace that is meant: given, else the context's, else ``default``."""
        if self.given_namespace:
            return self.given_namespace
        contexts = self._context.get("contexts") or ()
        named = next((one.get("context", {}).get("namespace", "") for one in contexts), "")
        if not named and not contexts:
            with contextlib.suppress(OSError):
                named = _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
        return named or "default"

    @property
    def server(self) -> str:
        """Address of the API server, for messages."""
        clusters = self._context.get("clusters") or ()
        return next((str(one.get("cluster", {}).get("server", "")) for one in clusters), "") or "the API server"

    def run(self, *arguments: str, timeout_s: float = _COMMAND_S) -> str:
        """What kubectl printed.

        Raises:
            NotFoundError, ForbiddenError, ChangedError: see there. InputError: the API server or kubectl refuses.
            UnavailableError: no answer. MachineError: there is no kubectl.
        """
        command = [self.program, *arguments[:1], *self.flags, *arguments[1:]]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                stdin=subprocess.DEVNULL,
                timeout=timeout_s,
                env=_environment(),
                check=False,
            )
        except FileNotFoundError as error:
            raise _no_kubectl() from error
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(f"{self.server} doesn't answer within {timeout_s:g} s") from error
        if done.returncode != 0:
            raise self.failure(done.stderr.decode(errors="replace"), done.returncode)
        return done.stdout.decode(errors="replace")

    def get(self, path: str) -> Object:
        """A GET of a path of the API, decoded; raises as :meth:`run`."""
        return self._decoded(self.run("get", "--raw", path, f"--request-timeout={REQUEST_S:g}s"), f"GET {path}")

    def patch(self, plural: str, namespace: str, name: str, body: Object, *, dry_run: bool = False) -> Object:
        """A merge patch of an object; with ``metadata.resourceVersion`` only on that version. Raises as :meth:`run`."""
        text = self.run(
            "patch", plural, name, "--namespace", namespace, "--type=merge", f"--patch={json.dumps(body)}",
            "--field-manager=kubectl-chandlery", "-o", "json", *(("--dry-run=server",) if dry_run else ()),
            f"--request-timeout={REQUEST_S:g}s",
        )  # fmt: skip
        return self._decoded(text, f"PATCH {plural}/{name}")

    def _decoded(self, text: str, asked: str) -> Object:
        try:
            found: Object = json.loads(text)
        except ValueError as error:
            raise UnavailableError(f"{self.server}: no JSON in the answer to {asked}") from error
        return found

    def execute(self, namespace: str, pod: str, container: str, command: Sequence[str], timeout_s: float) -> str:
        """What a program printed in a pod's container. Raises as :meth:`run`; the program's own failure too."""
        return self.run(*_exec_arguments(namespace, pod, container, command), timeout_s=timeout_s)

    @contextlib.contextmanager
    def executing(
        self, namespace: str, pod: str, container: str, command: Sequence[str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A program in a pod's container while this lasts; its standard input ends with it."""
        arguments = _exec_arguments(namespace, pod, container, command, interactive=True)
        with self.started(*arguments, stdin=subprocess.PIPE) as process:
            yield process

    @contextlib.contextmanager
    def started(self, *arguments: str, stdin: int = subprocess.DEVNULL) -> Iterator[subprocess.Popen[bytes]]:
        """kubectl while this lasts, its output to be read line by line."""
        command = [self.program, *arguments[:1], *self.flags, *arguments[1:]]
        try:
            process = subprocess.Popen(
                command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_environment()
            )
        except FileNotFoundError as error:
            raise _no_kubectl() from error
        try:
            yield process
        finally:
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
            process.terminate()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    def failure(self, stderr: str, code: int) -> ChandleryError:
        """What kubectl's complaint means for who called."""
        said = _complaint(stderr) or f"kubectl ended with {code}"
        if any(words in said for words in _UNREACHABLE):
            return UnavailableError(
                f"{self.server} doesn't answer ({_why_unreachable(said)}): is the cluster up, and is it the one you mean? "
                "`kubectl config get-contexts` lists those there are, --context names another"
            )
        from_server = _FROM_SERVER.match(said)
        if from_server is None:
            if "Unauthorized" in said or "must be logged in" in said:
                return ForbiddenError(f"{self.server} doesn't know you: log in again ({said})")
            return _of_exec(said)
        word, told = from_server[1] or "", from_server[2]
        if word == "NotFound":
            return NotFoundError(told)
        if word == "Forbidden":
            return ForbiddenError(f"you may not do this: {told}")
        if word == "Conflict":
            return ChangedError(told)
        if word in ("InternalError", "ServiceUnavailable", "TooManyRequests", "Timeout", "ServerTimeout"):
            return UnavailableError(f"{self.server}: {told}")
        return InputError(told)


def _why_unreachable(said: str) -> str:
    if "was refused - did you specify" in said:
        return "connection refused"
    return said.removeprefix("error: ").removeprefix("Unable to connect to the server: ")


def _of_exec(said: str) -> ChandleryError:
    if "unable to upgrade connection" in said or "error dialing backend" in said or "container not found" in said:
        return UnavailableError(said.removeprefix("error: "))
    return InputError(said.removeprefix("error: "))


def _complaint(stderr: str) -> str:
    """kubectl's last word, without its log lines; what a program in a pod said comes before ``command terminated``."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip() and not _KLOG.match(line)]
    if len(lines) > 1 and lines[-1].startswith("command terminated with exit code"):
        return lines[-2]
    return lines[-1] if lines else ""


def _exec_arguments(
    namespace: str, pod: str, container: str, command: Sequence[str], *, interactive: bool = False
) -> tuple[str, ...]:
    stdin = ("--stdin",) if interactive else ()
    return ("exec", *stdin, "--namespace", namespace, pod, "--container", container, "--", *command)


def _environment() -> dict[str, str]:
    # Its complaints are read: they must be the English ones.
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def _no_kubectl() -> MachineError:
    return MachineError(
        "there is no kubectl on the PATH: https://kubernetes.io/docs/tasks/tools/ tells how to install it"
    )


def collection(plural: str, namespace: str = "") -> str:
    """Path of a collection of Chandlery's resources; without namespace: of all namespaces."""
    place = f"namespaces/{quote(namespace)}/" if namespace else ""
    return f"/apis/chandlery.dev/v1alpha1/{place}{plural}"
