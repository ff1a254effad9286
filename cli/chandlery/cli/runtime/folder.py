"""Manifest folders over time: which files count now, with deletions told apart from accidents.

The rules, so that a slip of the hand does not stop every trader:

* A file that is gone counts on for :data:`GRACE_S` (editors and ``git`` delete and write anew), then it is
  deleted and what it declared with it.
* A folder that is missing keeps everything it had, with a notice.
* A folder emptied at once (more than one file, or after the folder was missing) keeps everything, with a
  notice, until a file returns; files deleted one by one are deleted, the last one too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

GRACE_S: Final = 0.3
#: As core.manifests reads folders.
_SUFFIXES: Final = (".yaml", ".yml", ".json")


@dataclass(frozen=True)
class Snapshot:
    """What lies on disk now: a digest of each file by its name, and which of the given paths are missing."""

    files: Mapping[str, bytes]
    missing: frozenset[str] = frozenset()


def scan(roots: Iterable[str]) -> Snapshot:
    """Look at every manifest file of the given folders (hidden files and sub-folders left out) and files."""
    files: dict[str, bytes] = {}
    missing: set[str] = set()
    for root in roots:
        try:
            names = [os.path.join(root, name) for name in os.listdir(root) if _is_manifest(name)]
        except NotADirectoryError:
            names = [root]
        except OSError:
            missing.add(root)
            continue
        for name in names:
            try:
                files[name] = hashlib.blake2b(Path(name).read_bytes(), digest_size=16).digest()
            except FileNotFoundError:
                continue  # gone between listing and reading: the next look tells
            except OSError as error:
                files[name] = repr(error).encode()  # there, but not readable: the reader of manifests says why
    return Snapshot(files, frozenset(missing))


def _is_manifest(name: str) -> bool:
    return not name.startswith(".") and name.endswith(_SUFFIXES)


@dataclass
class Folder:
    """The files that count, advanced by snapshots.

    Attributes:
        roots: the folders and files given by ``-f``.
        files: digest of each file that counts now, on disk or kept.
        kept: those that are not on disk but count still.
        notices: what a person should know, one sentence each.
    """

    roots: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    notices: list[str] = field(default_factory=list)
    _gone_since: dict[str, float] = field(default_factory=dict)
    _was_missing: set[str] = field(default_factory=set)

    def advance(self, snapshot: Snapshot, now_s: float) -> bool:
        """Take in what lies on disk.

        Args:
            snapshot: see :func:`scan`. now_s: a monotonic clock, s.

        Returns:
            Whether the files that count, or their contents, changed.
        """
        before = dict(self.files)
        self.notices = []
        for root in self.roots:
            self._advance_root(root, snapshot, now_s)
        self.kept = set(self.files) - set(snapshot.files)
        return before != self.files

    @property
    def unsettled(self) -> bool:
        """Whether a deletion waits for its grace to pass, so that another look is due soon."""
        return bool(self._gone_since)

    def _advance_root(self, root: str, snapshot: Snapshot, now_s: float) -> None:
        present = {name: digest for name, digest in snapshot.files.items() if _below(name, root)}
        known = [name for name in self.files if _below(name, root)]
        if root in snapshot.missing and not self._is_single_file(root):
            self._was_missing.add(root)
            self._forget_gone(known)
            if known:
                self.notices.append(f"{root} is missing: everything it declared keeps running until it is back")
            return
        gone = [name for name in known if name not in present]
        if gone and not present and (len(gone) > 1 or root in self._was_missing):
            self._forget_gone(known)
            self.notices.append(
                f"{root} was emptied at once: what its {len(gone)} file(s) declared keeps running until files "
                "return (delete files one by one to end their traders)"
            )
            return
        if present:
            self._was_missing.discard(root)
        self.files.update(present)
        self._forget_gone(present)
        for name in gone:
            if now_s - self._gone_since.setdefault(name, now_s) >= GRACE_S:
                del self.files[name], self._gone_since[name]

    def _is_single_file(self, root: str) -> bool:
        # A file named by -f that is deleted is a deleted file, not a missing folder.
        return root in self.files

    def _forget_gone(self, names: Iterable[str]) -> None:
        for name in names:
            self._gone_since.pop(name, None)


def _below(name: str, root: str) -> bool:
    return name == root or os.path.dirname(name) == root
