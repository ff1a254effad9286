"""A git repository whose commits are handed to Flux: what source-controller does, done by the test.

kustomize-controller takes a commit as an archive, from the address that stands in a GitRepository's status.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.e2e.cluster.commands import run
from tests.e2e.kubectl import Namespace

_BRANCH = "main"


class Repository:
    """A work tree, its commits, and the GitRepository that tells of the newest.

    Attributes:
        folder: the work tree.
    """

    def __init__(self, folder: Path, archives: Path, address: str, namespace: Namespace, name: str) -> None:
        self.folder = folder
        self._archives = archives
        self._address = address
        self._namespace = namespace
        self._name = name
        folder.mkdir()
        self._git("init", "--quiet", f"--initial-branch={_BRANCH}")

    def push(self, message: str) -> str:
        """Commit the whole work tree and tell Flux; returns the revision, as Flux spells it."""
        self._git("add", "--all")
        self._git("commit", "--quiet", "--allow-empty", f"--message={message}")
        commit = self._git("rev-parse", "HEAD").strip()
        archive = self._archives / f"{commit}.tar.gz"
        self._git("archive", "--format=tar.gz", f"--output={archive}", "HEAD")
        revision = f"{_BRANCH}@sha1:{commit}"
        status = {
            "observedGeneration": 1,
            "artifact": {
                "path": archive.name,
                "url": f"{self._address}/{archive.name}",
                "revision": revision,
                "digest": f"sha256:{hashlib.sha256(archive.read_bytes()).hexdigest()}",
                "size": archive.stat().st_size,
                "lastUpdateTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        }
        self._namespace.kubectl(
            "patch", "gitrepository", self._name, "--subresource=status", "--type=merge",
            "--patch", json.dumps({"status": status}),
        )  # fmt: skip
        return revision

    def _git(self, *arguments: str) -> str:
        person = {f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        # No settings of this machine's: a hook or a signing key would be in the way.
        plain = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
        return run("git", *arguments, cwd=self.folder, env=os.environ | person | plain)


@contextmanager
def served_repository(folder: Path, namespace: Namespace, name: str) -> Iterator[Repository]:
    """An empty repository, its archives served on loopback to the end of the block.

    Args:
        folder: for work tree and archives. name: of the GitRepository in the namespace, which is there.
    """
    archives = folder / "archives"
    archives.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Silent, directory=str(archives))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield Repository(folder / "repository", archives, f"http://127.0.0.1:{server.server_port}", namespace, name)
        finally:
            server.shutdown()
            thread.join()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news."""
