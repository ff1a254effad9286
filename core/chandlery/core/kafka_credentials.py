"""What a connection to Kafka needs, made of certificates, passwords and a Kafka client's properties.

Errors name what was read and never show what stands in it.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from chandlery.core.errors import InputError, LoginError
from chandlery.core.kafka_properties import parse_jaas, parse_properties
from chandlery.core.settings import Mechanism

_PROTOCOLS: Final = {(False, False): "PLAINTEXT", (True, False): "SSL", (False, True): "SASL_PLAINTEXT", (True, True): "SASL_SSL"}  # fmt: skip
_MECHANISMS: Final[tuple[Mechanism, ...]] = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_STORES: Final = ("ssl.truststore", "ssl.keystore")


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """What a connection needs. Has no text form: it holds a password."""

    context: ssl.SSLContext | None = None
    mechanism: Mechanism = ""
    username: str = ""
    password: str = ""

    @property
    def protocol(self) -> str:
        """Kafka's ``security.protocol``."""
        return _PROTOCOLS[self.context is not None, bool(self.mechanism)]


def new_context(of_machine: bool) -> ssl.SSLContext:
    """A context of a client that verifies the broker's certificate and its host name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if of_machine:
        context.load_default_certs()
    return context


def trust(context: ssl.SSLContext, pem: bytes, named: str) -> None:
    """Have the client trust what these CAs have signed; ``named``: where they were read, for the error.

    Raises:
        LoginError: there is no certificate in it.
    """
    try:
        context.load_verify_locations(cadata=pem.decode("ascii", "replace"))
    except (ssl.SSLError, ValueError):
        raise LoginError(f"{named}: it holds no certificates in PEM", reason="BadSecret") from None


def show(context: ssl.SSLContext, pem: bytes, password: str, named: str) -> None:
    """Have the client show a certificate.

    Args:
        pem: its chain and its key. password: of the key; empty: none. named: where they were read, for the error.

    Raises:
        LoginError: they can't be used together.
    """
    # ssl takes them from files only; this one is in memory, and nobody else's.
    descriptor = os.memfd_create("chandlery-certificate")
    try:
        os.write(descriptor, pem)
        # Without an answer of ours OpenSSL would ask the terminal for an encrypted key's password.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password=lambda: password)
    except (ssl.SSLError, ValueError):
        raise LoginError(
            f"{named}: certificate and key don't belong together, or aren't PEM, or the key is encrypted",
            reason="BadSecret",
        ) from None
    finally:
        os.close(descriptor)


def _properties(path: str) -> dict[str, str]:
    try:
        return parse_properties(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise LoginError(
            f"{path}: can't be read: {getattr(error, 'strerror', 'no text')}", reason="SecretMissing"
        ) from None


def stores_of(path: str) -> list[str]:
    """Files that a client's properties name; none where they can't be read."""
    try:
        properties = _properties(path)
    except LoginError:
        return []
    return [properties[f"{store}.location"] for store in _STORES if f"{store}.location" in properties]


def of_properties(path: str) -> Credentials:
    """What a Kafka client's properties say.

    Raises:
        LoginError: they can't be used; names the property.
    """
    given = _properties(path)

    def wrong(name: str, what: str) -> LoginError:
        return LoginError(f"{path}: {name}: {what}", reason="BadSecret")

    protocol = given.get("security.protocol", "PLAINTEXT").upper()
    if protocol not in _PROTOCOLS.values():
        raise wrong("security.protocol", f"{protocol!r} isn't one of {', '.join(_PROTOCOLS.values())}")
    context = None
    if protocol.endswith("SSL"):
        if given.get("ssl.endpoint.identification.algorithm", "https").lower() != "https":
            raise wrong("ssl.endpoint.identification.algorithm", "host names are always verified; leave it out")
        trusted = _pem_of(given, "ssl.truststore", ("ssl.truststore.certificates",), wrong)
        own = _pem_of(given, "ssl.keystore", ("ssl.keystore.certificate.chain", "ssl.keystore.key"), wrong)
        context = new_context(not trusted)
        if trusted:
            trust(context, trusted, f"{path}: ssl.truststore")
        if own:
            show(context, own, given.get("ssl.key.password", ""), f"{path}: ssl.keystore")
    if not protocol.startswith("SASL"):
        return Credentials(context)
    mechanism = next((one for one in _MECHANISMS if one == given.get("sasl.mechanism", "").upper()), None)
    if mechanism is None:
        raise wrong("sasl.mechanism", f"write one of {', '.join(_MECHANISMS)}")
    if mechanism == "PLAIN" and context is None:
        raise wrong("security.protocol", "PLAIN without TLS would send the password in the clear")
    try:
        username, password = parse_jaas(given.get("sasl.jaas.config", ""))
    except InputError as error:
        raise LoginError(f"{path}: {error}", reason="BadSecret") from None
    return Credentials(context, mechanism, username, password)


def _pem_of(
    given: dict[str, str], store: str, inline: tuple[str, ...], wrong: Callable[[str, str], LoginError]
) -> bytes:
    """Certificates of a store: its file, or written into the properties; empty: none."""
    written = [given[name] for name in inline if name in given]
    location = given.get(f"{store}.location", "")
    if not written and not location:
        return b""
    kind = given.get(f"{store}.type", "PEM" if written else "JKS").upper()
    if kind != "PEM":
        raise wrong(
            f"{store}.type", f"{kind} can't be read, only PEM: `openssl pkcs12 -in STORE -nodes` makes it of one"
        )
    if written:
        return "\n".join(written).encode()
    try:
        return Path(location).read_bytes()
    except OSError as error:
        raise wrong(f"{store}.location", f"{location}: {error.strerror}") from None
