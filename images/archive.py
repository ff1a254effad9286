"""Images as files: OCI archives, written without a registry or a daemon.

An archive is a tar of an OCI layout: ``oci-layout``, ``index.json``, and blobs named by their sha256. Layers are plain
tars of files owned by root at time 0, so that the same content gives the same digest and a node that has a layer
takes it as known. ``ctr images import``, ``docker load``, podman and skopeo read them.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_MEDIA_TYPE: Final = "application/vnd.oci.image."
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Layer:
    """A layer in a file of its own."""

    file: Path
    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class ImageSettings:
    """How containers of an image run.

    Attributes:
        entrypoint: the program and its first arguments.
        environment: variables beside ``PATH``.
        user: ``UID:GID``, in numbers: Kubernetes can't tell from a name that it isn't root.
        folder: working directory.
    """

    entrypoint: tuple[str, ...]
    environment: Mapping[str, str] | None = None
    user: str = "10001:10001"
    folder: str = "/"


def write_layer(target: Path, content: Mapping[Path, str]) -> Layer:
    """Write files and folders (with all in them) as a layer: source → its path in the image ("" is the root)."""
    with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as tar:
        for source, path in content.items():
            _add_sorted(tar, source, path.strip("/"))
    return read_layer(target)


def read_layer(file: Path) -> Layer:
    """The layer that :func:`write_layer` wrote."""
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Layer(file, digest, file.stat().st_size)


def _add_sorted(tar: tarfile.TarFile, source: Path, path: str) -> None:
    """Add a path and all below it in the order of names: a folder's own order differs between machines."""
    if path:
        tar.add(source, path, recursive=False, filter=_anonymous)
    if source.is_dir() and not source.is_symlink():
        for child in sorted(source.iterdir()):
            _add_sorted(tar, child, f"{path}/{child.name}" if path else child.name)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Root's, of no time, and readable by all: images run as anybody, and a strict umask may have been at work."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode |= 0o555 if member.isdir() or member.mode & 0o100 else 0o444
    return member


def write_image(target: Path, name: str, layers: Sequence[Layer], settings: ImageSettings) -> None:
    """Write an archive whose one image is called ``name`` (``HOST/PATH:TAG``). Put in place by rename."""
    config = _json(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer.sha256}" for layer in layers]},
            "config": _run_settings(settings),
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA_TYPE}manifest.v1+json",
            "config": _descriptor("config.v1+json", _sha256(config), len(config)),
            "layers": [_descriptor("layer.v1.tar", layer.sha256, layer.size_bytes) for layer in layers],
        }
    )
    entry = _descriptor("manifest.v1+json", _sha256(manifest), len(manifest))
    entry["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    draft = target.with_name(f".{target.name}.draft")
    with tarfile.open(draft, "w") as tar:
        _add_bytes(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add_bytes(tar, "index.json", _json({"schemaVersion": 2, "manifests": [entry]}))
        for blob in (manifest, config):
            _add_bytes(tar, f"blobs/sha256/{_sha256(blob)}", blob)
        for layer in {layer.sha256: layer for layer in layers}.values():
            member = tarfile.TarInfo(f"blobs/sha256/{layer.sha256}")
            member.size = layer.size_bytes
            with layer.file.open("rb") as stream:
                tar.addfile(member, stream)
    draft.replace(target)


def _run_settings(settings: ImageSettings) -> dict[str, Any]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"} | dict(settings.environment or {})
    return {
        "Entrypoint": list(settings.entrypoint),
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "User": settings.user,
        "WorkingDir": settings.folder,
    }


def _descriptor(kind: str, sha256: str, size_bytes: int) -> dict[str, Any]:
    return {"mediaType": _MEDIA_TYPE + kind, "digest": f"sha256:{sha256}", "size": size_bytes}


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _add_bytes(tar: tarfile.TarFile, path: str, content: bytes) -> None:
    member = tarfile.TarInfo(path)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
