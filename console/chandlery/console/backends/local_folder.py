"""Traders as files of manifest folders: looked up, made, changed and taken away.

Nothing outside the folders is ever written: files are reached through their folder's descriptor, links are not
followed. A file changes by a rename, so that readers see the old or the new one; names that begin with a dot are left
out by whoever reads the folder.
"""

from __future__ import annotations

import copy
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chandlery.console.backend import ConflictError, NotFoundError, RefusedError, TraderManifest
from chandlery.console.backends.document_edit import (
    CannotEditError,
    Found,
    dumped,
    find_trader,
    removed,
    replaced,
    says,
    says_nothing,
)
from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.manifests import MAX_FILE_BYTES, STDIN, parse_manifests
from chandlery.core.resources import DEFAULT_NAMESPACE

_SUFFIXES: Final = (".yaml", ".yml", ".json")
#: Of a manifest, in the order in which everybody writes them.
_FIELDS: Final = ("apiVersion", "kind", "metadata", "spec")
_BOM: Final = "\ufeff"


@dataclass(frozen=True)
class _Place:
    """Where a Trader stands.

    Attributes:
        folder: the file's. single: whether the file itself was given by ``-f``. is_link: whether it is a link.
        data: the file's bytes; text: without a byte order mark.
    """

    folder: str
    name: str
    single: bool
    is_link: bool
    data: bytes
    text: str
    found: Found

    @property
    def path(self) -> str:
        return os.path.join(self.folder, self.name)

    @property
    def is_json(self) -> bool:
        return self.name.endswith(".json")

    @property
    def version(self) -> str:
        return version_of(self.text[self.found.begin : self.found.end])


def version_of(text: str) -> str:
    """Digest of a document's text, 16 hex digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


class ManifestFolders:
    """The manifests that an instance of `chandlery up` watches.

    Args:
        roots: folders, files, ``-``, as given by ``-f``. New Traders go into the first folder.
    """

    def __init__(self, roots: Sequence[str]) -> None:
        self._roots = list(roots)
        self._home = next((root for root in roots if root != "-" and os.path.isdir(root)), "")

    @property
    def writable(self) -> bool:
        """Whether there is a folder that Traders can be written into."""
        return bool(self._home)

    @staticmethod
    def identity(manifest: dict[str, Any]) -> tuple[str, str]:
        """(namespace, name) of a Trader.

        Raises:
            InputError: it has no name.
        """
        metadata = manifest.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        if not isinstance(metadata, dict) or not isinstance(name, str) or not name:
            raise InputError("metadata.name: is missing")
        namespace = metadata.get("namespace")
        return (namespace if isinstance(namespace, str) and namespace else DEFAULT_NAMESPACE), name

    def manifest(self, namespace: str, name: str) -> TraderManifest:
        """A Trader as it is written.

        Raises:
            NotFoundError: it stands in no file.
        """
        return _told(self._place(namespace, name))

    def create(self, manifest: dict[str, Any]) -> TraderManifest:
        """A new file for a Trader. Raises: see ``Backend.create``."""
        namespace, name = self.identity(manifest)
        if not self._home:
            raise RefusedError("no folder of manifests was given to `chandlery up` (-f DIR): Traders can't be added")
        file = f"{namespace}.{name}.trader.yaml"
        text = dumped(_in_order(manifest))
        self._check(text, file, namespace, name)
        if not says(text, manifest, is_json=False):
            raise InputError(
                "this can't be written so that it reads back alike: a number of more than 20 digits reads back as text; "
                "write it as text"
            )
        try:
            place = self._place(namespace, name)
        except NotFoundError:
            pass
        else:
            raise ConflictError(f"there is a Trader {namespace}/{name} already, in {place.path}")
        with _opened(self._home) as folder:
            _write(folder, self._home, file, text.encode(), mode=None, instead_of=None)
        return self.manifest(namespace, name)

    def replace(self, manifest: dict[str, Any], resource_version: str) -> TraderManifest:
        """Another content for the document that a Trader stands in. Raises: see ``Backend.replace``."""
        place = self._changeable(*self.identity(manifest))
        if resource_version and resource_version != place.version:
            raise ConflictError(
                f"{place.path} has changed since resource version {resource_version}: look again, then try again"
            )
        wanted = _in_order(manifest)
        metadata, before = wanted["metadata"], place.found.value.get("metadata")
        if metadata.get("namespace") == DEFAULT_NAMESPACE and isinstance(before, dict) and "namespace" not in before:
            # Whoever wrote it left out what goes without saying.
            wanted["metadata"] = {key: value for key, value in metadata.items() if key != "namespace"}
        return self._change(place, wanted)

    def suspend(self, namespace: str, name: str, suspend: bool) -> TraderManifest:
        """Set ``spec.suspend`` in the document that a Trader stands in. Raises: see ``Backend.suspend``."""
        place = self._changeable(namespace, name)
        wanted: dict[str, Any] = copy.deepcopy(place.found.value)
        spec = wanted.get("spec")
        if not isinstance(spec, dict):
            raise InputError(f"{place.path}: spec: is missing")
        if spec.get("suspend", False) is suspend:
            return _told(place)
        spec["suspend"] = suspend
        return self._change(place, wanted)

    def delete(self, namespace: str, name: str) -> None:
        """Take a Trader's document out of its file, or the file away where nothing is left in it.

        Raises: see ``Backend.delete``.
        """
        place = self._changeable(namespace, name)
        left = removed(place.text, place.found, is_json=place.is_json)
        with _opened(place.folder) as folder:
            if says_nothing(left):
                _unlink(folder, place)
            else:
                _write(
                    folder, place.folder, place.name, _encoded(left, place), mode=_mode(folder, place), instead_of=place
                )
        try:
            other = self._place(namespace, name)
        except NotFoundError:
            return
        raise ConflictError(
            f"Trader {namespace}/{name} was taken out of {place.path}, but stands in {other.path} too: delete it once more"
        )

    # Inside -------------------------------------------------------------------------------------------------

    def _change(self, place: _Place, wanted: dict[str, Any]) -> TraderManifest:
        namespace, name = self.identity(wanted)
        text = replaced(place.text, place.found, wanted, is_json=place.is_json)
        found = find_trader(text, namespace, name, is_json=place.is_json)
        if found is None:
            raise CannotEditError(f"{place.path}: this document can't be changed by itself: edit the file by hand")
        self._check(text[found.begin : found.end], place.name, namespace, name, place.folder)
        with _opened(place.folder) as folder:
            _write(folder, place.folder, place.name, _encoded(text, place), mode=_mode(folder, place), instead_of=place)
        return self.manifest(namespace, name)

    def _check(self, text: str, file: str, namespace: str, name: str, folder: str = "") -> None:
        """Refuse what a folder's reader would refuse.

        Raises:
            InputError: names each field that is wrong.
        """
        read = parse_manifests(text, file=file, folder=Path(folder or self._home))
        if read.problems:
            raise InputError(
                "; ".join(f"{one.field}: {one.message}" if one.field else one.message for one in read.problems)
            )
        if list(read.traders) != [(namespace, name)]:
            raise InputError(f"this is not one Trader named {namespace}/{name}")

    def _changeable(self, namespace: str, name: str) -> _Place:
        place = self._place(namespace, name)
        who = f"Trader {namespace}/{name} stands in {place.path}"
        if place.single:
            raise RefusedError(
                f"{who}, a file that was given by itself: only those in a folder (-f DIR) are changed here"
            )
        if place.is_link:
            raise RefusedError(f"{who}, which is a link: change what it leads to")
        if place.found.in_list:
            raise RefusedError(f"{who} as an item of a List: change it there")
        return place

    def _place(self, namespace: str, name: str) -> _Place:
        for root, file, single in self._files():
            place = _look(root, file, namespace, name, single=single)
            if place is not None:
                return place
        raise NotFoundError(f"no Trader {namespace}/{name} stands in the manifests")

    def _files(self) -> Iterator[tuple[str, str, bool]]:
        """(folder, name, whether given by itself) of each file, in the order in which manifests are read."""
        for root in self._roots:
            if root in ("-", STDIN):
                continue
            if not os.path.isdir(root):
                folder, file = os.path.split(root)
                yield folder or ".", file, True
                continue
            try:
                names = sorted(os.listdir(root))
            except OSError as error:
                raise UnavailableError(f"{root}: can't be read: {error.strerror}") from error
            for file in names:
                if not file.startswith(".") and file.endswith(_SUFFIXES):
                    yield root, file, False


def _look(folder: str, file: str, namespace: str, name: str, *, single: bool) -> _Place | None:
    """A Trader in one file; None where it isn't there, or the file can't be read."""
    path = os.path.join(folder, file)
    try:
        # Not held up by a pipe that somebody put there.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            data = stream.read(MAX_FILE_BYTES + 1)
        text = data.decode("utf-8").removeprefix(_BOM)
        is_link = os.path.islink(path)
    except (OSError, UnicodeDecodeError):
        return None  # its reader says why, in the instance's notices
    if len(data) > MAX_FILE_BYTES:
        return None
    found = find_trader(text, namespace, name, is_json=file.endswith(".json"))
    return None if found is None else _Place(folder, file, single, is_link, data, text, found)


def _told(place: _Place) -> TraderManifest:
    manifest = {name: value for name in _FIELDS if (value := place.found.value.get(name)) is not None}
    return TraderManifest(manifest, kept_by=place.path, resource_version=place.version)


def _in_order(manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest's fields in the order in which everybody writes them."""
    first = [name for name in _FIELDS if name in manifest]
    return {name: manifest[name] for name in [*first, *(name for name in manifest if name not in first)]}


def _encoded(text: str, place: _Place) -> bytes:
    mark = _BOM if place.data.startswith(_BOM.encode()) else ""
    return (mark + text).encode()


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    """Descriptor of a folder, for as long as the block lasts.

    Raises:
        UnavailableError: it isn't there now.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UnavailableError(f"{folder}: the folder of manifests can't be opened: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _mode(folder: int, place: _Place) -> int:
    with _told_errors(place.path):
        return stat.S_IMODE(os.stat(place.name, dir_fd=folder, follow_symlinks=False).st_mode)


def _unchanged(folder: int, place: _Place) -> None:
    """Refuse where somebody else wrote the file since it was read.

    Raises:
        ConflictError: it is another file now, or gone.
    """
    try:
        descriptor = os.open(place.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with open(descriptor, "rb") as stream:
            same = stream.read(len(place.data) + 1) == place.data
    except OSError:
        same = False
    if not same:
        raise ConflictError(f"{place.path} was changed by somebody else meanwhile: look again, then try again")


def _write(folder: int, label: str, file: str, data: bytes, *, mode: int | None, instead_of: _Place | None) -> None:
    """Write a file of a folder so that readers see all of it or nothing, also after a crash.

    Args:
        folder: its descriptor; label: its path, for messages.
        mode: of the file; None: as any new file of this user.
        instead_of: what it takes the place of; None: there must be no such file.

    Raises:
        ConflictError: there is one, or another than was read. RefusedError: it may not be written.
        UnavailableError: it can't be written now.
    """
    temporary = f".{file}.{os.getpid()}.{time.monotonic_ns()}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with _told_errors(os.path.join(label, file)):
        descriptor = os.open(temporary, flags, 0o666 if mode is None else 0o600, dir_fd=folder)
        try:
            with open(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                if mode is not None:
                    os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            if instead_of is None:
                # A link, unlike a rename, never takes the place of another file.
                os.link(temporary, file, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            else:
                _unchanged(folder, instead_of)
                os.rename(temporary, file, src_dir_fd=folder, dst_dir_fd=folder)
                temporary = ""
        finally:
            if temporary:
                os.unlink(temporary, dir_fd=folder)
        os.fsync(folder)


def _unlink(folder: int, place: _Place) -> None:
    with _told_errors(place.path):
        _unchanged(folder, place)
        os.unlink(place.name, dir_fd=folder)
        os.fsync(folder)


@contextmanager
def _told_errors(path: str) -> Iterator[None]:
    """What the file system refuses, in the words of the API."""
    try:
        yield
    except FileExistsError as error:
        raise ConflictError(f"{path} is there already: rename it, or give the Trader another name") from error
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RefusedError(f"{path} can't be written: {error.strerror}") from error
        raise UnavailableError(f"{path} can't be written now: {error.strerror}") from error
