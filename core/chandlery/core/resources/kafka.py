"""A MarketFeed's Kafka: where it is, how it is entered, and the form of its topics.

Words and shapes of TLS and login are those of Strimzi's own clients (KafkaConnect, KafkaBridge): a block that works
there works here.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field, model_validator

from chandlery.core.resources.base import Count, Spec, sentence
from chandlery.core.resources.rules import rule, rules

SecretName = Annotated[
    str,
    Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
]
SecretKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-_a-zA-Z0-9][-._a-zA-Z0-9]*$")]


class CertificateSecret(Spec):
    """Certificates in a Secret."""

    secret_name: SecretName = Field(description="Name of the Secret, such as my-cluster-cluster-ca-cert.")
    certificate: SecretKey = Field(default="ca.crt", description="Its key: one or several certificates in PEM.")


class ClientTls(Spec):
    """TLS to Kafka. The broker's certificate and its host name are always verified."""

    trusted_certificates: Annotated[list[CertificateSecret], Field(max_length=16)] = Field(
        default=[],
        description="CAs that may have signed the brokers' certificates; none: those that the image's system trusts.",
    )


class PasswordSecret(Spec):
    """A password in a Secret."""

    secret_name: SecretName = Field(description="Name of the Secret; of a Strimzi KafkaUser: the user's own.")
    password: SecretKey = Field(default="password", description="Its key.")


class CertificateAndKeySecret(Spec):
    """A client's certificate and its key in a Secret."""

    secret_name: SecretName = Field(description="Name of the Secret; of a Strimzi KafkaUser: the user's own.")
    certificate: SecretKey = Field(default="user.crt", description="Key of the certificate, PEM.")
    key: SecretKey = Field(default="user.key", description="Key of the private key, PEM, not encrypted.")


class ClientAuthentication(Spec):
    """How the processes of the feed and of its pools log in to Kafka."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.type == 'tls' || (has(self.username) && has(self.passwordSecret))",
                "a login by password needs username and passwordSecret",
                field="passwordSecret",
            ),
            rule(
                "self.type != 'tls' || has(self.certificateAndKey)",
                "type: tls needs certificateAndKey",
                field="certificateAndKey",
            ),
            rule(
                "self.type != 'tls' || !(has(self.username) || has(self.passwordSecret))",
                "type: tls logs in by certificate: leave out username and passwordSecret",
                field="type",
            ),
            rule(
                "self.type == 'tls' || !has(self.certificateAndKey)",
                "certificateAndKey has no meaning without type: tls",
                field="certificateAndKey",
            ),
        )
    )

    type: Literal["scram-sha-512", "scram-sha-256", "plain", "tls"] = Field(
        description="scram-sha-512, scram-sha-256 or plain: username and password. tls: a certificate of one's own."
    )
    username: Annotated[str, Field(min_length=1, max_length=255)] | None = Field(
        default=None, description="Name of the user."
    )
    password_secret: PasswordSecret | None = Field(
        default=None, description="Where the password is. The Secret must be in the namespace of whoever uses it."
    )
    certificate_and_key: CertificateAndKeySecret | None = Field(
        default=None, description="With type: tls: the certificate and its key."
    )

    @model_validator(mode="after")
    def _whole(self) -> ClientAuthentication:
        if self.type == "tls":
            if self.certificate_and_key is None:
                raise sentence("type: tls needs certificateAndKey")
            if self.username is not None or self.password_secret is not None:
                raise sentence("type: tls logs in by certificate: leave out username and passwordSecret")
            return self
        if self.username is None or self.password_secret is None:
            raise sentence(f"type: {self.type} needs username and passwordSecret")
        if self.certificate_and_key is not None:
            raise sentence("certificateAndKey has no meaning without type: tls")
        return self


class StrimziAccess(Spec):
    """A cluster of Strimzi's, its Secrets read as they are: a short form of tls and authentication."""

    cluster: Annotated[SecretName, Field(max_length=236)] = Field(
        description="Name of the Kafka resource: its CA is in Secret {cluster}-cluster-ca-cert."
    )
    user: SecretName | None = Field(
        default=None,
        description="Name of a KafkaUser, of type tls or scram-sha-512: its Secret has the same name. Absent: no login.",
    )


def cluster_ca(cluster: str) -> str:
    """Secret in which Strimzi keeps the certificates of a cluster's CA."""
    return f"{cluster}-cluster-ca-cert"


# For the rule on partitions: where the topics are, and in how many partitions, also where the feed doesn't say.
_SERVERS: Final = "(has({0}.bootstrapServers) ? {0}.bootstrapServers : '')"
_PARTITIONS: Final = "(has({0}.partitions) ? {0}.partitions : has({0}.bootstrapServers) ? 4 : 1)"


class Kafka(Spec):
    """The feed's Kafka and how its topics are made. Pools inherit it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.minInsyncReplicas <= self.replicationFactor",
                "minInsyncReplicas is above replicationFactor: nothing could be written; lower it, or raise the other",
                field="minInsyncReplicas",
            ),
            rule(
                f"{_SERVERS.format('self')} != {_SERVERS.format('oldSelf')} || self.topicPrefix != oldSelf.topicPrefix || "
                f"{_PARTITIONS.format('self')} == {_PARTITIONS.format('oldSelf')}",
                "partitions can't be changed: which one a symbol lives in would change with them, and its candles would "
                "be torn in two; give another topicPrefix, or make a new MarketFeed",
                field="partitions",
            ),
            rule(
                "!has(self.strimzi) || !(has(self.tls) || has(self.authentication))",
                "strimzi says it all: leave out tls and authentication, or write them instead",
                field="strimzi",
            ),
            rule(
                "has(self.bootstrapServers) || !(has(self.strimzi) || has(self.tls) || has(self.authentication))",
                "tls, authentication and strimzi need bootstrapServers: no login is sent to a Kafka that isn't named",
                field="bootstrapServers",
            ),
            rule(
                "!has(self.authentication) || has(self.tls) || !(self.authentication.type in ['tls', 'plain'])",
                "needs tls: a certificate is shown over TLS only, and plain would send the password in the clear",
                field="authentication",
            ),
        )
    )

    bootstrap_servers: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="host:port, several with commas. Absent: the operator's (the chart's kafka.bootstrapServers or "
        "kafka.embedded; without either: NoKafka), or that of `chandlery up` (its --kafka, or the one it starts).",
    )
    tls: ClientTls | None = Field(
        default=None, description="Encrypt, and verify the brokers; {} trusts the CAs of the system. Absent: no TLS."
    )
    authentication: ClientAuthentication | None = Field(default=None, description="How to log in; absent: not at all.")
    strimzi: StrimziAccess | None = Field(
        default=None, description="Instead of tls and authentication: a cluster and a KafkaUser of Strimzi's."
    )
    topic_prefix: Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z0-9._-]*$")] = Field(
        default="chandlery.", description="Topics are named {topicPrefix}{feed}.trades and so on."
    )
    partitions: Annotated[Count, Field(ge=1, le=1024)] | None = Field(
        default=None,
        description="Partitions of every topic, for as many aggregators; can't be changed later. "
        "Absent: 4, or 1 where bootstrapServers is absent.",
    )
    replication_factor: Annotated[Count, Field(ge=1, le=9)] = Field(
        default=1, description="Copies of every partition, at most the number of brokers."
    )
    min_insync_replicas: Annotated[Count, Field(ge=1, le=9)] = Field(
        default=1, description="Copies that must have a record before it counts as written."
    )

    def secrets(self) -> list[str]:
        """Names of the Secrets that whoever enters this Kafka mounts, in order."""
        named: set[str] = set()
        if self.strimzi is not None:
            named |= {cluster_ca(self.strimzi.cluster), *([self.strimzi.user] if self.strimzi.user else [])}
        if self.tls is not None:
            named |= {one.secret_name for one in self.tls.trusted_certificates}
        if self.authentication is not None:
            login = self.authentication
            named |= {one.secret_name for one in (login.password_secret, login.certificate_and_key) if one is not None}
        return sorted(named)

    @model_validator(mode="after")
    def _writable(self) -> Kafka:
        if self.min_insync_replicas > self.replication_factor:
            raise sentence(
                f"minInsyncReplicas {self.min_insync_replicas} is above replicationFactor "
                f"{self.replication_factor}: nothing could be written"
            )
        return self

    @model_validator(mode="after")
    def _entered_in_one_way(self) -> Kafka:
        secured = [name for name in ("tls", "authentication", "strimzi") if getattr(self, name) is not None]
        if self.strimzi is not None and len(secured) > 1:
            raise sentence("strimzi says it all: leave out tls and authentication, or write them instead")
        if secured and self.bootstrap_servers is None:
            raise sentence(f"{secured[0]} needs bootstrapServers: no login is sent to a Kafka that isn't named")
        login = self.authentication
        if login is not None and self.tls is None and login.type in ("tls", "plain"):
            raise sentence(
                f"authentication of type {login.type} needs tls: a certificate is shown over TLS only, and plain would "
                "send the password in the clear"
            )
        return self
