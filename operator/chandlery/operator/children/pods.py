"""What the pods of workers and feeds share: security, probes, volumes, and laying a template over another."""

from __future__ import annotations

from typing import Any, Final

from chandlery.core.kafka_login import STRIMZI_USER_KEYS
from chandlery.core.settings import KafkaSettings
from chandlery.operator.children.naming import Defaults, Object

MEBIBYTE: Final = 1 << 20
SETTINGS_FOLDER: Final = "/etc/chandlery/settings"


def _field(variable: str, path: str) -> Object:
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": path}}}


#: What of a pod its spans say, in the semantic conventions' names: the pod knows it, its manifest doesn't yet.
POD_IDENTITY: Final[tuple[Object, ...]] = (
    _field("POD_NAME", "metadata.name"),
    _field("POD_NAMESPACE", "metadata.namespace"),
    _field("POD_UID", "metadata.uid"),
    _field("NODE_NAME", "spec.nodeName"),
    {
        "name": "OTEL_RESOURCE_ATTRIBUTES",
        "value": "k8s.pod.name=$(POD_NAME),k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.uid=$(POD_UID),"
        "k8s.node.name=$(NODE_NAME)",
    },
)


def pod_security(defaults: Defaults) -> Object:
    """Pod level: the "restricted" Pod Security Standard."""
    return {
        "runAsNonRoot": True,
        "runAsUser": defaults.user,
        "runAsGroup": defaults.user,
        "fsGroup": defaults.user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container(
    name: str,
    image: str,
    module: str,
    defaults: Defaults,
    *,
    settings: str,
    mounts: list[Object],
    resources: Object,
    arguments: tuple[str, ...] = (),
) -> Object:
    """A container that runs one of Chandlery's modules with a settings file."""
    made: Object = {
        "name": name,
        "image": image,
        "command": ["python", "-m", module, "--config", f"{SETTINGS_FOLDER}/{settings}", *arguments],
        "env": [
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
        ],
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "settings", "mountPath": SETTINGS_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            *mounts,
        ],
    }
    if defaults.pull_policy:
        made["imagePullPolicy"] = defaults.pull_policy
    return made


def probe(port: str, *, period_s: int, failures: int, timeout_s: int = 2) -> Object:
    """An HTTP probe of ``/healthz``."""
    return {
        "httpGet": {"path": "/healthz", "port": port},
        "periodSeconds": period_s,
        "failureThreshold": failures,
        "timeoutSeconds": timeout_s,
    }


def memory_volume(name: str, size_bytes: int) -> Object:
    """A volume in memory, with a size limit."""
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": mebibytes(size_bytes)}}


def disk_volume(name: str, size_bytes: int) -> Object:
    """A volume on the node's disk that goes with the pod."""
    return {"name": name, "emptyDir": {"sizeLimit": mebibytes(size_bytes)}}


def config_volume(name: str, config_map: str, *, optional: bool = False, keys: tuple[str, ...] = ()) -> Object:
    """A ConfigMap as files. Optional: the pod starts without it."""
    source: Object = {"name": config_map}
    if optional:
        source["optional"] = True
    if keys:
        source["items"] = [{"key": key, "path": key} for key in keys]
    return {"name": name, "configMap": source}


def secret_volumes(kafka: KafkaSettings) -> tuple[list[Object], list[Object]]:
    """Volume and mount of the Secrets that Kafka's login needs, only of the keys that are read; both empty: none.

    Optional, all of them: a pod that waited for a Secret could only say so by an event, and the operator reads neither
    events nor Secrets. So the process starts, says in its status what it misses, and goes on when it is there.
    """
    security = kafka.security
    paths = [*security.trusted, security.certificate, security.key, security.password]
    if security.strimzi_user:
        paths += [f"{security.strimzi_user}/{key}" for key in STRIMZI_USER_KEYS]
    keys: dict[str, list[str]] = {}
    for path in filter(None, paths):
        secret, _, key = path.removeprefix(f"{security.secrets}/").partition("/")
        keys.setdefault(secret, []).append(key)
    if not keys:
        return [], []
    sources = [
        {
            "secret": {
                "name": secret,
                "optional": True,
                "items": [{"key": key, "path": f"{secret}/{key}"} for key in sorted(set(named))],
            }
        }
        for secret, named in sorted(keys.items())
    ]
    volume = {"name": "kafka", "projected": {"defaultMode": 0o440, "sources": sources}}
    return [volume], [{"name": "kafka", "mountPath": security.secrets, "readOnly": True}]


def mebibytes(size_bytes: int) -> str:
    """An amount as Kubernetes writes it, rounded up to mebibytes."""
    return f"{-(-size_bytes // MEBIBYTE)}Mi"


def spread_over_nodes(labels: dict[str, str]) -> list[Object]:
    """Pods of these labels on as many nodes as there are; a full cluster still gets them."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": labels},
        }
    ]


def lay_over(base: Any, over: Any) -> Any:
    """``over`` laid over ``base``: objects by key, lists of named things by name, everything else replaced.

    None removes a key, as in a merge patch.
    """
    if isinstance(base, dict) and isinstance(over, dict):
        merged = dict(base)
        for key, value in over.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = lay_over(base[key], value) if key in base else value
        return merged
    if _all_named(base) and _all_named(over):
        named = {item["name"]: item for item in base}
        for item in over:
            named[item["name"]] = lay_over(named[item["name"]], item) if item["name"] in named else item
        return list(named.values())
    return over


def _all_named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, dict) and "name" in item for item in value)
