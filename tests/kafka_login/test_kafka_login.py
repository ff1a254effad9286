"""Clients get in by every kind of login, read it anew at each connection, and say what to mend when they don't."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from tests.kafka_login.secured_broker import PASSWORD, USER, SecuredBroker
from tests.support.certificates import Authority

from chandlery.core.errors import LoginError, UnavailableError
from chandlery.core.kafka_login import kafka_client, login_of
from chandlery.core.settings import KafkaSecurity, KafkaSettings
from chandlery.core.topics import topics_of
from chandlery.stream.topics import check_login, end_offsets, ensure_topics
from chandlery.workers.feed.clients import stop_quickly

pytestmark = pytest.mark.broker


def _mtls(secured: SecuredBroker, feed: str, user: str) -> KafkaSettings:
    folder = f"{secured.secrets}/{user}"
    return secured.kafka("SSL", feed, certificate=f"{folder}/user.crt", key=f"{folder}/user.key")


def _properties(secured: SecuredBroker, feed: str, tmp_path: Path) -> KafkaSettings:
    file = tmp_path / "client.properties"
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    file.write_text(
        "# as Kafka's own tools read it\nsecurity.protocol = SASL_SSL\nsasl.mechanism=PLAIN\n"
        f'sasl.jaas.config={module} required \\\n  username="{USER}" \\\n  password="{PASSWORD}";\n'
        f"ssl.truststore.type=PEM\nssl.truststore.location={secured.authority.certificate}\n"
    )
    security = KafkaSecurity(properties=str(file))
    return KafkaSettings(secured.address("SASL_SSL"), feed, security=security, partitions=1)


async def _goes_round(kafka: KafkaSettings) -> None:
    """Topics are made, a record is appended and read again: admin, producer and consumer."""
    await ensure_topics(kafka)
    topic = topics_of(kafka).trades
    producer = kafka_client(AIOKafkaProducer, kafka)
    await producer.start()
    try:
        await producer.send_and_wait(topic, b"here")
    finally:
        await producer.stop()
    assert await end_offsets(kafka, topic) == {0: 1}
    consumer = kafka_client(AIOKafkaConsumer, kafka, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        assert (await asyncio.wait_for(consumer.getone(), 30)).value == b"here"
    finally:
        await consumer.stop()


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"])
async def test_a_password_gets_in_and_is_logged_at_no_level(
    secured: SecuredBroker, feed: str, mechanism: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="aiokafka")  # feeds of other tests silence it
    logging.getLogger("aiokafka.conn").setLevel(logging.NOTSET)
    login_of.cache_clear()
    await _goes_round(secured.scram(feed, mechanism=mechanism))
    assert "aiokafka" in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_certificate_gets_in(secured: SecuredBroker, feed: str) -> None:
    secured.certificate_secret("with-certificate", secured.clients.issue("with-certificate"))
    await _goes_round(_mtls(secured, feed, "with-certificate"))


async def test_secrets_of_strimzis_users_are_read_as_they_are(secured: SecuredBroker, feed: str) -> None:
    secured.certificate_secret("tls-user", secured.clients.issue("tls-user"))
    await _goes_round(secured.kafka("SSL", f"{feed}-tls", strimzi_user=f"{secured.secrets}/tls-user"))
    await _goes_round(secured.kafka("SASL_SSL", f"{feed}-scram", strimzi_user=f"{secured.secrets}/{USER}"))
    # With Strimzi's secretPrefix the Secret is called otherwise than the user.
    content = {key: (secured.secrets / USER / key).read_bytes() for key in ("password", "sasl.jaas.config")}
    secured.secret("prefix-my-user", content)
    await _goes_round(secured.kafka("SASL_SSL", f"{feed}-prefix", strimzi_user=f"{secured.secrets}/prefix-my-user"))


async def test_a_clients_properties_get_in(secured: SecuredBroker, feed: str, tmp_path: Path) -> None:
    await _goes_round(_properties(secured, feed, tmp_path))


def _password_beside_certificate(secured: SecuredBroker, user: str) -> KafkaSecurity:
    secured.certificate_secret(user, secured.clients.issue(user))
    folder = f"{secured.secrets}/{user}"
    own = {"certificate": f"{folder}/user.crt", "key": f"{folder}/user.key"}
    return msgspec.structs.replace(secured.scram("any").security, **own)


def _refusals(secured: SecuredBroker, feed: str) -> dict[str, tuple[KafkaSettings, str, list[str]]]:
    other = Authority(secured.folder / f"other-{feed}", "another")
    secured.secret("other-ca", {"ca.crt": other.certificate.read_bytes(), "text": b"no certificate"})
    secured.secret("wrong", {"password": b"not-it", "empty": b"\n"})
    secured.certificate_secret("stranger", other.issue("stranger"))
    secured.certificate_secret("expired", secured.clients.issue("expired", days=-1))
    folder = str(secured.secrets)
    return {
        "wrong password": (
            secured.scram(feed, password=f"{folder}/wrong/password"),
            "KafkaUnauthorized",
            [USER, "key password of Secret desk/wrong", "spec.kafka.authentication.passwordSecret"],
        ),
        "unknown user": (secured.scram(feed, username="nobody"), "KafkaUnauthorized", ["nobody"]),
        "no logins by password there": (
            msgspec.structs.replace(
                _mtls(secured, feed, USER), security=_password_beside_certificate(secured, "with-both")
            ),
            "KafkaUnauthorized",
            ["SCRAM-SHA-512", "see its listeners"],
        ),
        "unknown CA": (
            secured.scram(feed, trusted=(f"{folder}/other-ca/ca.crt",)),
            "KafkaUntrusted",
            ["key ca.crt of Secret desk/other-ca", "spec.kafka.tls.trustedCertificates"],
        ),
        "the system's CAs": (secured.scram(feed, trusted=()), "KafkaUntrusted", ["names none"]),
        "a stranger's certificate": (_mtls(secured, feed, "stranger"), "KafkaUnauthorized", ["Secret desk/stranger"]),
        "an expired certificate": (_mtls(secured, feed, "expired"), "KafkaUnauthorized", ["Secret desk/expired"]),
        "no certificate": (secured.kafka("SSL", feed), "KafkaUnauthorized", ["spec.kafka.authentication"]),
        "no Secret": (
            secured.scram(feed, password=f"{folder}/nowhere/password"),
            "SecretMissing",
            ["key password of Secret desk/nowhere", "spec.kafka.authentication.passwordSecret"],
        ),
        "an empty key": (secured.scram(feed, password=f"{folder}/wrong/empty"), "SecretMissing", ["empty"]),
        "no Secret of a KafkaUser": (
            secured.kafka("SASL_SSL", feed, strimzi_user=f"{folder}/nobody"),
            "SecretMissing",
            ["Secret desk/nobody", "spec.kafka.strimzi.user"],
        ),
        "no PEM": (secured.scram(feed, trusted=(f"{folder}/other-ca/text",)), "BadSecret", ["no certificates in PEM"]),
        "a key of another certificate": (
            secured.kafka("SSL", feed, certificate=f"{folder}/stranger/user.crt", key=f"{folder}/expired/user.key"),
            "BadSecret",
            ["don't belong together"],
        ),
    }


async def test_each_refusal_says_what_to_mend(secured: SecuredBroker, feed: str) -> None:
    for case, (kafka, reason, words) in _refusals(secured, feed).items():
        with pytest.raises(LoginError) as refused:
            await check_login(kafka)
        said = str(refused.value)
        assert refused.value.reason == reason, (case, said)
        assert all(word in said for word in words), (case, said)
        assert "\n" not in said, case
        assert PASSWORD not in said, case
        assert "not-it" not in said, case


async def test_a_listener_of_another_kind_is_told_as_one_that_does_not_answer(
    secured: SecuredBroker, feed: str
) -> None:
    """It may as well be a broker that is just ending: nothing says which, so the message has both."""
    there = msgspec.structs.replace(secured.scram(feed), bootstrap=secured.broker.bootstrap)
    with pytest.raises(UnavailableError, match="may not be that of a TLS listener"):
        await check_login(there)
    plain = KafkaSettings(secured.address("SASL_SSL"), feed)
    with pytest.raises(UnavailableError, match="TLS or a login"):
        await check_login(plain)


@pytest.mark.parametrize(
    ("issued", "words"), [({"days": -1}, "expired"), ({"hosts": "DNS:kafka.example"}, "127.0.0.1")]
)
async def test_a_broker_with_a_certificate_of_the_past_or_of_another_host_is_not_trusted(
    secured: SecuredBroker, feed: str, issued: dict[str, Any], words: str
) -> None:
    """By a TLS server of our own: Kafka itself refuses to start with the first."""
    made = secured.authority.issue(f"server-{feed}", **issued)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server:
        with pytest.raises(LoginError, match=words) as refused:
            await check_login(msgspec.structs.replace(secured.scram(feed), bootstrap=f"127.0.0.1:{port}"))
    assert refused.value.reason == "KafkaUntrusted"


async def test_a_changed_password_counts_from_the_next_connection_on(secured: SecuredBroker, feed: str) -> None:
    """The clients stay; their connections are cut, and the old password isn't good any more."""
    user = f"rotated-{feed}"
    await secured.set_password("before", user=user)
    secured.secret(user, {"password": b"before"})
    kafka = secured.scram(feed, username=user, password=f"{secured.secrets}/{user}/password")
    await ensure_topics(kafka)
    topic = topics_of(kafka).trades
    producer: Any = kafka_client(AIOKafkaProducer, kafka, enable_idempotence=True)
    consumer: Any = kafka_client(AIOKafkaConsumer, kafka, auto_offset_reset="earliest")
    await producer.start()
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        await producer.send_and_wait(topic, b"0")
        await secured.set_password("after", user=user)
        await producer.send_and_wait(topic, b"1")  # a connection that there is, stays
        for client in (producer.client, consumer._client):
            for connection in list(client._conns.values()):
                connection.close()
        waiting = asyncio.create_task(producer.send_and_wait(topic, b"2"))
        secured.secret(user, {"password": b"after"})
        await asyncio.wait_for(waiting, 30)
        values = [(await asyncio.wait_for(consumer.getone(), 30)).value for _ in range(3)]
    finally:
        await stop_quickly(producer)  # one that never gets in again would flush for ever
        await consumer.stop()
    assert values == [b"0", b"1", b"2"]


async def test_a_renewed_certificate_is_shown_from_the_next_connection_on(secured: SecuredBroker, feed: str) -> None:
    user = f"renewed-{feed}"
    secured.certificate_secret(user, secured.clients.issue(user))
    kafka = _mtls(secured, feed, user)
    await check_login(kafka)
    stranger = Authority(secured.folder / f"stranger-{feed}", "stranger")
    secured.certificate_secret(user, stranger.issue(user))
    with pytest.raises(LoginError):
        await check_login(kafka)
    secured.certificate_secret(user, secured.clients.issue(user))
    await check_login(kafka)


async def test_a_deleted_secret_changes_nothing_for_who_has_read_it(secured: SecuredBroker, feed: str) -> None:
    secured.secret(f"gone-{feed}", {"password": PASSWORD.encode()})
    kafka = secured.scram(feed, password=f"{secured.secrets}/gone-{feed}/password")
    await check_login(kafka)
    (secured.secrets / f"gone-{feed}" / "password").unlink()
    await check_login(kafka)


async def test_clients_over_tls_end_though_a_request_is_on_its_way(secured: SecuredBroker, feed: str) -> None:
    """On uvloop, as services run: its TLS connections that are closed just then wait for their end for 30 s."""
    kafka = secured.scram(feed)
    await ensure_topics(kafka)
    topic = topics_of(kafka).trades
    ended: list[int] = []

    async def end_some() -> None:
        producer = kafka_client(AIOKafkaProducer, kafka)
        await producer.start()
        for _ in range(16):
            await producer.send_and_wait(topic, b"here")
        await producer.stop()
        for turn in range(20):
            consumer = kafka_client(AIOKafkaConsumer, kafka, fetch_max_wait_ms=100)
            await consumer.start()
            consumer.assign([TopicPartition(topic, 0)])
            consumer.seek(TopicPartition(topic, 0), 0)
            await consumer.getmany(timeout_ms=10_000)  # and the next fetch begins
            await asyncio.sleep(0)
            # A third of what the loop would wait for, and 100 times what it takes.
            await asyncio.wait_for(consumer.stop(), 10)
            ended.append(turn)

    await asyncio.to_thread(uvloop.run, end_some())
    assert ended == list(range(20))
