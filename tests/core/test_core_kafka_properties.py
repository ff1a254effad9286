"""A Kafka client's properties are read as Java reads them, and what can't be used is named without being shown."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from chandlery.core.errors import InputError, InvariantError, LoginError
from chandlery.core.kafka_login import KafkaLogin, keep_current
from chandlery.core.kafka_properties import parse_jaas, parse_properties
from chandlery.core.settings import KafkaSecurity, KafkaSettings

JAAS = 'org.apache.kafka.common.security.scram.ScramLoginModule required username="{}" password="{}";'


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a=1\nb = 2\n  c: 3\nd 4\n", {"a": "1", "b": "2", "c": "3", "d": "4"}),
        ("# no\n! no\n\na=x # stays", {"a": "x # stays"}),
        ("a=one\\\n   two", {"a": "onetwo"}),
        ("a=end\\\\\nb=2", {"a": "end\\", "b": "2"}),
        (r"a=\u00e4\t\=\"", {"a": 'ä\t="'}),
        ("with\\:colon=1\nempty=\nbare", {"with:colon": "1", "empty": "", "bare": ""}),
    ],
)
def test_properties_are_read_as_java_reads_them(text: str, found: dict[str, str]) -> None:
    assert parse_properties(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (JAAS.format("a", "b"), ("a", "b")),
        (JAAS.format("a,b=c", "with space; and = sign"), ("a,b=c", "with space; and = sign")),
        (JAAS.format("a", r"quote\" and \\"), ("a", 'quote" and \\')),
        ("Module required username=bare password=word;", ("bare", "word")),
    ],
)
def test_a_login_line_gives_user_and_password(text: str, found: tuple[str, str]) -> None:
    assert parse_jaas(text) == found


def test_a_broken_login_line_is_not_shown() -> None:
    with pytest.raises(InputError) as wrong:
        parse_jaas('Module required username="a" pasword="secret";')
    assert "secret" not in str(wrong.value)


def _of(folder: Path, text: str) -> KafkaLogin:
    file = folder / "client.properties"
    file.write_text(text)
    return KafkaLogin(KafkaSecurity(properties=str(file)))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("security.protocol=TLS", "security.protocol"),
        ("security.protocol=SASL_SSL\nsasl.mechanism=OAUTHBEARER", "sasl.mechanism"),
        ("security.protocol=SASL_SSL\nsasl.mechanism=PLAIN", "sasl.jaas.config"),
        ("security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config=" + JAAS.format("a", "s3cret"), "clear"),
        ("security.protocol=SSL\nssl.truststore.location=x.jks", "JKS can't be read"),
        ("security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location=/no/where", "/no/where"),
        ("security.protocol=SSL\nssl.endpoint.identification.algorithm=", "host names are always verified"),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(LoginError) as wrong:
        _of(tmp_path, text).current()
    assert words in str(wrong.value)
    assert "client.properties" in str(wrong.value)
    assert "s3cret" not in str(wrong.value)


def test_certificates_may_stand_in_the_properties(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*words, "-subj", "/CN=x"], check=True, capture_output=True)
    pem, private = (file.read_text().replace("\n", "\\n") for file in (certificate, key))
    text = (
        f"security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.certificates={pem}\n"
        f"ssl.keystore.type=PEM\nssl.keystore.certificate.chain={pem}\nssl.keystore.key={private}\n"
    )
    credentials = _of(tmp_path, text).current()
    assert credentials.protocol == "SSL"
    assert credentials.context is not None
    assert credentials.context.check_hostname
    assert len(credentials.context.get_ca_certs()) == 1


def test_what_holds_a_password_has_no_text_form(tmp_path: Path) -> None:
    login = _of(tmp_path, "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config=" + JAAS.format("a", "s3cret"))  # fmt: skip
    credentials = login.current()
    assert credentials.password == "s3cret"
    assert "s3cret" not in repr(credentials) + str(credentials) + repr(login) + repr(vars(login))


def test_a_client_that_is_not_as_it_was_known_is_refused(tmp_path: Path) -> None:
    """It would else connect without TLS and login."""

    class Inner:
        pass

    class Changed:
        _client = Inner()

    kafka = KafkaSettings("k:1", "any", security=KafkaSecurity(tls=True))
    with pytest.raises(InvariantError):
        keep_current(Changed(), kafka)
    keep_current(Changed(), KafkaSettings("k:1", "any"))
