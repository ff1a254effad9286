"""What the login makes of an error of a connection, without a broker."""

from __future__ import annotations

import ssl

import pytest

from chandlery.core.errors import LoginError, UnavailableError
from chandlery.core.kafka_login import KafkaLogin
from chandlery.core.settings import KafkaSecurity


@pytest.mark.parametrize("kind", [ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError])
def test_a_broker_that_ends_in_the_middle_of_a_handshake_is_away_and_refuses_nobody(kind: type[ssl.SSLError]) -> None:
    login = KafkaLogin(KafkaSecurity(tls=True))
    wrapped = ConnectionError("closed")
    wrapped.__cause__ = kind(8, "EOF occurred in violation of protocol")
    for error in (kind(8, "EOF occurred in violation of protocol"), wrapped):
        found = login.explain(error, "kafka:9093")
        assert isinstance(found, UnavailableError)
        assert not isinstance(found, LoginError)
        assert "kafka:9093 doesn't answer" in str(found)


def test_what_is_no_tls_and_what_is_not_trusted_is_no_matter_of_waiting() -> None:
    login = KafkaLogin(KafkaSecurity(tls=True))
    plain = login.explain(ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "kafka:9092")
    assert isinstance(plain, LoginError)
    unknown = ssl.SSLCertVerificationError(1, "certificate verify failed")
    unknown.verify_message = "self-signed certificate"
    assert isinstance(login.explain(unknown, "kafka:9093"), LoginError)


@pytest.mark.parametrize(
    "security", [KafkaSecurity(), KafkaSecurity(tls=True), KafkaSecurity(tls=True, certificate="/c")]
)
def test_one_that_takes_a_connection_and_says_nothing_may_hang_and_a_matter_of_tls_is_but_one_cause(
    security: KafkaSecurity,
) -> None:
    wrapped = Exception("the library's")
    wrapped.__cause__ = TimeoutError()
    for error in (TimeoutError(), wrapped):
        said = str(KafkaLogin(security).explain(error, "kafka:9093"))
        before, _, listener = said.partition(
            "; it may be overloaded or hang, something else may listen at this port, or "
        )
        assert before.startswith("Kafka at kafka:9093 doesn't answer: ")
        assert "TLS" in listener
    cut = str(KafkaLogin(security).explain(ConnectionResetError("cut"), "kafka:9093"))
    assert "hang" not in cut
    assert "TLS" in cut
    refused = str(KafkaLogin(security).explain(ConnectionRefusedError("refused"), "kafka:9093"))
    assert refused.endswith("doesn't answer: refused")
