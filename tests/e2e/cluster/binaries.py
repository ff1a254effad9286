"""The cluster's programs, built from Go modules and kept in the cache.

``go/kubernetes`` makes one combined program of etcd, kubectl and Kubernetes' components (142 MB instead of seven
times 60), helm, kwok and the pause program of pod sandboxes; ``go/coredns`` makes CoreDNS, whose dependencies don't
agree with Kubernetes'. The first build takes 8 minutes on two cores and fills Go's own cache with 3 GB; what is kept
here are the programs alone. The folder's name holds Kubernetes' version and a digest of all that the build depends
on, so that a changed recipe never runs old programs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.cluster.commands import ClusterError, run

SOURCES: Final = Path(__file__).resolve().parent / "go"
KUBERNETES_VERSION: Final = "v1.35.4"
KWOK_VERSION: Final = "v0.7.0"
_OLDEST_GO: Final = (1, 25)

# kwok uses one constant that apimachinery 0.35 no longer exports: what to write in its place.
_KWOK_MENDED: Final = (
    "metav1.InitialEventsListBlueprintAnnotationKey",
    '"kubernetes.io/initial-events-list-blueprint"',
)

# Names under which the combined program is called: the name picks the component.
COMBINED: Final = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)


@dataclass(frozen=True)
class Program:
    """One program to build: its Go package, and the folder of ``go/`` whose go.mod locks its dependencies."""

    name: str
    module: str
    package: str


PROGRAMS: Final = (
    Program("kubernetes", "kubernetes", "."),
    Program("pause", "kubernetes", "./pause"),
    Program("kwok", "kubernetes", "sigs.k8s.io/kwok/cmd/kwok"),
    Program("helm", "kubernetes", "helm.sh/helm/v3/cmd/helm"),
    Program("coredns", "coredns", "."),
)


def cache_folder() -> Path:
    """Where the programs are kept.

    ``CHANDLERY_E2E_BINARIES`` names the folder itself; else it is ``kubernetes/VERSION-DIGEST`` in Chandlery's cache.
    """
    if own := os.environ.get("CHANDLERY_E2E_BINARIES"):
        return Path(own).resolve()
    return cache_root() / "kubernetes" / f"{KUBERNETES_VERSION}-{_digest()}"


def cache_root() -> Path:
    """Chandlery's cache: ``CHANDLERY_CACHE``, or ``chandlery`` in the user's cache."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("CHANDLERY_CACHE") or user / "chandlery").resolve()


def _digest() -> str:
    """Eight hexadecimal digits over all that the build depends on."""
    digest = hashlib.sha256(f"{PROGRAMS} {_linker_flags()} {_KWOK_MENDED}".encode())
    for file in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:8]


def build(progress: Callable[[str], None] = print) -> Path:
    """Build what isn't in the cache yet, and return the folder. Several processes may call it at once.

    Raises:
        ClusterError: Go is missing or too old, or a build failed.
    """
    folder = cache_folder()
    if _missing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if missing := _missing(folder):
                _build(missing, folder, progress)
    for name in COMBINED:
        link = folder / name
        if not link.is_symlink():
            _put_link(link)
    return folder


def _missing(folder: Path) -> list[Program]:
    return [program for program in PROGRAMS if not os.access(folder / program.name, os.X_OK)]


def _put_link(link: Path) -> None:
    """Make a link to the combined program, whoever else is making it."""
    draft = link.with_name(f".{link.name}.{os.getpid()}")
    draft.symlink_to("kubernetes")
    draft.replace(link)


def _build(programs: list[Program], folder: Path, progress: Callable[[str], None]) -> None:
    check_go("Kubernetes", _OLDEST_GO)
    progress(f"building {', '.join(program.name for program in programs)} (all together 8 minutes on two cores)")
    with tempfile.TemporaryDirectory(prefix="chandlery-go-") as name:
        workspace = Path(name)
        shutil.copytree(SOURCES, workspace, dirs_exist_ok=True)
        _put_kwok(workspace / "kubernetes" / "kwok")
        for program in programs:
            begin = time.monotonic()
            draft = folder / f".{program.name}.{os.getpid()}"
            try:
                compile_package(program.package, workspace / program.module, draft, _linker_flags())
                draft.replace(folder / program.name)  # so that the cache never holds half a program
            finally:
                draft.unlink(missing_ok=True)
            progress(f"built {program.name} in {time.monotonic() - begin:.0f} s")


def check_go(what: str, oldest: tuple[int, int]) -> None:
    """Raise ClusterError unless there is a Go that new to build ``what`` with."""
    try:
        version = run("go", "env", "GOVERSION", cwd=Path("/"))
    except ClusterError as error:
        raise ClusterError(f"{what} is built by Go {_spell(oldest)} or newer: {error}") from error
    found = re.match(r"go(\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < oldest:
        raise ClusterError(f"{what} is built by Go {_spell(oldest)} or newer; here is {version.strip()}")


def _spell(version: tuple[int, int]) -> str:
    return ".".join(str(number) for number in version)


def compile_package(package: str, module: Path, target: Path, linker_flags: str) -> None:
    """Build a program of a module's dependencies, as its go.mod and go.sum lock them."""
    environment = os.environ | {"CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -trimpath -mod=readonly"}
    run("go", "build", "-ldflags", linker_flags, "-o", target, package, cwd=module, env=environment)


def _linker_flags() -> str:
    """Stripped programs that tell their version: clients and kubelets compare it."""
    major, minor, _ = KUBERNETES_VERSION.removeprefix("v").split(".")
    values = {
        "k8s.io/component-base/version.gitVersion": KUBERNETES_VERSION,
        "k8s.io/component-base/version.gitMajor": major,
        "k8s.io/component-base/version.gitMinor": minor,
        "k8s.io/component-base/version.gitTreeState": "clean",
        "k8s.io/component-base/version.buildDate": "1970-01-01T00:00:00Z",
        "k8s.io/client-go/pkg/version.gitVersion": KUBERNETES_VERSION,
        "sigs.k8s.io/kwok/pkg/consts.Version": KWOK_VERSION,
        # What helm takes for the cluster's version when it renders without one.
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor": major,
        "helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor": minor,
    }
    return " ".join(["-s", "-w", *(f"-X {name}={value}" for name, value in values.items())])


def _put_kwok(target: Path) -> None:
    """Copy kwok's sources and mend them."""
    answer = run("go", "mod", "download", "-json", f"sigs.k8s.io/kwok@{KWOK_VERSION}", cwd=Path("/"))
    source = Path(json.loads(answer)["Dir"])
    for folder in ("cmd", "pkg", "kustomize"):
        shutil.copytree(source / folder, target / folder, copy_function=shutil.copyfile)
    shutil.copyfile(source / "go.mod", target / "go.mod")
    for directory in (target, *(path for path in target.rglob("*") if path.is_dir())):
        directory.chmod(0o755)  # the module cache is read-only, and copytree keeps that
    informer = target / "pkg" / "utils" / "informer" / "informer.go"
    text = informer.read_text(encoding="utf-8")
    mended = text.replace(*_KWOK_MENDED)
    if mended == text:
        raise ClusterError(f"kwok {KWOK_VERSION} no longer has what is mended in {informer.name}")
    informer.write_text(mended, encoding="utf-8")
