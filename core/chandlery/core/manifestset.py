"""What reading manifests gives: sound resources, where each comes from, and every problem in one line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal, cast

from chandlery.core import documents
from chandlery.core.documents import line_at
from chandlery.core.errors import ManifestError
from chandlery.core.resources import MarketFeed, Resource, Trader, TraderPool
from chandlery.core.wording import path_text

Key = tuple[str, str]
"""(namespace, name)."""
Identity = tuple[str, str, str]
"""(kind, namespace, name)."""

Reason = Literal[
    "BadManifest",
    "UnknownStrategy",
    "BadStrategy",  # its code can't be used
    "BadParameter",
    "BadSource",  # its ConfigMap or key is missing, or too long
    "UnknownPool",
    "UnknownFeed",
    "UnknownSymbol",
    "UnknownTier",
    "NotAllowed",
]


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something wrong in a manifest; ``str()`` is one line.

    Attributes:
        file: as it was given. document: its number in the file, 0 where the whole file is meant.
        line: line in the file, 0: unknown.
        kind, namespace, name: the resource, as far as they could be read (else empty).
        field: such as ``spec.market.interval``; empty where the whole resource is meant.
        message: what is wrong and what would be right.
        reason: stable word for a status.
    """

    file: str
    document: int
    line: int
    kind: str
    namespace: str
    name: str
    field: str
    message: str
    reason: Reason = "BadManifest"

    @property
    def identity(self) -> Identity | None:
        """The resource that it belongs to, where that is known."""
        return (self.kind, self.namespace, self.name) if self.kind and self.name else None

    def __str__(self) -> str:
        place = self.file
        if self.document:
            place += f" (document {self.document}, line {self.line})"
        parts = [place]
        if self.kind:
            who = [self.kind, self.namespace, self.name] if self.name else [self.kind]
            parts[0] += " " + "/".join(who)
        if self.field:
            parts.append(self.field)
        return ": ".join([*parts, self.message])


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a resource comes from.

    Attributes:
        file: as it was given. folder: absolute; paths in the manifest are relative to it.
        document, line: place in the file.
        lines: path of a field → its line in the file.
        digest: of the resource's content; what a watcher compares.
    """

    file: str
    folder: Path
    document: int
    line: int
    lines: Mapping[documents.Path, int]
    digest: str

    def problem(self, identity: Identity, path: documents.Path, message: str, reason: Reason) -> Problem:
        """A problem in the field ``path`` of the resource that stands here."""
        line = line_at(self.lines, path, self.line)
        return Problem(self.file, self.document, line, *identity, path_text(path), message, reason)


#: Kinds of what is kept of manifests.
DECLARED_KINDS: Final = frozenset({"MarketFeed", "TraderPool", "Trader", "ConfigMap", "Namespace"})


@dataclass(slots=True)
class ManifestSet:
    """What was read.

    Attributes:
        feeds, pools, traders: sound resources by (namespace, name).
        configmaps: ConfigMaps' ``data`` by (namespace, name). namespaces: labels of the Namespaces declared.
        problems: everything wrong, in order of file and place. notices: what was left out, and why.
        empty: files without a document, and whether there is anything in them (comments).
        origins: where each resource (ConfigMaps included) comes from, with its content digest.
    """

    feeds: dict[Key, MarketFeed] = field(default_factory=dict)
    pools: dict[Key, TraderPool] = field(default_factory=dict)
    traders: dict[Key, Trader] = field(default_factory=dict)
    configmaps: dict[Key, dict[str, str]] = field(default_factory=dict)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    empty: dict[str, bool] = field(default_factory=dict)
    origins: dict[Identity, Origin] = field(default_factory=dict)

    @property
    def digests(self) -> dict[Identity, str]:
        """Content digest of each resource: equal digests, equal resources."""
        return {identity: origin.digest for identity, origin in self.origins.items()}

    def folder_of(self, resource: Resource) -> Path:
        """Folder that paths in this resource are relative to."""
        origin = self.origins.get((resource.KIND, *resource.key))
        return origin.folder if origin else Path.cwd()

    def problems_of(self, kind: str, key: Key) -> list[Problem]:
        """Problems attached to one resource."""
        return [problem for problem in self.problems if problem.identity == (kind, *key)]

    def raise_if_problems(self) -> None:
        """Raise when anything was wrong.

        Raises:
            ManifestError: every problem, one a line.
        """
        if self.problems:
            raise ManifestError("\n".join(map(str, self.problems)))

    def carry_over(self, previous: ManifestSet) -> ManifestSet:
        """This set, with what ``previous`` had of the resources that can't be read now.

        A resource that has a problem, or whose file or folder can't be read or has a document that can't be
        told by kind and name, stays as it was; one that is plainly gone is gone. A kind that there is none of tells
        nothing: it may be any of the file's, misspelt.
        """
        kept = replace(
            self,
            feeds=dict(self.feeds),
            pools=dict(self.pools),
            traders=dict(self.traders),
            configmaps=dict(self.configmaps),
            namespaces=dict(self.namespaces),
            origins=dict(self.origins),
        )
        broken = {problem.identity for problem in self.problems} - {None}
        obscure = self.obscure_files()
        for identity, origin in previous.origins.items():
            if identity in self.origins:
                continue
            if identity in broken or any(lies_in(origin.file, file) for file in obscure):
                kept.take(identity, previous._value(identity), origin)
        return kept

    def obscure_files(self) -> list[str]:
        """Files and folders of which it isn't known what they hold."""
        return [
            problem.file for problem in self.problems if problem.identity is None or problem.kind not in DECLARED_KINDS
        ]

    def _value(self, identity: Identity) -> Resource | dict[str, str]:
        kind, *rest = identity
        key = (rest[0], rest[1])
        if kind == "Namespace":
            return self.namespaces[key[1]]
        return cast("Mapping[Key, Resource | dict[str, str]]", self._home(kind))[key]

    def _home(self, kind: str) -> object:
        return {
            "MarketFeed": self.feeds,
            "TraderPool": self.pools,
            "Trader": self.traders,
            "ConfigMap": self.configmaps,
        }[kind]

    def take(self, identity: Identity, value: Resource | dict[str, str], origin: Origin) -> None:
        """Add a resource (or a ConfigMap's data, a Namespace's labels) under its identity."""
        kind, namespace, name = identity
        self.origins[identity] = origin
        if kind == "Namespace":
            self.namespaces[name] = cast("dict[str, str]", value)
        else:
            cast("dict[Key, Resource | dict[str, str]]", self._home(kind))[namespace, name] = value


def lies_in(file: str, place: str) -> bool:
    """Whether ``place`` is the file or a folder that it is in."""
    return file == place or file.startswith(place.rstrip("/") + "/")
