"""Names, labels and annotations of the operator's children, and whose they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, Protocol

import msgspec

from chandlery.core.resources import API_VERSION, MarketFeed, TraderPool

Object = dict[str, Any]

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
OPERATOR: Final = "chandlery-operator"
COMPONENT: Final = "app.kubernetes.io/component"
PART_OF: Final = "app.kubernetes.io/part-of"
POOL_LABEL: Final = "chandlery.dev/pool"
WORKER_LABEL: Final = "chandlery.dev/worker"
FEED_LABEL: Final = "chandlery.dev/feed"
#: Digest of the manifest that an object was last applied from: equal digests, nothing to write.
CONTENT: Final = "chandlery.dev/content"
#: Digest of the settings a pod was started with (in its template), or shall read now (on the pod itself).
SETTINGS: Final = "chandlery.dev/settings"
#: Chooses everything the operator made.
SELECTOR: Final = f"{MANAGED_BY}={OPERATOR}"

#: Ports of the pods: the worker's API; status of ingest and aggregator.
WORKER_PORT: Final = 8080
INGEST_PORT: Final = 8081
AGGREGATOR_PORT: Final = 8082
#: Where Prometheus finds the figures of a worker's feed; those of ingest and aggregator are at their status' port.
METRICS_PORT: Final = 9464

Component = Literal["worker", "ingest", "aggregator"]


@dataclass(frozen=True, slots=True)
class Defaults:
    """What resources don't say themselves.

    Attributes:
        worker_image: of the feed sidecar, and of the traders' container of pools that name no image.
        stream_image: of ingest and aggregator.
        pull_policy: ``imagePullPolicy``; empty: the cluster's. pull_secrets: names of Secrets beside the pods.
        kafka: bootstrap servers of feeds that name none; empty: such a feed can't run.
        priority_classes: tier → PriorityClass of workers whose most urgent tier it is; none: the cluster's default.
        callers: namespace of the operator and console, which may call the workers; empty: every pod may.
        scrapers: namespace whose pods may read workers' figures, ``*``: those of every one; empty: no pod may.
        console: namespace of the console, whose pods may read them too; empty: there is none.
        user: numeric user and group id of every container. worker_port: port of the workers' API.
    """

    worker_image: str
    stream_image: str
    pull_policy: str = ""
    pull_secrets: tuple[str, ...] = ()
    kafka: str = ""
    priority_classes: dict[str, str] = field(default_factory=dict)
    callers: str = ""
    scrapers: str = ""
    console: str = ""
    log_level: str = "info"
    user: int = 10001
    worker_port: int = WORKER_PORT


class Owner(Protocol):
    """What of a resource its children are known by."""

    KIND: ClassVar[str]

    @property
    def name(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def key(self) -> tuple[str, str]: ...
    @property
    def full_name(self) -> str: ...
    @property
    def identity(self) -> str: ...


@dataclass(frozen=True)
class UnreadPool:
    """A TraderPool that is there and can't be read: what was made for it is still its own."""

    KIND: ClassVar[str] = TraderPool.KIND

    key: tuple[str, str]
    identity: str

    @property
    def namespace(self) -> str:
        """Where it is."""
        return self.key[0]

    @property
    def name(self) -> str:
        """Its name there."""
        return self.key[1]

    @property
    def full_name(self) -> str:
        """``namespace/name``."""
        return "/".join(self.key)


def pool_labels(pool: Owner) -> dict[str, str]:
    """Labels that choose every worker of a pool."""
    return {COMPONENT: "worker", POOL_LABEL: pool.name}


def worker_labels(pool: Owner, worker: str) -> dict[str, str]:
    """Labels of a worker's objects."""
    return {**pool_labels(pool), WORKER_LABEL: worker}


def feed_labels(feed: MarketFeed, component: Component) -> dict[str, str]:
    """Labels of one of a feed's workloads. A feed's name may be 63 characters long, as a label's value may."""
    return {COMPONENT: component, FEED_LABEL: feed.name}


def owned(owner: Owner, name: str, labels: dict[str, str], annotations: dict[str, str] | None = None) -> Object:
    """Metadata of a child: it goes with its owner, without any finalizer."""
    return {
        "name": name,
        "namespace": owner.namespace,
        "labels": {MANAGED_BY: OPERATOR, PART_OF: "chandlery", **labels},
        **({"annotations": annotations} if annotations else {}),
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": owner.KIND,
                "name": owner.name,
                "uid": owner.identity,
                "controller": True,
                "blockOwnerDeletion": False,  # true needs the right to change the owner's finalizers
            }
        ],
    }


def sealed(body: Object) -> Object:
    """The manifest with its own digest among its annotations."""
    meta = body["metadata"]
    annotations = {**meta.get("annotations", {}), CONTENT: digest_of(body)}
    return {**body, "metadata": {**meta, "annotations": annotations}}


def digest_of(value: object) -> str:
    """Digest of plain data (16 hex digits), the same whatever the order of keys."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:16]


def content_of(item: Object | None) -> str:
    """The digest that an object of the API server was applied from; empty: none."""
    return str((item or {}).get("metadata", {}).get("annotations", {}).get(CONTENT, ""))
