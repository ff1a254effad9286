"""What a pool's workers share: a headless Service, a PodDisruptionBudget, a NetworkPolicy."""

from __future__ import annotations

from urllib.parse import urlsplit

from chandlery.core.resources import TraderPool
from chandlery.operator.children.naming import (
    COMPONENT,
    METRICS_PORT,
    PART_OF,
    Defaults,
    Object,
    owned,
    pool_labels,
    sealed,
)
from chandlery.operator.children.workers import service_name


def workers_service(pool: TraderPool, defaults: Defaults) -> Object:
    """Headless Service: names for the pods, Ready or not."""
    labels = pool_labels(pool)
    return sealed(
        {
            "metadata": owned(pool, service_name(pool), labels),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": labels,
                "ports": [{"name": "api", "port": defaults.worker_port, "targetPort": "api"}],
            },
        }
    )


def disruption_budget(pool: TraderPool) -> Object:
    """At most one worker of the pool is evicted at a time."""
    labels = pool_labels(pool)
    return sealed(
        {
            "metadata": owned(pool, service_name(pool), labels),
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": labels}},
        }
    )


def network_policy(pool: TraderPool, kafka: str, defaults: Defaults) -> Object:
    """In: the worker's API, from the operator's namespace; figures, from the console and from where they are scraped.
    Out: DNS, Kafka, OTLP.

    Addresses outside of Kubernetes can't be named here by host, so ports are what is allowed.
    """
    ports = sorted({_port_of(one.strip(), 9092) for one in kafka.split(",") if one.strip()})
    otlp = pool.spec.telemetry.otlp_endpoint
    if otlp:
        ports = sorted({*ports, otlp_port(otlp, pool.spec.telemetry.otlp_protocol)})
    callers: Object = {}
    if defaults.callers:
        ours = {"podSelector": {"matchLabels": {PART_OF: "chandlery"}}}
        callers = {"from": [{"namespaceSelector": _namespace(defaults.callers), **ours}]}
    ingress: list[Object] = [{**callers, "ports": [{"protocol": "TCP", "port": defaults.worker_port}]}]
    if defaults.scrapers:
        scrapers = {} if defaults.scrapers == "*" else {"from": [{"namespaceSelector": _namespace(defaults.scrapers)}]}
        ingress.append({**scrapers, "ports": [{"protocol": "TCP", "port": METRICS_PORT}]})
    if defaults.console:
        console = {"podSelector": {"matchLabels": {PART_OF: "chandlery", COMPONENT: "console"}}}
        ingress.append(
            {
                "from": [{"namespaceSelector": _namespace(defaults.console), **console}],
                "ports": [{"protocol": "TCP", "port": METRICS_PORT}],
            }
        )
    labels = pool_labels(pool)
    return sealed(
        {
            "metadata": owned(pool, service_name(pool), labels),
            "spec": {
                "podSelector": {"matchLabels": labels},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": ingress,
                "egress": [
                    {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
                    {"ports": [{"protocol": "TCP", "port": port} for port in ports]},
                ],
            },
        }
    )


def _namespace(name: str) -> Object:
    return {"matchLabels": {"kubernetes.io/metadata.name": name}}


def otlp_port(endpoint: str, protocol: str) -> int:
    """The port that traces are sent to: the address's, its scheme's over HTTP, or gRPC's of OTLP."""
    parts = urlsplit(endpoint)
    if parts.port is not None:
        return parts.port
    return 4317 if protocol == "grpc" else {"https": 443}.get(parts.scheme, 80)


def _port_of(address: str, default: int) -> int:
    port = address.rpartition(":")[2]
    return int(port) if port.isdigit() else default
