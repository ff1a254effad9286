"""Manifests: files, folders and stdin to resources, with every problem found named by file, line and field.

A problem spoils its own document only. Those whose kind and name could be read are attached to that resource,
so that a running system leaves all others, and what ran before, untouched (:meth:`ManifestSet.carry_over`).
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from chandlery.core import documents
from chandlery.core.checks import check_against_catalogue
from chandlery.core.claims import NO_DIGEST, NOTHING_STANDING, Claim, Standing, settle
from chandlery.core.documents import Document, Value, read_documents
from chandlery.core.explanations import explain
from chandlery.core.manifestset import DECLARED_KINDS, Identity, Key, ManifestSet, Origin, Problem, Reason
from chandlery.core.recordings import history_problem, kind_problem
from chandlery.core.resources import API_VERSION, DEFAULT_NAMESPACE, KINDS, MarketFeed, Resource
from chandlery.core.wording import did_you_mean, path_text, shown

__all__ = [
    "Identity",
    "Key",
    "ManifestSet",
    "Origin",
    "Problem",
    "Reason",
    "Standing",
    "check_against_catalogue",
    "parse_manifests",
    "read_manifests",
]

STDIN: Final = "<stdin>"
#: A file may hold many documents, but it is read whole.
MAX_FILE_BYTES: Final = 32 * 1024 * 1024
_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})


def read_manifests(paths: Sequence[str | Path] | str | Path, standing: Standing = NOTHING_STANDING) -> ManifestSet:
    """Read manifests; never raises for what is in them.

    Args:
        paths: files, folders (their ``*.yaml``, ``*.yml`` and ``*.json``, sorted, hidden ones and sub-folders
            left out), or ``-`` for stdin.
        standing: what counted until now, and keeps its names.

    Returns:
        What was sound, and every problem. Call :meth:`ManifestSet.raise_if_problems` to insist.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    manifests = ManifestSet()
    claims: list[Claim] = []
    seen: set[str] = set()
    for path in given:
        for label, file in _files(str(path), manifests):
            real = os.path.realpath(file) if file else STDIN
            if real not in seen:
                seen.add(real)
                _read_file(label, file, manifests, claims)
    settle(manifests, claims, standing)
    manifests.problems.sort()
    return manifests


def parse_manifests(text: str, *, file: str = STDIN, folder: Path | None = None) -> ManifestSet:
    """Read manifests from text; ``file`` is what problems call it, ``folder`` what paths are relative to."""
    manifests = ManifestSet()
    claims: list[Claim] = []
    _Reader(manifests, claims, file, folder or Path.cwd()).read(text)
    settle(manifests, claims, NOTHING_STANDING)
    manifests.problems.sort()
    return manifests


def _files(path: str, manifests: ManifestSet) -> Iterator[tuple[str, str]]:
    """(name to show, path to open) of the files that ``path`` stands for; stdin has an empty path."""
    if path == "-":
        yield STDIN, ""
        return
    if not os.path.isdir(path):
        yield path, path
        return
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        manifests.problems.append(_file_problem(path, f"can't read the folder: {error.strerror}"))
        return
    chosen = [
        os.path.join(path, name)
        for name in names
        if not name.startswith(".") and os.path.splitext(name)[1] in _SUFFIXES
    ]
    files = [name for name in chosen if os.path.isfile(name) or os.path.islink(name)]
    if not files:
        manifests.notices.append(f"{path}: no manifest in this folder (*.yaml, *.yml, *.json)")
    yield from ((name, name) for name in files)


def _file_problem(file: str, message: str) -> Problem:
    return Problem(file, 0, 0, "", "", "", "", message)


def _read_file(label: str, file: str, manifests: ManifestSet, claims: list[Claim]) -> None:
    try:
        data = _read_bytes(file)
    except OSError as error:
        what = "no such file or folder" if isinstance(error, FileNotFoundError) else f"can't read it: {error.strerror}"
        manifests.problems.append(_file_problem(label, what))
        return
    if len(data) > MAX_FILE_BYTES:
        manifests.problems.append(_file_problem(label, f"more than {MAX_FILE_BYTES} bytes (32Mi), too long to read"))
        return
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        manifests.problems.append(_file_problem(label, f"not UTF-8 text: byte {data[error.start]:#04x} on line {line}"))
        return
    folder = Path(file).resolve().parent if file else Path.cwd()
    _Reader(manifests, claims, label, folder).read(text)


def _read_bytes(file: str) -> bytes:
    if not file:
        return sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    with open(file, "rb") as stream:
        return stream.read(MAX_FILE_BYTES + 1)


class _Reader:
    """Reads the documents of one file: their problems into a set, the names that they give into claims."""

    def __init__(self, manifests: ManifestSet, claims: list[Claim], file: str, folder: Path) -> None:
        self._manifests = manifests
        self._claims = claims
        self._file = file
        self._folder = folder

    def read(self, text: str) -> None:
        found = read_documents(text, is_json=self._file.endswith(".json"))
        if not found:
            self._manifests.notices.append(f"{self._file}: no document in it")
            self._manifests.empty[self._file] = bool(text.strip())
        for document in found:
            if document.mistakes:
                self._broken(document)
                self._claim(document, (), document.value, None)
            else:
                for prefix, value in _members(document):
                    self._resource(document, prefix, value)

    def _broken(self, document: Document) -> None:
        identity = _identity(document.value)
        for mistake in document.mistakes:
            message = f"column {mistake.column}: {mistake.message}" if mistake.column else mistake.message
            self._add(document, mistake.line, identity, (), message)

    def _add(self, document: Document, line: int, identity: Identity, path: documents.Path, message: str) -> None:
        problem = Problem(self._file, document.number, line, *identity, path_text(path), message)
        self._manifests.problems.append(problem)

    def _resource(self, document: Document, prefix: documents.Path, value: Value) -> None:
        if not isinstance(value, dict):
            message = f"a manifest is an object with apiVersion, kind, metadata and spec, got {shown(value)}"
            self._add(document, document.line_of(prefix), ("", "", ""), prefix, message)
            return
        kind, version = value.get("kind"), value.get("apiVersion")
        identity = _identity(value)
        ours = kind in KINDS or (isinstance(version, str) and version.startswith("chandlery.dev/"))
        if ours:
            self._claim(document, prefix, value, self._ours(document, prefix, value, identity))
        elif kind in ("ConfigMap", "Namespace") and version == "v1" and identity[2]:
            self._claim(document, prefix, value, self._core(document, prefix, value, identity))
        elif not isinstance(kind, str):
            message = f"is missing: one of {', '.join(KINDS)}" if kind is None else f"needs text, got {shown(kind)}"
            self._add(document, document.line_of(prefix), identity, ("kind",), message)
        else:
            name = "/".join(part for part in identity if part)
            self._manifests.notices.append(
                f"{self._file} (document {document.number}): {name} is none of Chandlery's kinds, left out"
            )

    def _ours(
        self, document: Document, prefix: documents.Path, value: dict[str, Value], identity: Identity
    ) -> Resource | None:
        """A resource of ours; None: something is wrong with it."""
        before = len(self._manifests.problems)

        def add(path: documents.Path, message: str) -> None:
            self._add(document, document.line_of((*prefix, *path)), identity, path, message)

        kind = value.get("kind")
        if value.get("apiVersion") != API_VERSION:
            version = value.get("apiVersion")
            add(("apiVersion",), f"is missing: {API_VERSION}" if version is None else f"must be {API_VERSION}, got {shown(version)}")  # fmt: skip
        if not isinstance(kind, str) or kind not in KINDS:
            near = did_you_mean(str(kind), KINDS)
            add(("kind",), f"{shown(kind)} is none of {', '.join(KINDS)}{near}" if kind else f"is missing: one of {', '.join(KINDS)}")  # fmt: skip
            return None
        content: dict[str, Value] = {**value, "apiVersion": API_VERSION}
        try:
            resource = KINDS[kind].model_validate(content)
        except ValidationError as error:
            for one in error.errors(include_url=False):
                add(*explain(KINDS[kind], one, content))
            return None
        if isinstance(resource, MarketFeed):
            for path, message in _wrong_files(resource, self._folder):
                add(path, message)
        return resource if len(self._manifests.problems) == before else None

    def _core(
        self, document: Document, prefix: documents.Path, value: dict[str, Value], identity: Identity
    ) -> dict[str, str]:
        """A ConfigMap (its data alone) or a Namespace (its labels alone)."""
        where: documents.Path = ("data",) if identity[0] == "ConfigMap" else ("metadata", "labels")
        data: Value = value
        for part in where:
            data = data.get(str(part)) if isinstance(data, dict) else None
        texts: dict[str, str] = {}
        for name, text in data.items() if isinstance(data, dict) else ():
            if isinstance(text, str):
                texts[name] = text
            else:
                path = (*where, name)
                self._add(
                    document, document.line_of((*prefix, *path)), identity, path, f"needs text, got {shown(text)}"
                )
        return texts

    def _claim(
        self, document: Document, prefix: documents.Path, value: Value, read: Resource | dict[str, str] | None
    ) -> None:
        """Note the name that a document gives, also where something else is wrong with it (``read`` is None)."""
        identity = _identity(value)
        if identity[0] not in DECLARED_KINDS or not identity[2] or (read is None and not _is_placed(value)):
            return
        line = document.line_of(prefix) if prefix else min(document.lines.values(), default=document.line)
        lines = {path[len(prefix) :]: at for path, at in document.lines.items() if path[: len(prefix)] == prefix}
        digest = NO_DIGEST if read is None else _digest(read if isinstance(read, dict) else read.manifest())
        origin = Origin(self._file, self._folder, document.number, line, lines, digest)
        self._claims.append(Claim(identity, read, origin))


def _members(document: Document) -> Iterator[tuple[documents.Path, Value]]:
    """The document itself, or the items of a ``kind: List`` as ``kubectl get -o yaml`` prints it."""
    value = document.value
    if isinstance(value, dict) and value.get("kind") == "List" and isinstance(items := value.get("items"), list):
        for index, item in enumerate(items):
            yield ("items", index), item
    else:
        yield (), value


def _identity(value: Value) -> Identity:
    """(kind, namespace, name) as far as they can be read, even of half a document; else empty strings."""
    if not isinstance(value, dict):
        return "", "", ""
    metadata = value.get("metadata")
    kind, name, namespace = value.get("kind"), None, None
    if isinstance(metadata, dict):
        name, namespace = metadata.get("name"), metadata.get("namespace")
    kind = kind if isinstance(kind, str) else ""
    if not isinstance(name, str) or not kind:
        return kind, "", ""
    if kind == "Namespace":
        return kind, "", name
    return kind, namespace if isinstance(namespace, str) else DEFAULT_NAMESPACE, name


def _is_placed(value: Value) -> bool:
    """Whether it is known which namespace is meant: that of half a document may have been cut off."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    return isinstance(metadata, dict) and isinstance(metadata.get("namespace", ""), str)


def _digest(content: Mapping[str, object]) -> str:
    body = json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(body.encode()).hexdigest()[:32]


def _wrong_files(feed: MarketFeed, folder: Path) -> Iterator[tuple[documents.Path, str]]:
    """Files that a feed names and that aren't there, or can't be what they are named for."""
    replay = feed.spec.source.replay
    named: list[tuple[documents.Path, str, str | None]] = [
        (("spec", "source", "replay", "files", index), file.path, kind_problem(file.path))
        for index, file in enumerate(replay.files if replay is not None else ())
    ]
    named += [
        (("spec", "history", "files", index, "path"), file.path, history_problem(file.path))
        for index, file in enumerate(feed.spec.history.files)
    ]
    for path, name, problem in named:
        if problem is not None:
            yield path, f"{shown(name)}: {problem}"
        if not (folder / name).is_file():
            yield path, f"{shown(name)} is no file in {folder}"
