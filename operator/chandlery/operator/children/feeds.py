"""A feed's objects: ingest and aggregator, each a StatefulSet of one pod with its settings in a ConfigMap, and a Service.

A StatefulSet never runs two pods of one name: there is one writer of the trades topic. Both processes follow their
settings file (``--follow``), so that a new symbol or interval restarts a process within its pod and not the pod:
what ingest has acknowledged stays in the pod's volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from chandlery.core.resources import MarketFeed
from chandlery.core.settings import AggregatorSettings, IngestSettings, KafkaSettings
from chandlery.operator.children.naming import (
    AGGREGATOR_PORT,
    INGEST_PORT,
    Component,
    Defaults,
    Object,
    feed_labels,
    owned,
    sealed,
)
from chandlery.operator.children.pods import (
    MEBIBYTE,
    config_volume,
    container,
    disk_volume,
    pod_security,
    probe,
    secret_volumes,
)
from chandlery.operator.settings_of import aggregator_settings, ingest_settings

DATA_FOLDER: Final = "/var/lib/chandlery"
#: Files of a replay are looked for here: they must be in the stream image, or mounted.
MARKET_FOLDER: Final = Path("/srv/chandlery/market")
#: Ingest waits 20 s for the broker to take what was received; 10 s more to end.
_GRACE_S: Final = 30


def child_name(feed: MarketFeed, component: Component) -> str:
    """Name of a workload and of its ConfigMap."""
    return f"{feed.name}-{component}"


def pod_attributes(namespace: str, feed: str, component: Component) -> dict[str, str]:
    """What spans say of the pod of one of a feed's processes, in the semantic conventions' names.

    It is its StatefulSet's only one, so that its name is known; its uid and node are not.
    """
    name = f"{feed}-{component}"
    return {"k8s.namespace.name": namespace, "k8s.statefulset.name": name, "k8s.pod.name": f"{name}-0"}


def ingest_of(
    feed: MarketFeed, kafka: KafkaSettings, symbols: Sequence[str], intervals: Sequence[str], defaults: Defaults
) -> IngestSettings:
    """Settings of the feed's ingest in its pod."""
    return ingest_settings(
        feed,
        kafka=kafka,
        symbols=symbols,
        intervals=intervals,
        folder=MARKET_FOLDER,
        session=-1,
        status_listen=f"0.0.0.0:{INGEST_PORT}",
        position_file=f"{DATA_FOLDER}/position.json",
        log_level=defaults.log_level,
    )


def aggregator_of(
    feed: MarketFeed, kafka: KafkaSettings, intervals: Sequence[str], defaults: Defaults
) -> AggregatorSettings:
    """Settings of the feed's aggregator in its pod."""
    return aggregator_settings(
        feed,
        kafka=kafka,
        intervals=intervals,
        status_listen=f"0.0.0.0:{AGGREGATOR_PORT}",
        data_dir=DATA_FOLDER,
        log_level=defaults.log_level,
    )


def settings_map(feed: MarketFeed, component: Component, settings: IngestSettings | AggregatorSettings) -> Object:
    """ConfigMap with the settings of one of the feed's processes."""
    meta = owned(feed, child_name(feed, component), feed_labels(feed, component))
    return sealed({"metadata": meta, "data": {f"{component}.json": msgspec.json.encode(settings).decode()}})


def feed_service(feed: MarketFeed, component: Component) -> Object:
    """Headless Service of one of the feed's processes: a name for its pod, Ready or not, by which the console asks it."""
    labels = feed_labels(feed, component)
    port = _port(component)
    return sealed(
        {
            "metadata": owned(feed, child_name(feed, component), labels),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": labels,
                "ports": [{"name": "status", "port": port, "targetPort": "status"}],
            },
        }
    )


def _port(component: Component) -> int:
    return INGEST_PORT if component == "ingest" else AGGREGATOR_PORT


def feed_set(feed: MarketFeed, component: Component, kafka: KafkaSettings, defaults: Defaults) -> Object:
    """StatefulSet of one of the feed's processes."""
    labels = feed_labels(feed, component)
    name = child_name(feed, component)
    meta = owned(feed, name, labels)
    return sealed(
        {
            "metadata": meta,
            "spec": {
                "replicas": 1,
                "serviceName": name,
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": meta["labels"]}, "spec": _pod(name, component, kafka, defaults)},
            },
        }
    )


def _pod(name: str, component: Component, kafka: KafkaSettings, defaults: Defaults) -> Object:
    volumes, mounts = secret_volumes(kafka)
    made = container(
        component,
        defaults.stream_image,
        f"chandlery.stream.{component}",
        defaults,
        settings=f"{component}.json",
        arguments=("--follow",),
        mounts=[{"name": "data", "mountPath": DATA_FOLDER}, *mounts],
        resources={"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
    )
    made |= {
        "ports": [{"name": "status", "containerPort": _port(component)}],
        # Faust's import and start take 3 s, ten times that on a busy machine; a broker that isn't there yet, longer.
        "startupProbe": probe("status", period_s=2, failures=150),
        "readinessProbe": probe("status", period_s=5, failures=3),
        "livenessProbe": probe("status", period_s=10, failures=6, timeout_s=5),
    }
    spec: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _GRACE_S,
        "securityContext": pod_security(defaults),
        "containers": [made],
        "volumes": [
            disk_volume("data", 1024 * MEBIBYTE),
            disk_volume("tmp", 64 * MEBIBYTE),
            config_volume("settings", name),
            *volumes,
        ],
    }
    if defaults.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in defaults.pull_secrets]
    return spec
