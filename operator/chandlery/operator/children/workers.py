"""A worker's objects: settings and assignment (ConfigMaps), token (Secret), and a StatefulSet of one pod.

The pod: a feed as native sidecar (init container with ``restartPolicy: Always``), whose startup probe waits for
segment and control socket and never for Kafka, and the traders' container with the supervisor. The traders'
container sees the segment through a read-only mount, and neither token nor Kafka's address.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, Final

import msgspec

from chandlery.core.assignment import Assignment, surge_of
from chandlery.core.assignment import encode as encode_assignment
from chandlery.core.errors import InputError
from chandlery.core.quantities import parse_quantity
from chandlery.core.resources import TraderPool
from chandlery.core.settings import KafkaSettings
from chandlery.operator.children.feeds import pod_attributes
from chandlery.operator.children.naming import (
    FEED_LABEL,
    METRICS_PORT,
    SETTINGS,
    Defaults,
    Object,
    Owner,
    digest_of,
    owned,
    pool_labels,
    sealed,
    worker_labels,
)
from chandlery.operator.children.pods import (
    MEBIBYTE,
    POD_IDENTITY,
    config_volume,
    container,
    disk_volume,
    lay_over,
    mebibytes,
    memory_volume,
    pod_security,
    probe,
    secret_volumes,
    spread_over_nodes,
)
from chandlery.operator.settings_of import feed_settings, supervisor_settings

SEGMENT_FOLDER: Final = "/run/chandlery/segment"
RINGS_FOLDER: Final = "/run/chandlery/rings"
ASSIGNMENT_FOLDER: Final = "/etc/chandlery/assignment"
TOKEN_FOLDER: Final = "/etc/chandlery/token"
ASSIGNMENT_KEY: Final = "assignment.json"
#: Nobody changes a Secret's type: one of our name that is somebody else's refuses to be applied.
TOKEN_TYPE: Final = "chandlery.dev/worker-token"
#: Traders end within 8 s, the feed drains its rings and ends within 10 s after them; doubled.
_GRACE_S: Final = 40
#: Signal ring of one trader: 256 slots of 1 KiB, header and positions.
_RING_BYTES: Final = 300_000
# Interpreter, Kafka clients and buffers of the feed; supervisor, fork server with numpy and strategies.
_FEED_BYTES: Final = 256 * MEBIBYTE
_SUPERVISOR_BYTES: Final = 256 * MEBIBYTE
#: Of one trader's process what isn't shared with the others, as a request; its limit is its Trader's.
_TRADER_REQUEST_BYTES: Final = 16 * MEBIBYTE
_TRADER_LIMIT_BYTES: Final = 256 * MEBIBYTE


_TRADERS: Final = "traders"


def segment_bytes(pool: TraderPool) -> int:
    """Size of the pool's segments, a little more than the layout needs.

    Each of seven columns of 8 bytes has every row twice; 64 rows have eight stamps; the rest are headers.
    """
    segment = pool.spec.segment
    return segment.series * (segment.candles * 7 * 8 * 2 + 64 * 8 * 8 + 8_192) + MEBIBYTE


def traders_bytes(pool: TraderPool) -> int | None:
    """Memory that the traders of one worker have together; None: its pod template sets no limit.

    A trader that passes its own limit ends alone; one that passes the container's takes the others along.
    """
    made = {"name": _TRADERS, "resources": {"limits": _traders_limits(pool)}}
    template: Any = lay_over({"spec": {"containers": [made]}}, pool.spec.pod_template)
    try:
        (found,) = [one for one in template["spec"]["containers"] if one["name"] == _TRADERS]
        limit = parse_quantity(str(found["resources"]["limits"]["memory"]))
    except (KeyError, TypeError, ValueError, InputError):
        return None  # what a template breaks the API server refuses, and says so
    return max(0, limit - _SUPERVISOR_BYTES - _rings_bytes(pool))


def _most_traders(pool: TraderPool) -> int:
    """Trader processes that there are at once at most: successors stand by beside those that decide."""
    return pool.spec.traders_per_worker + surge_of(pool.spec.traders_per_worker)


def _rings_bytes(pool: TraderPool) -> int:
    return (_most_traders(pool) + 8) * _RING_BYTES


def _traders_limits(pool: TraderPool) -> Object:
    traders = _most_traders(pool) * _TRADER_LIMIT_BYTES
    return {"memory": mebibytes(_SUPERVISOR_BYTES + _rings_bytes(pool) + traders)}


def settings_name(worker: str) -> str:
    """ConfigMap with a worker's settings."""
    return f"{worker}-settings"


def assignment_name(worker: str) -> str:
    """ConfigMap with a worker's assignment."""
    return f"{worker}-assignment"


def token_name(worker: str) -> str:
    """Secret with the token that the worker's API asks for.

    A Secret's type is immutable: one of another type gets another name, or installations that have the old one stay refused.
    """
    return f"{worker}-worker-token"


def token_of(key: bytes, pool: Owner, worker: str) -> str:
    """The worker's token: derived from the operator's key, so that no Secret of another needs ever be read."""
    return hmac.new(key, f"{pool.namespace}/{pool.identity}/{worker}".encode(), hashlib.sha256).hexdigest()


def worker_settings(pool: TraderPool, worker: str, kafka: KafkaSettings, defaults: Defaults) -> dict[str, str]:
    """Files of the settings ConfigMap by name: ``feed.json`` and ``supervisor.json``."""
    places: dict[str, Any] = {"shm_dir": SEGMENT_FOLDER, "rings_dir": RINGS_FOLDER, "log_level": defaults.log_level}
    feed = feed_settings(
        pool,
        worker=worker,
        kafka=kafka,
        listen=f"0.0.0.0:{defaults.worker_port}",
        metrics_listen=f"0.0.0.0:{METRICS_PORT}",
        token_file=f"{TOKEN_FOLDER}/token",
        assignment_file=f"{ASSIGNMENT_FOLDER}/{ASSIGNMENT_KEY}",
        **places,
    )
    market = pool.spec.feed.key(pool.namespace)
    feed.telemetry.ingest = pod_attributes(*market, "ingest")
    feed.telemetry.aggregator = pod_attributes(*market, "aggregator")
    supervisor = supervisor_settings(pool, worker=worker, **places)
    return {
        "feed.json": msgspec.json.encode(feed).decode(),
        "supervisor.json": msgspec.json.encode(supervisor).decode(),
    }


def settings_map(pool: TraderPool, worker: str, kafka: KafkaSettings, defaults: Defaults) -> Object:
    """ConfigMap with the worker's settings."""
    meta = owned(pool, settings_name(worker), worker_labels(pool, worker))
    return sealed({"metadata": meta, "data": worker_settings(pool, worker, kafka, defaults)})


def assignment_map(pool: Owner, assignment: Assignment) -> Object:
    """ConfigMap with the worker's assignment."""
    meta = owned(pool, assignment_name(assignment.worker), worker_labels(pool, assignment.worker))
    return sealed({"metadata": meta, "data": {ASSIGNMENT_KEY: encode_assignment(assignment).decode()}})


def token_secret(pool: TraderPool, worker: str, token: str) -> Object:
    """Secret with the worker's token, of a type of its own. Carries no digest: annotations are shown by ``kubectl describe``."""
    return {
        "metadata": owned(pool, token_name(worker), worker_labels(pool, worker)),
        "type": TOKEN_TYPE,
        "data": {"token": base64.b64encode(token.encode()).decode()},
    }


def worker_set(pool: TraderPool, worker: str, kafka: KafkaSettings, defaults: Defaults) -> Object:
    """StatefulSet of the worker's one pod; the pool's ``podTemplate`` is laid over what stands here."""
    labels = worker_labels(pool, worker)
    settings = digest_of(worker_settings(pool, worker, kafka, defaults))
    template: Object = {
        "metadata": {"labels": labels, "annotations": {SETTINGS: settings}},
        "spec": _pod(pool, worker, kafka, defaults),
    }
    template = lay_over(template, pool.spec.pod_template)
    # Whatever a template says: these are how pods are found.
    found_by = owned(pool, worker, labels)["labels"]
    # Not what chooses them, but told with their figures: whose candles a worker has.
    feed = {FEED_LABEL: pool.spec.feed.name}
    template["metadata"]["labels"] = {**template["metadata"]["labels"], **found_by, **feed}
    return sealed(
        {
            "metadata": owned(pool, worker, labels),
            "spec": {
                "replicas": 1,
                "serviceName": service_name(pool),
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": template,
            },
        }
    )


def _pod(pool: TraderPool, worker: str, kafka: KafkaSettings, defaults: Defaults) -> Object:
    volumes, mounts = secret_volumes(kafka)
    segment, rings = segment_bytes(pool), _rings_bytes(pool)
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": pod_security(defaults),
        "topologySpreadConstraints": spread_over_nodes(pool_labels(pool)),
        "initContainers": [_feed(pool, defaults, segment, mounts)],
        "containers": [_traders(pool, defaults)],
        "volumes": [
            # Twice: a feed that starts again builds its new segment beside the old one.
            memory_volume("segment", 2 * segment + 8 * MEBIBYTE),
            memory_volume("rings", rings + 8 * MEBIBYTE),
            disk_volume("tmp", 64 * MEBIBYTE),
            config_volume("settings", settings_name(worker)),
            config_volume("assignment", assignment_name(worker), optional=True),
            {"name": "token", "secret": {"secretName": token_name(worker), "defaultMode": 0o440}},
            *volumes,
        ],
    }
    if defaults.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in defaults.pull_secrets]
    priority = defaults.priority_classes.get(pool.spec.tiers[0].name)
    if priority:
        spec["priorityClassName"] = priority
    return spec


def _feed(pool: TraderPool, defaults: Defaults, segment: int, mounts: list[Object]) -> Object:
    made = container(
        "feed",
        defaults.worker_image,
        "chandlery.workers.feed",
        defaults,
        settings="feed.json",
        mounts=[
            {"name": "segment", "mountPath": SEGMENT_FOLDER},
            {"name": "rings", "mountPath": RINGS_FOLDER},
            {"name": "assignment", "mountPath": ASSIGNMENT_FOLDER, "readOnly": True},
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True},
            *mounts,
        ],
        resources={
            "requests": {"cpu": "100m", "memory": mebibytes(_FEED_BYTES // 2 + segment)},
            "limits": {"memory": mebibytes(_FEED_BYTES + 2 * segment)},
        },
    )
    return {
        **made,
        "restartPolicy": "Always",
        "env": [*made["env"], *POD_IDENTITY],
        "ports": [
            {"name": "api", "containerPort": defaults.worker_port},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        # Segment and socket are there within 1 s of the interpreter's start; a cold node takes its time.
        "startupProbe": probe("api", period_s=1, failures=120),
        "readinessProbe": probe("api", period_s=5, failures=2),
        "livenessProbe": probe("api", period_s=10, failures=6, timeout_s=5),
    }


def _traders(pool: TraderPool, defaults: Defaults) -> Object:
    traders = _most_traders(pool)
    return container(
        _TRADERS,
        pool.spec.image or defaults.worker_image,
        "chandlery.workers.supervisor",
        defaults,
        settings="supervisor.json",
        mounts=[
            {"name": "segment", "mountPath": SEGMENT_FOLDER, "readOnly": True},
            {"name": "rings", "mountPath": RINGS_FOLDER},
        ],
        resources={
            "requests": {"cpu": "250m", "memory": mebibytes(_SUPERVISOR_BYTES // 2 + traders * _TRADER_REQUEST_BYTES)},
            "limits": _traders_limits(pool),
        },
    )


def service_name(pool: TraderPool) -> str:
    """The pool's headless Service."""
    return f"{pool.name}-workers"
