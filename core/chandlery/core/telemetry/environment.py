"""Where traces go: the settings, and for what they leave open OpenTelemetry's own environment variables.

The one place where Chandlery reads its environment: https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and
…/configuration/sdk-environment-variables/. Headers (which may hold a token) and certificates have no setting on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple, get_args
from urllib.parse import unquote, urlsplit

from chandlery.core.errors import InputError
from chandlery.core.settings import TelemetrySettings

Protocol = Literal["http/protobuf", "grpc"]
_PROTOCOLS: Final[tuple[Protocol, ...]] = get_args(Protocol)
#: What the specification gives an export, ms.
_TIMEOUT_MS: Final = 10_000.0


class TraceExport(NamedTuple):
    """Where and how traces are sent.

    Attributes:
        endpoint: URL that is posted to (``http/protobuf``), or ``http(s)://host:port`` (``grpc``).
        headers: sent with each request, names in lower case. timeout_s: of one request.
        certificate, client_certificate, client_key: PEM files; empty: the system's authorities, no client's.
        signal_share, tick_share: 0 … 1, which part of signals and of ordinary ticks is traced.
        resource: of every span, beside what Chandlery knows.
    """

    endpoint: str
    protocol: Protocol
    headers: dict[str, str]
    timeout_s: float
    gzip: bool
    certificate: str
    client_certificate: str
    client_key: str
    signal_share: float
    tick_share: float
    resource: dict[str, str]


def trace_export(settings: TelemetrySettings, environment: Mapping[str, str]) -> TraceExport | None:
    """Where traces go; None: nowhere.

    Raises:
        InputError: a setting or a variable isn't what it should be; names it.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None

    def of_traces(name: str, default: str = "") -> str:
        return environment.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or environment.get(
            f"OTEL_EXPORTER_OTLP_{name}", default
        )

    whole = "" if settings.otlp_endpoint else environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    given = whole or settings.otlp_endpoint or environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if not given:
        return None
    said = settings.otlp_protocol or of_traces("PROTOCOL", "http/protobuf")
    protocol = next((known for known in _PROTOCOLS if known == said), None)
    if protocol is None:
        raise InputError(f"OTLP protocol {said!r}: write http/protobuf or grpc")
    return TraceExport(
        # Only a variable for traces alone is taken as it is; every other address gets OTLP's path.
        endpoint=_endpoint(given, is_whole=bool(whole) or protocol == "grpc"),
        protocol=protocol,
        headers={name.lower(): value for name, value in _pairs(of_traces("HEADERS"), "OTLP headers").items()},
        timeout_s=_number(of_traces("TIMEOUT"), _TIMEOUT_MS, "OTLP timeout") / 1_000,
        gzip=of_traces("COMPRESSION") == "gzip",
        certificate=of_traces("CERTIFICATE"),
        client_certificate=of_traces("CLIENT_CERTIFICATE"),
        client_key=of_traces("CLIENT_KEY"),
        signal_share=_signal_share(environment),
        tick_share=settings.tick_share,
        resource=_resource(settings, environment),
    )


def _endpoint(given: str, *, is_whole: bool) -> str:
    try:
        parts = urlsplit(given)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"OTLP endpoint {shown_endpoint(given)!r}: write http://host:port or https://host:port")
    return given if is_whole else parts._replace(path=f"{parts.path.rstrip('/')}/v1/traces", fragment="").geturl()


def shown_endpoint(endpoint: str) -> str:
    """Scheme, host, port and path of an endpoint: user, password and query may be secrets.

    Of what can't be told apart for certain nothing is shown but ``…``.
    """
    try:
        parts = urlsplit(endpoint)
    except ValueError:
        return "…"
    if "@" in endpoint and (not parts.netloc or "@" in parts.path + parts.query + parts.fragment):
        return "…"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _signal_share(environment: Mapping[str, str]) -> float:
    """Samplers in OpenTelemetry's names. A signal has no parent: ``parentbased_`` makes no difference."""
    name = environment.get("OTEL_TRACES_SAMPLER", "always_on").removeprefix("parentbased_")
    if name == "always_on":
        return 1.0
    if name == "always_off":
        return 0.0
    if name == "traceidratio":
        share = _number(environment.get("OTEL_TRACES_SAMPLER_ARG", ""), 1.0, "OTEL_TRACES_SAMPLER_ARG")
        if share <= 1.0:
            return share
        raise InputError(f"OTEL_TRACES_SAMPLER_ARG {share:g}: write a share of 0 … 1")
    raise InputError(f"OTEL_TRACES_SAMPLER {name!r}: write always_on, always_off or traceidratio")


def _resource(settings: TelemetrySettings, environment: Mapping[str, str]) -> dict[str, str]:
    return {**_pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""), "OTEL_RESOURCE_ATTRIBUTES"), **settings.resource}


def _pairs(text: str, what: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = entry.partition("=")
        if not equals or not name.strip():
            # Not the entry itself: it may be part of a token.
            raise InputError(f"{what}: write name=value, several with commas between them")
        pairs[unquote(name.strip())] = unquote(value.strip())
    return pairs


def _number(text: str, default: float, what: str) -> float:
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not math.isfinite(number) or number < 0:
        raise InputError(f"{what} {text!r}: write a number, at least 0")
    return number
