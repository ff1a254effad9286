"""A real Kafka with logins: SASL_SSL (SCRAM, PLAIN) and SSL with client certificates, and Secrets to enter it by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)
from tests.support.certificates import Authority, Issued

from chandlery.core.settings import KafkaSecurity, KafkaSettings
from chandlery.stream.broker import EmbeddedBroker
from chandlery.stream.broker_ports import ephemeral_port

USER: Final = "my-user"
PASSWORD: Final = "correct-horse-battery-staple"
_ITERATIONS: Final = 4096
_MECHANISMS: Final = {"SCRAM-SHA-256": (1, "sha256"), "SCRAM-SHA-512": (2, "sha512")}


class _AlterScramResponse(Response):  # type: ignore[misc]
    API_KEY = 51
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "results",
            CompactArray(
                ("user", CompactString("utf-8")),
                ("error_code", Int16),
                ("error_message", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _AlterScramRequest_v0(RequestStruct):  # type: ignore[misc]
    API_KEY = 51
    API_VERSION = 0
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _AlterScramResponse
    SCHEMA = Schema(
        ("deletions", CompactArray(("name", CompactString("utf-8")), ("mechanism", Int8), ("tags", TaggedFields))),
        (
            "upsertions",
            CompactArray(
                ("name", CompactString("utf-8")),
                ("mechanism", Int8),
                ("iterations", Int32),
                ("salt", CompactBytes),
                ("salted_password", CompactBytes),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _AlterScramRequest(Request[_AlterScramRequest_v0]):  # type: ignore[misc]
    """Kafka's AlterUserScramCredentials, which aiokafka doesn't have."""

    API_KEY = 51

    def __init__(self, user: str, mechanism: int, salt: bytes, salted: bytes) -> None:
        self._upsertion: tuple[object, ...] = (user, mechanism, _ITERATIONS, salt, salted, {})

    def build(self, request_struct_class: type[_AlterScramRequest_v0]) -> _AlterScramRequest_v0:
        return request_struct_class([], [self._upsertion], {})


class SecuredBroker:
    """The broker, its authorities, and a folder of Secrets as a pod has them.

    Attributes:
        broker: its ``bootstrap`` is the plain listener, for the test's own looks.
        restart: :meth:`restarted`, from any thread. secrets: ``my-cluster-cluster-ca-cert`` and ``my-user`` in it, as Strimzi lays them out.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.restart: Callable[[], None] = lambda: None
        self.authority = Authority(folder / "ca", "brokers")
        self.clients = Authority(folder / "clients", "clients")
        self.secrets = folder / "secrets"
        self._store = folder / "server.pem"
        self.ports = {"SASL_SSL": ephemeral_port(), "SSL": ephemeral_port()}
        self.certify(self.authority.issue("server"))
        sasl, tls = "listener.name.sasl_ssl", "listener.name.ssl"
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
        settings = {
            f"{sasl}.sasl.enabled.mechanisms": "SCRAM-SHA-512,SCRAM-SHA-256,PLAIN",
            f"{sasl}.scram-sha-512.sasl.jaas.config": scram,
            f"{sasl}.scram-sha-256.sasl.jaas.config": scram,
            f"{sasl}.plain.sasl.jaas.config": plain,
            f"{tls}.ssl.client.auth": "required",
            f"{tls}.ssl.truststore.type": "PEM",
            f"{tls}.ssl.truststore.location": str(self.clients.certificate),
        }
        for listener in (sasl, tls):
            settings[f"{listener}.ssl.keystore.type"] = "PEM"
            settings[f"{listener}.ssl.keystore.location"] = str(self._store)
        self.broker = EmbeddedBroker(folder / "broker", listeners=self.ports, settings=settings)

    def certify(self, issued: Issued) -> None:
        """What the broker shows from its next start on."""
        self._store.write_bytes(issued.keystore().read_bytes())

    def address(self, listener: str) -> str:
        """``host:port`` of ``SASL_SSL`` or ``SSL``."""
        return f"127.0.0.1:{self.ports[listener]}"

    async def start(self) -> None:
        """Start, with :data:`USER` known by :data:`PASSWORD`, and its Secrets written."""
        await self.broker.start()
        for mechanism in _MECHANISMS:
            await self.set_password(PASSWORD, mechanism)
        self.secret(
            "my-cluster-cluster-ca-cert", {"ca.crt": self.authority.certificate.read_bytes(), "ca.password": b"x"}
        )
        self.user_secret(PASSWORD)

    async def restarted(self) -> None:
        """End it and start it again: every connection is cut."""
        await self.broker.stop()
        await self.broker.start()

    async def set_password(self, password: str, mechanism: str = "SCRAM-SHA-512", user: str = USER) -> None:
        """Make the user known by this password. Connections that there are, stay."""
        number, hashing = _MECHANISMS[mechanism]
        salt = os.urandom(16)
        salted = hashlib.pbkdf2_hmac(hashing, password.encode(), salt, _ITERATIONS)
        request = _AlterScramRequest(user, number, salt, salted)
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.bootstrap)
        await admin.start()
        try:
            node = admin._client.get_random_node()
            answer: Any = await admin._client.send(node, request)
        finally:
            await admin.close()
        assert [one[1] for one in answer.results] == [0], answer

    def secret(self, name: str, content: dict[str, bytes]) -> None:
        """Write a Secret as the kubelet does: each key replaced whole."""
        folder = self.secrets / name
        folder.mkdir(parents=True, exist_ok=True)
        for key, value in content.items():
            draft = folder / f".{key}.new"
            draft.write_bytes(value)
            draft.replace(folder / key)

    def user_secret(self, password: str) -> None:
        """The Secret of a KafkaUser of type scram-sha-512."""
        module = "org.apache.kafka.common.security.scram.ScramLoginModule"
        jaas = f'{module} required username="{USER}" password="{password}";'
        self.secret(USER, {"password": password.encode(), "sasl.jaas.config": jaas.encode()})

    def certificate_secret(self, name: str, issued: Issued) -> None:
        """The Secret of a KafkaUser of type tls; its ``ca.crt`` is the clients' CA."""
        self.secret(
            name,
            {
                "ca.crt": self.clients.certificate.read_bytes(),
                "user.crt": issued.certificate.read_bytes(),
                "user.key": issued.key.read_bytes(),
                "user.p12": b"not read",
                "user.password": b"not read",
            },
        )

    def kafka(self, listener: str, feed: str, **security: Any) -> KafkaSettings:
        """Settings of a client; ``security``: fields, laid over TLS by the cluster's CA."""
        known: dict[str, Any] = {
            "tls": True,
            "trusted": (f"{self.secrets}/my-cluster-cluster-ca-cert/ca.crt",),
            "secrets": str(self.secrets),
            "namespace": "desk",
        }
        return KafkaSettings(
            self.address(listener), feed, security=KafkaSecurity(**{**known, **security}), partitions=1
        )

    def scram(self, feed: str, **security: Any) -> KafkaSettings:
        """Settings of a client that logs in as :data:`USER`, over SASL_SSL."""
        login = {"mechanism": "SCRAM-SHA-512", "username": USER, "password": f"{self.secrets}/{USER}/password"}
        return self.kafka("SASL_SSL", feed, **{**login, **security})
