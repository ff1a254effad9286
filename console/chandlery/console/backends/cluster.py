"""Chandlery on Kubernetes behind the API: resources followed, figures asked for, Traders written with the pod's own rights."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Literal

from pydantic import ValidationError

from chandlery.console.api.models import Trader
from chandlery.console.backend import (
    ConflictError,
    FeedKafka,
    NotFoundError,
    RefusedError,
    Snapshot,
    TraderManifest,
)
from chandlery.console.backends.cluster_api import KubeApi, Object, StaleError
from chandlery.console.backends.cluster_follow import Followed, Names
from chandlery.console.backends.cluster_poll import POLL_S, Poller, Resolve, resolve
from chandlery.console.backends.cluster_rows import (
    edition_of,
    feed_row,
    idle,
    kept,
    kept_trader,
    manifest_of,
    notices_of,
    pool_row,
    processes_of,
    segments_of,
    trader_row,
    transports_of,
)
from chandlery.console.backends.memory_history import MemoryHistory
from chandlery.console.settings import ClusterSettings
from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.feed_kafka import SECRETS_FOLDER, kafka_settings
from chandlery.core.kube_credentials import Credentials, find_credentials
from chandlery.core.resources import DEFAULT_NAMESPACE, MarketFeed
from chandlery.core.settings import KafkaSecurity, KafkaSettings

log = logging.getLogger("chandlery.console.cluster")

_TRADERS: Final = "traders"
_POOLS: Final = "traderpools"
_FEEDS: Final = "marketfeeds"
#: A snapshot is made at most so often: of 1,000 Traders it takes 10 to 30 ms, and many may ask at once.
_FRESH_S: Final = 0.5
#: A part that ended by a defect of ours begins again after this: as often as a person can see it said.
_DEFECT_PAUSE_S: Final = 5.0
#: And is said for so long after its last end: three of those, so that one that ends at once isn't said by turns.
_DEFECT_SAID_S: Final = 15.0
#: A status written meanwhile makes a write repeat; they come seldom, and hardly twice within a write.
_ATTEMPTS: Final = 5


class ClusterBackend:
    """A :class:`chandlery.console.backend.Backend` over the Kubernetes API.

    Args:
        credentials: absent: those of the settings' kubeconfig, or of the pod.
        resolve: addresses of a pod's Service. poll_s: between two looks at the pods' figures.
        secrets: folder in which the Secrets of Kafkas are, as {namespace}/{secret}/{key}.

    Raises:
        InputError: no credentials.
    """

    mode: Literal["local", "cluster"] = "cluster"
    #: What may be written the API server decides.
    writable = True

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        credentials: Credentials | None = None,
        resolve: Resolve = resolve,
        poll_s: float = POLL_S,
        secrets: str = SECRETS_FOLDER,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._api = KubeApi(credentials or find_credentials(settings.kubeconfig))
        self._followed = {
            plural: [Followed(self._api, plural, namespace, take) for namespace in settings.namespaces or [""]]
            for plural, take in ((_TRADERS, kept_trader), (_POOLS, kept), (_FEEDS, kept))
        }
        self._poller = Poller(self._wanted, turned=self._note_memory, resolve=resolve, every_s=poll_s)
        self._history = MemoryHistory()
        self._defects: dict[str, tuple[float, str]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._snapshot: tuple[float, Snapshot] | None = None
        self._kafkas: dict[Names, tuple[tuple[Any, ...], KafkaSettings | None]] = {}

    async def start(self) -> None:
        """Begin to follow; returns at once."""
        parts: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            (f"the watch of {followed.plural} {followed.namespace}".rstrip(), followed.run)
            for some in self._followed.values()
            for followed in some
        ]
        parts.append(("the polling of figures", self._poller.run))
        self._tasks = [asyncio.create_task(self._kept_running(*part), name=part[0]) for part in parts]

    async def _kept_running(self, what: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a part; one that ends by a defect is said to be away, and begun again."""
        while True:
            try:
                await run()
            except Exception as error:
                words = f"{what} ended by a defect: {type(error).__name__}: {error}"
                if self._defects.get(what, (0.0, ""))[1] != words:
                    log.exception("a part ended", extra={"part": what})
                self._defects[what] = time.monotonic(), words
            await asyncio.sleep(_DEFECT_PAUSE_S)

    async def stop(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._api.close()

    # What is known ------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All that is known now; the same one within half a second."""
        now_s = time.monotonic()
        if self._snapshot is None or now_s - self._snapshot[0] > _FRESH_S:
            self._snapshot = now_s, self._made(now_s, round(time.time() * 1_000))
        return self._snapshot[1]

    def _made(self, now_s: float, now_ms: int) -> Snapshot:
        pools, feeds = self._poller.pools, self._poller.feeds
        pool_rows = [pool_row(item) for _, item in self._sorted(_POOLS)]
        items = [item for _, item in self._sorted(_TRADERS)]
        traders: list[Trader] = [trader_row(item, pools, now_s, now_ms) for item in items]
        return Snapshot(
            traders=traders,
            pools=pool_rows,
            feeds=[feed_row(item, feeds.get(names), now_s) for names, item in self._sorted(_FEEDS)],
            memory=self._history.told(list(segments_of(pools, now_s))),
            away=self._away(),
            notices=[
                *notices_of(pools, feeds, pool_rows, {names for names, item in self._sorted(_FEEDS) if idle(item)}),
                *self._without_secrets(),
            ],
            transports=transports_of(items, pool_rows),
        )

    def _note_memory(self) -> None:
        processes = processes_of(self._poller.pools, self._poller.feeds, time.monotonic())
        self._history.note(processes, round(time.time() * 1_000))

    def _away(self) -> list[str]:
        problems = [followed.problem for some in self._followed.values() for followed in some]
        since_s = time.monotonic() - _DEFECT_SAID_S
        defects = [words for at_s, words in self._defects.values() if at_s > since_s]
        return list(dict.fromkeys(filter(None, [*problems, *defects])))

    def _sorted(self, plural: str) -> list[tuple[Names, Object]]:
        return sorted(
            ((names, item) for followed in self._followed[plural] for names, item in followed.objects.items()),
            key=lambda pair: pair[0],
        )

    def _wanted(self) -> tuple[Iterable[Names], Iterable[Names]]:
        return [names for names, _ in self._sorted(_POOLS)], [names for names, _ in self._sorted(_FEEDS)]

    def kafkas(self) -> Sequence[FeedKafka]:
        """Where each feed's topics are, as the operator says in its status and the feed itself in its spec."""
        told: list[FeedKafka] = []
        feeds = self._sorted(_FEEDS)
        for names, item in feeds:
            name = "/".join(names)
            settings = self._settings.kafka.get(name) or self._kafka_of(names, item)
            if settings is not None:
                told.append(FeedKafka(name, settings))
        for gone in self._kafkas.keys() - {names for names, _ in feeds}:
            del self._kafkas[gone]
        return told

    def _without_secrets(self) -> list[str]:
        """Feeds whose Kafka wants Secrets of their namespace that this pod wasn't given; another's are never used."""
        told = []
        for feed in self.kafkas():
            security = feed.kafka.security
            if feed.feed in self._settings.kafka or not security.secrets:
                continue
            lacking = [name for name in _secrets_of(security) if not os.path.isdir(f"{security.secrets}/{name}")]
            if lacking:
                named = ", ".join(f"{security.namespace}/{name}" for name in lacking)
                told.append(
                    f"signals and candles of feed {feed.feed} can't be read: this console wasn't given Secret {named} "
                    "(console.kafkaSecrets of the chart)"
                )
        return told

    def _kafka_of(self, names: Names, item: Object) -> KafkaSettings | None:
        meta, bootstrap = item["metadata"], str(item["status"].get("bootstrapServers") or "")
        key = (meta.get("uid"), meta.get("generation"), bootstrap)
        known = self._kafkas.get(names)
        if known is None or known[0] != key:
            known = self._kafkas[names] = key, _read_kafka(item, bootstrap, self._secrets)
        return known[1]

    async def manifest(self, namespace: str, name: str) -> TraderManifest:
        """As the API server has it, from memory."""
        followed = self._of(namespace)
        item = followed.objects.get((namespace, name))
        if item is None:
            if not followed.listed:
                raise UnavailableError(followed.problem)
            raise NotFoundError(f"there is no Trader {namespace}/{name}")
        return _told(item)

    # What is changed ----------------------------------------------------------------------------------------

    async def create(self, manifest: dict[str, Any]) -> TraderManifest:
        """POST, nothing that isn't a person's in it."""
        meta = manifest["metadata"]
        namespace = meta.get("namespace") or DEFAULT_NAMESPACE
        followed = self._of(namespace)
        own = {key: meta[key] for key in ("name", "labels", "annotations") if meta.get(key)}
        body = {
            "apiVersion": manifest["apiVersion"], "kind": manifest["kind"], "metadata": {**own, "namespace": namespace},
            "spec": manifest["spec"],
        }  # fmt: skip
        return self._taken(followed, await self._api.create(namespace, body))

    async def replace(self, manifest: dict[str, Any], resource_version: str) -> TraderManifest:
        """PUT of what stands there with another spec; its labels and annotations only ever come to it.

        The version to be given back is that of the spec: that a status was written meanwhile is no edit of somebody else.
        """
        meta = manifest["metadata"]
        namespace, name = meta.get("namespace") or DEFAULT_NAMESPACE, meta["name"]
        followed = self._of(namespace)
        for _ in range(_ATTEMPTS):
            item = await self._api.get(namespace, name)
            if resource_version and resource_version not in (edition_of(item), item["metadata"]["resourceVersion"]):
                raise ConflictError(
                    f"Trader {namespace}/{name} was changed by somebody else meanwhile: look at it again"
                )
            item["spec"] = manifest["spec"]
            for notes in ("labels", "annotations"):
                if meta.get(notes):
                    item["metadata"][notes] = {**(item["metadata"].get(notes) or {}), **meta[notes]}
            item["metadata"].pop("managedFields", None)
            try:
                return self._taken(followed, await self._api.put(namespace, name, item))
            except StaleError:
                continue
        raise ConflictError(f"Trader {namespace}/{name} is changed again and again: look at it again")

    async def suspend(self, namespace: str, name: str, *, suspend: bool) -> TraderManifest:
        """A merge patch of that one field."""
        followed = self._of(namespace)
        return self._taken(followed, await self._api.merge(namespace, name, {"spec": {"suspend": suspend}}))

    async def delete(self, namespace: str, name: str) -> None:
        """Delete it; its children go with it."""
        followed = self._of(namespace)
        await self._api.delete(namespace, name)
        followed.drop((namespace, name))
        self._snapshot = None

    def _of(self, namespace: str) -> Followed:
        """Who follows the Traders of a namespace. Raises: RefusedError: nobody does."""
        for followed in self._followed[_TRADERS]:
            if followed.namespace in ("", namespace):
                return followed
        looked_at = ", ".join(self._settings.namespaces)
        raise RefusedError(f"this console looks at {looked_at} alone, not at namespace {namespace}")

    def _taken(self, followed: Followed, item: Object) -> TraderManifest:
        followed.put(item)
        self._snapshot = None
        return _told(kept(item))


def _told(item: Object) -> TraderManifest:
    return TraderManifest(manifest_of(item), item["keptBy"], edition_of(item))


def _secrets_of(security: KafkaSecurity) -> list[str]:
    """Names of the Secrets whose files are read."""
    files = [*security.trusted, security.certificate, security.key, security.password]
    folders = [security.strimzi_user, *(os.path.dirname(file) for file in files)]
    return sorted({os.path.basename(folder) for folder in folders if folder})


def _read_kafka(item: Object, bootstrap: str, secrets: str) -> KafkaSettings | None:
    """A feed's Kafka; None: none is named, or the feed is of a form that isn't known here.

    Its Secrets are looked for among those of its own namespace alone: else whoever may make a MarketFeed anywhere could
    name a Kafka of theirs and have another namespace's login sent to it.
    """
    meta = item["metadata"]
    try:
        feed = MarketFeed.model_validate({"kind": "MarketFeed", "metadata": meta, "spec": item["spec"]})
        settings = kafka_settings(
            feed, bootstrap, secrets=f"{secrets}/{meta['namespace']}", namespace=meta["namespace"]
        )
    except (InputError, ValidationError) as error:
        log.warning(
            "a feed can't be read", extra={"feed": f"{meta['namespace']}/{meta['name']}", "problem": str(error)}
        )
        return None
    return settings if settings.bootstrap else None
