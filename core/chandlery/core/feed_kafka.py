"""Where a MarketFeed's Kafka is, how it is entered, and how its topics are named: settings from the resource. Pure."""

from __future__ import annotations

from typing import Any, Final

from chandlery.core.resources import DEFAULT_NAMESPACE, Kafka, MarketFeed
from chandlery.core.resources.kafka import cluster_ca
from chandlery.core.settings import KafkaSecurity, KafkaSettings

#: Where pods find the Secrets that their Kafka needs, as {secret}/{key}.
SECRETS_FOLDER: Final = "/etc/chandlery/kafka"
#: Enough for four aggregators beside each other.
_PARTITIONS: Final = 4
#: The embedded broker is for one machine and one aggregator: more partitions only make more work of a request.
_EMBEDDED_PARTITIONS: Final = 1


def feed_topic(feed: MarketFeed) -> str:
    """The feed's part of its topics' names: its name, with the namespace before it where that isn't ``default``.

    Two feeds of one name in two namespaces so have topics of their own; names have no dot, so no two collide.
    """
    return feed.name if feed.namespace == DEFAULT_NAMESPACE else f"{feed.namespace}.{feed.name}"


def kafka_settings(
    feed: MarketFeed,
    bootstrap: str,
    *,
    secrets: str = SECRETS_FOLDER,
    namespace: str = "",
    security: KafkaSecurity = KafkaSecurity(),  # noqa: B008 - frozen
) -> KafkaSettings:
    """Where the feed's Kafka is, how it is entered, and how its topics are made.

    Args:
        bootstrap: used where the resource names no ``bootstrapServers``: the operator's, or that of ``chandlery up``.
        secrets: folder in which Secrets are folders and their keys are files.
        namespace: of those Secrets: the pod's.
        security: how the Kafka at ``bootstrap`` is entered.
    """
    kafka, retention = feed.spec.kafka, feed.spec.retention
    return KafkaSettings(
        bootstrap=kafka.bootstrap_servers or bootstrap,
        feed=feed_topic(feed),
        security=kafka_security(kafka, secrets, namespace) if kafka.bootstrap_servers else security,
        prefix=kafka.topic_prefix,
        partitions=kafka.partitions or (_PARTITIONS if kafka.bootstrap_servers else _EMBEDDED_PARTITIONS),
        replication=kafka.replication_factor,
        min_insync=kafka.min_insync_replicas,
        retention_live_ms=retention.live,
        retention_fast_ms=retention.fast,
        retention_closed_ms=retention.closed,
        retention_trades_ms=retention.trades,
        retention_signals_ms=retention.signals,
    )


def kafka_security(kafka: Kafka, secrets: str, namespace: str) -> KafkaSecurity:
    """How a feed's Kafka is entered: the paths of what its Secrets hold; see :func:`kafka_settings`."""

    def path(secret: str, key: str) -> str:
        return f"{secrets}/{secret}/{key}"

    of_secrets: dict[str, Any] = {"secrets": secrets, "namespace": namespace}
    if kafka.strimzi is not None:
        strimzi = kafka.strimzi
        return KafkaSecurity(
            tls=True,
            trusted=(path(cluster_ca(strimzi.cluster), "ca.crt"),),
            strimzi_user=f"{secrets}/{strimzi.user}" if strimzi.user else "",
            **of_secrets,
        )
    tls, login = kafka.tls, kafka.authentication
    if tls is None and login is None:
        return KafkaSecurity()
    own: dict[str, Any] = {}
    if login is not None and login.certificate_and_key is not None:
        pair = login.certificate_and_key
        own = {"certificate": path(pair.secret_name, pair.certificate), "key": path(pair.secret_name, pair.key)}
    elif login is not None and login.password_secret is not None:
        secret = login.password_secret
        own = {
            "mechanism": login.type.upper(),
            "username": login.username,
            "password": path(secret.secret_name, secret.password),
        }
    return KafkaSecurity(
        tls=tls is not None,
        trusted=tuple(path(one.secret_name, one.certificate) for one in tls.trusted_certificates) if tls else (),
        **own,
        **of_secrets,
    )
