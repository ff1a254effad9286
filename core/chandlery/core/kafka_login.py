"""How a Kafka client gets in: certificates and password, read from files when a connection is made.

Settings hold paths only; what stands in the files goes from here into the client, and nowhere else: not into a log, a
status, an error, an argument or the environment. Files of Secrets are replaced while a process runs; a client that
:func:`kafka_client` made looks at them for every connection, so that a rotated Secret counts from the next one on and
nothing has to be restarted. No connection is made here.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from chandlery.core.errors import InputError, InvariantError, LoginError, UnavailableError
from chandlery.core.kafka_credentials import Credentials, new_context, of_properties, show, stores_of, trust
from chandlery.core.kafka_ending import abort
from chandlery.core.kafka_properties import parse_jaas
from chandlery.core.settings import KafkaSecurity, KafkaSettings

log = logging.getLogger("chandlery.kafka")

Client = TypeVar("Client")
Connection = TypeVar("Connection")


class KafkaProblem(msgspec.Struct, frozen=True):
    """Why Kafka can't be used, as statuses tell it. ``reason``: stable word, see docs/operations.md."""

    reason: str
    message: str


def problem_of(error: UnavailableError | None) -> KafkaProblem | None:
    """An error of Kafka's, for a status."""
    if error is None:
        return None
    return KafkaProblem(error.reason if isinstance(error, LoginError) else "KafkaUnreachable", str(error))


class _CantReadError(OSError):
    """A :class:`LoginError` as the client library takes it: a connection that could not be made, tried again."""


class KafkaLogin:
    """The credentials of one :class:`KafkaSecurity`, as they stand in its files now.

    Attributes:
        refused: why the last :func:`knock` did not get in; None: it did. While it is there no client tries: the broker
            logs each attempt, and may count them.
    """

    def __init__(self, security: KafkaSecurity) -> None:
        self._security = security
        self._seen: tuple[object, ...] | None = None
        self._current: Credentials | None = None
        self.refused: LoginError | None = None
        # At level debug it writes what it sends, and a login by PLAIN is the password itself.
        sender = logging.getLogger("aiokafka.conn")
        sender.setLevel(max(logging.INFO, sender.getEffectiveLevel()))

    def current(self) -> Credentials:
        """What to enter with.

        Files that can't be read any more change nothing for a process that has read them once: a Secret that is
        being replaced, or was deleted by mistake, shall not stop a market.

        Raises:
            LoginError: a file is missing, or holds what can't be used; names Secret and field.
        """
        seen = tuple(_state(path) for path in self._watched())
        if self._current is None or seen != self._seen:
            try:
                renewed = self._read()
            except LoginError as error:
                if self._current is None:
                    raise
                if seen != self._seen:
                    log.warning("going on with the credentials read before", extra={"problem": str(error)})
            else:
                if self._current is not None:
                    log.info("credentials read again")
                self._current = renewed
            self._seen = seen
        assert self._current is not None
        return self._current

    def connection(self) -> dict[str, Any]:
        """Arguments of aiokafka's connections.

        Raises:
            LoginError: see :meth:`current`.
        """
        now = self.current()
        return {
            "security_protocol": now.protocol,
            "ssl_context": now.context,
            "sasl_mechanism": now.mechanism or "PLAIN",
            "sasl_plain_username": now.username,
            "sasl_plain_password": now.password,
        }

    # Reading ------------------------------------------------------------------------------------------------

    def _watched(self) -> list[str]:
        security = self._security
        if security.strimzi_user:
            return [*security.trusted, *(f"{security.strimzi_user}/{key}" for key in STRIMZI_USER_KEYS)]
        if security.properties:
            return [security.properties, *stores_of(security.properties)]
        return [path for path in (*security.trusted, security.certificate, security.key, security.password) if path]

    def _read(self) -> Credentials:
        security = self._security
        if security.properties:
            return of_properties(security.properties)
        if security.strimzi_user:
            return self._of_strimzi_user()
        mechanism, password = security.mechanism, ""
        if mechanism:
            password = self._text(security.password, "authentication.passwordSecret")
        context = None
        if security.tls:
            own: tuple[bytes, ...] = ()
            if security.certificate:
                field = "authentication.certificateAndKey"
                own = (self._bytes(security.certificate, field), self._bytes(security.key, field))
            context = self._context(own, "authentication.certificateAndKey")
        return Credentials(context, mechanism, security.username, password)

    def _of_strimzi_user(self) -> Credentials:
        """Either kind of KafkaUser, by the keys that its Secret has."""
        folder, field = self._security.strimzi_user, "strimzi.user"
        if os.path.exists(f"{folder}/user.crt"):
            own = (self._bytes(f"{folder}/user.crt", field), self._bytes(f"{folder}/user.key", field))
            return Credentials(self._context(own, field))
        password = self._text(f"{folder}/password", field)
        username = Path(folder).name
        if os.path.exists(f"{folder}/sasl.jaas.config"):
            # The Secret may be called otherwise than the user (Strimzi's secretPrefix).
            try:
                username, password = parse_jaas(self._text(f"{folder}/sasl.jaas.config", field))
            except InputError as error:
                raise LoginError(f"{self._named(f'{folder}/sasl.jaas.config', field)}: {error}", reason="BadSecret") from error  # fmt: skip
        return Credentials(self._context((), field), "SCRAM-SHA-512", username, password)

    def _context(self, own: tuple[bytes, ...], field: str) -> ssl.SSLContext:
        trusted_field = "strimzi.cluster" if self._security.strimzi_user else "tls.trustedCertificates"
        trusted = [(path, self._bytes(path, trusted_field)) for path in self._security.trusted]
        context = new_context(not trusted)
        for path, pem in trusted:
            trust(context, pem, self._named(path, trusted_field))
        if own:
            file = (
                f"{self._security.strimzi_user}/user.crt" if self._security.strimzi_user else self._security.certificate
            )
            show(context, b"\n".join(own), "", self._named(file, field))
        return context

    def _bytes(self, path: str, field: str) -> bytes:
        if not self._security.secrets:
            raise LoginError(
                f"{self._named(path, field)}: no folder has the Secrets: give one, `chandlery up --secrets DIR`, with the "
                "file DIR/SECRET/KEY",
                reason="SecretMissing",
            )
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise LoginError(
                f"{self._named(path, field)}: it isn't there ({error.strerror}): "
                "make it, or name another; it is looked for again",
                reason="SecretMissing",
            ) from None
        if not content.strip():
            raise LoginError(f"{self._named(path, field)}: it is empty", reason="SecretMissing")
        return content

    def _text(self, path: str, field: str) -> str:
        try:
            return self._bytes(path, field).decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise LoginError(f"{self._named(path, field)}: it is no text (UTF-8)", reason="BadSecret") from None

    def _named(self, path: str, field: str) -> str:
        """A file as those know it who made it."""
        security, one = self._security, Path(path)
        namespace = f"{security.namespace}/" if security.namespace else ""
        return f"key {one.name} of Secret {namespace}{one.parent.name} (spec.kafka.{field})"

    # What went wrong ----------------------------------------------------------------------------------------

    def explain(self, error: BaseException, address: str) -> UnavailableError:
        """An error of a connection, in words that say what to mend."""
        found = {kind.__name__ for kind in type(error).__mro__}
        cause = error.__cause__
        tls = error if isinstance(error, ssl.SSLError) else cause
        # A broker that ends in the middle of a handshake, as one that is being restarted does, has refused nothing.
        if isinstance(tls, ssl.SSLError) and not isinstance(tls, _BROKEN_OFF):
            return self._explain_tls(tls, address)
        if "SaslAuthenticationFailed" in found:
            return LoginError(
                f"Kafka at {address} refuses the login of user {self._user()}: is {self._login_source()} right?",
                reason="KafkaUnauthorized",
            )
        if found & {
            "UnsupportedSaslMechanismError",
            "UnsupportedSaslMechanism",
            "IllegalSaslState",
            "IllegalSaslStateError",
        }:
            return LoginError(
                f"Kafka at {address} takes no login by {self._mechanism()} at this port: see its listeners ({error})",
                reason="KafkaUnauthorized",
            )
        if isinstance(error, ValueError) and str(error).startswith("Server "):  # SCRAM: it must prove itself too
            return LoginError(
                f"Kafka at {address} can't prove that it knows the password: it may be another's",
                reason="KafkaUntrusted",
            )
        said = str(error) or type(error).__name__
        return UnavailableError(f"Kafka at {address} doesn't answer: {said}{self._hint(error)}")

    def _hint(self, error: BaseException) -> str:
        """What a connection that came about, and then ended or stood still, may mean."""
        if isinstance(error, (ConnectionRefusedError, socket.gaierror)):
            return ""
        security = self._security
        if security.certificate or security.strimzi_user:
            listener = "the port may not be that of a TLS listener, or it doesn't take the client's certificate"
        elif security.tls or security.properties:
            listener = "the port may not be that of a TLS listener"
        else:
            listener = "the listener may want TLS or a login, which this client brings neither of"
        names = {kind.__name__ for one in (error, error.__cause__) for kind in type(one).__mro__}
        if not names & _STOOD_STILL:
            return f"; {listener}"
        # Taken, and then nothing: that says least of all.
        return f"; it may be overloaded or hang, something else may listen at this port, or {listener}"

    def _explain_tls(self, error: Any, address: str) -> UnavailableError:
        if isinstance(error, ssl.SSLCertVerificationError):
            return LoginError(
                f"the certificate of Kafka at {address} isn't good: {error.verify_message}; "
                f"trusted is {self._trusted_source()}",
                reason="KafkaUntrusted",
            )
        reason = str(getattr(error, "reason", "") or "")
        if "ALERT" in reason:
            return LoginError(
                f"Kafka at {address} refuses the client's certificate ({reason}): is {self._login_source()} signed by "
                "its clients' CA, and still valid?",
                reason="KafkaUnauthorized",
            )
        return LoginError(
            f"Kafka at {address} doesn't speak TLS at this port ({reason or error}): name its TLS listener, or leave out "
            "spec.kafka.tls",
            reason="KafkaUntrusted",
        )

    def _user(self) -> str:
        return (self._current.username if self._current is not None else "") or self._security.username

    def _mechanism(self) -> str:
        return (self._current.mechanism if self._current is not None else "") or "no mechanism"

    def _login_source(self) -> str:
        security = self._security
        if security.properties:
            return security.properties
        if security.strimzi_user:
            own = "user.crt" if self._current is not None and not self._current.mechanism else "password"
            return self._named(f"{security.strimzi_user}/{own}", "strimzi.user")
        if security.mechanism:
            return self._named(security.password, "authentication.passwordSecret")
        if security.certificate:
            return self._named(security.certificate, "authentication.certificateAndKey")
        return "spec.kafka.authentication, which names no certificate,"

    def _trusted_source(self) -> str:
        security = self._security
        if security.properties:
            return f"what {security.properties} names"
        if not security.trusted:
            return "what the machine's own CAs have signed (spec.kafka.tls.trustedCertificates names none)"
        field = "strimzi.cluster" if security.strimzi_user else "tls.trustedCertificates"
        return "what is signed by " + ", ".join(self._named(path, field) for path in security.trusted)


#: Of Python and the library: an answer that was waited for in vain.
_STOOD_STILL: Final = frozenset({"TimeoutError", "KafkaTimeoutError", "RequestTimedOutError"})
#: TLS errors that say no more than that the connection is gone.
_BROKEN_OFF: Final = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

#: Keys of the Secret of a Strimzi KafkaUser that are read; its PKCS #12 files hold the same again.
STRIMZI_USER_KEYS: Final = ("user.crt", "user.key", "password", "sasl.jaas.config")


@lru_cache(maxsize=64)
def login_of(security: KafkaSecurity) -> KafkaLogin:
    """The login of a process: every client that enters in the same way shares it."""
    return KafkaLogin(security)


def kafka_client(kind: Callable[..., Client], kafka: KafkaSettings, **options: Any) -> Client:
    """A client of aiokafka's: consumer, producer or admin client. Each of its connections reads the credentials anew.

    Args:
        kind: the class. options: its own, beside addresses and login.
    """
    client = kind(bootstrap_servers=kafka.bootstrap, **options)
    keep_current(client, kafka)
    return client


def keep_current(client: Any, kafka: KafkaSettings) -> None:
    """Have a client of aiokafka's, made by somebody else and not connected yet, read its credentials when it connects.

    Raises:
        InvariantError: the library isn't as it was known: it would connect without TLS and login.
    """
    security = kafka.security
    if security == KafkaSecurity():
        return
    inner = getattr(client, "_client", None) or getattr(client, "client", None)
    if inner is None or not all(f"_{name}" in vars(inner) for name in _LIVE):
        raise InvariantError(f"{type(client).__name__} has no login that could be kept current")
    kind: type[object] = type(inner)
    inner.__class__ = _current_kind(kind, login_of(security))


_LIVE: Final = ("security_protocol", "ssl_context", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password")


def _current_kind(kind: type[object], login: KafkaLogin) -> type[object]:
    """aiokafka's client reads these attributes whenever it connects; here they are what the files say then."""

    def live(name: str) -> property:
        def read(_: object) -> Any:
            try:
                if login.refused is not None:
                    raise login.refused
                return login.connection()[name]
            except LoginError as error:
                raise _CantReadError(str(error)) from error

        return property(read)

    async def close(self: Any) -> None:
        # Whoever ends a client has its answers, so nothing is lost.
        for connection in list(self._conns.values()):
            abort(connection)
        await kind.close(self)  # type: ignore[attr-defined]

    members = {f"_{name}": live(name) for name in _LIVE}
    return type(f"Current{kind.__name__}", (kind,), {**members, "close": close})


async def knock(create_connection: Callable[..., Awaitable[Connection]], kafka: KafkaSettings, **options: Any) -> Connection:  # fmt: skip
    """One connection to any of the brokers, logged in.

    Args:
        create_connection: aiokafka's ``create_conn``. options: its own, beside address and login.

    Raises:
        LoginError: Kafka isn't trusted, or doesn't let us in, or a Secret is missing.
        UnavailableError: no broker answers.
        InputError: an address is none.
    """
    login = login_of(kafka.security)
    problem: UnavailableError | None = None
    for host, port in addresses_of(kafka.bootstrap):
        try:
            connection = await create_connection(host, port, **login.connection(), **options)
        except LoginError as error:
            login.refused = error
            raise
        except Exception as error:  # noqa: BLE001 - whatever the library raises is explained
            found = login.explain(error, f"{host}:{port}")
            if problem is None or isinstance(found, LoginError):
                problem = found
        else:
            login.refused = None
            return connection
    assert problem is not None
    login.refused = problem if isinstance(problem, LoginError) else None
    raise problem


def addresses_of(bootstrap: str) -> list[tuple[str, int]]:
    """Hosts and ports of ``host:port,host:port``.

    Raises:
        InputError: one is no address.
    """
    found = []
    for entry in bootstrap.split(","):
        host, _, port = entry.strip().rpartition(":")
        if not host or not port.isdigit():
            raise InputError(f"kafka.bootstrap: {entry!r} is no address: write host:port")
        found.append((host.strip("[]"), int(port)))
    return found


def _state(path: str) -> tuple[int, ...]:
    """Changes whenever the file is replaced or written."""
    try:
        state = os.stat(path)
    except OSError:
        return ()
    return state.st_ino, state.st_mtime_ns, state.st_size
