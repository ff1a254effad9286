"""Who has a name that several documents give: in a running system whoever had it, else the first.

A newcomer must not take a running resource's name because its file sorts before: it would replace what runs, and the
file that was right would be the one refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from chandlery.core.manifestset import Identity, ManifestSet, Origin, Problem, lies_in
from chandlery.core.resources import Resource

#: Of a document with a mistake, whose content isn't known: equal to no digest.
NO_DIGEST: Final = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A document that gives a resource this name.

    Attributes:
        value: the resource, a ConfigMap's data or a Namespace's labels; None: the document has a mistake.
        origin: its place and digest (:data:`NO_DIGEST` without a value).
    """

    identity: Identity
    value: Resource | dict[str, str] | None
    origin: Origin


@dataclass(frozen=True, slots=True)
class Standing:
    """What counted until now.

    Attributes:
        origins: where each resource stood. absent: files that count though they can't be read again (gone a moment ago,
            standard input).
    """

    origins: Mapping[Identity, Origin]
    absent: Collection[str] = ()


#: Before anything runs.
NOTHING_STANDING: Final = Standing({})


def settle(manifests: ManifestSet, claims: Sequence[Claim], standing: Standing) -> None:
    """Give each name to one of its claims, and refuse the others.

    Whose document has a mistake keeps its name too, so that what ran before is kept (:meth:`ManifestSet.carry_over`)
    and no other takes its place.

    Args:
        manifests: takes what is sound, and the problems of those refused.
        claims: in the order in which they were read.
    """
    unread = {file for file, has_comments in manifests.empty.items() if not has_comments} | set(standing.absent)
    by_identity: dict[Identity, list[Claim]] = {}
    for claim in claims:
        by_identity.setdefault(claim.identity, []).append(claim)
    obscure = manifests.obscure_files()
    for identity, rivals in by_identity.items():
        before = standing.origins.get(identity)
        holder: Claim | None = rivals[0]
        place = rivals[0].origin
        if before is not None:
            is_unread = before.file in unread or any(lies_in(before.file, file) for file in obscure)
            holder = _holder(rivals, before, is_unread=is_unread)
            place = holder.origin if holder is not None else before
        for claim in rivals:
            if claim is not holder:
                manifests.problems.append(_refusal(claim, place))
        if holder is not None and holder.value is not None:
            manifests.take(identity, holder.value, holder.origin)


def _holder(rivals: Sequence[Claim], before: Origin, *, is_unread: bool) -> Claim | None:
    """The claim that has the name; None: the document before has it, whose file can't be read now."""
    own = [claim for claim in rivals if claim.origin.file == before.file]
    if own:
        return max(own, key=lambda claim: _likeness(claim.origin, before))
    # The same content in another file was moved there.
    moved = [claim for claim in rivals if claim.origin.digest == before.digest]
    if moved:
        return moved[0]
    return None if is_unread else rivals[0]


def _likeness(now: Origin, before: Origin) -> tuple[bool, bool]:
    return now.digest == before.digest, now.document == before.document


def _refusal(claim: Claim, holder: Origin) -> Problem:
    message = (
        f"this name is taken by {holder.file} (document {holder.document}, line {holder.line}); "
        "rename one of them, or delete it"
    )
    return claim.origin.problem(claim.identity, ("metadata", "name"), message, "BadManifest")
