"""What the three resources share: spelling of fields, metadata, references, who may use what."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from chandlery.core import durations, intervals, quantities
from chandlery.core.durations import format_duration, parse_duration
from chandlery.core.errors import InputError
from chandlery.core.intervals import parse_interval
from chandlery.core.quantities import format_quantity, parse_quantity
from chandlery.core.resources.rules import (
    DNS_LABEL,
    DNS_LABEL_PATTERN,
    DURATION,
    INTERVAL,
    QUANTITY,
    SYMBOL,
    rule,
    rules,
)
from chandlery.core.symbols import parse_symbol

API_VERSION: Final = "chandlery.dev/v1alpha1"
#: Namespace of a resource that names none.
DEFAULT_NAMESPACE: Final = "default"
#: Label that Kubernetes itself sets on every namespace; a selector may rely on it.
NAMESPACE_NAME_LABEL: Final = "kubernetes.io/metadata.name"
#: Error type of every message that is already a whole sentence for a person.
SENTENCE: Final = "sentence"


def sentence(text: str) -> PydanticCustomError:
    """A validation error whose message is ``text``, as it stands."""
    return PydanticCustomError(SENTENCE, "{text}", {"text": text})


def _reader(kind: str, parse: Callable[[str], object], example: str) -> BeforeValidator:
    """A validator that reads text with ``parse`` and turns its InputError into a message."""

    def read(value: object) -> object:
        if not isinstance(value, str):
            raise sentence(f"needs {kind} as text, such as {example}, got {value!r}")
        try:
            return parse(value)
        except InputError as error:
            raise sentence(str(error)) from error

    return BeforeValidator(read)


def _read_bytes(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise sentence(f"needs an amount of memory, such as 256Mi, got {value!r}")
    if isinstance(value, int):
        if value < 0:
            raise sentence(f"{value} is no amount of memory: it can't be negative")
        return value
    try:
        return parse_quantity(value)
    except InputError as error:
        raise sentence(str(error)) from error


DurationMs = Annotated[
    int,
    _reader("a duration", parse_duration, "5s or 1m30s"),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": durations.PATTERN, "minLength": 2, "maxLength": 64, **DURATION}),
]
"""Written ``5s``, ``1m30s``, ``500ms``; kept as milliseconds."""

Bytes = Annotated[
    int,
    BeforeValidator(_read_bytes),
    PlainSerializer(format_quantity, return_type=str),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "pattern": quantities.PATTERN, "maxLength": 40, **QUANTITY}),
]
"""Written ``256Mi``, ``1G`` or a plain number; kept as bytes."""

Symbol = Annotated[
    str,
    _reader("a symbol", parse_symbol, "BTC/USDT"),
    WithJsonSchema({"type": "string", "minLength": 2, "maxLength": 64, **SYMBOL}),
]
"""Kept in the unified spelling (``BTC/USDT``); the exchange's own (``BTCUSDT``) is accepted."""

IntervalText = Annotated[
    str,
    _reader("an interval", lambda text: parse_interval(text).text, "1s, 5m or 1h"),
    WithJsonSchema({"type": "string", "pattern": intervals.PATTERN, "maxLength": 5, **INTERVAL}),
]
"""Canonical interval, case-sensitive: ``1m`` is a minute, ``1M`` a month."""

DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL_PATTERN, json_schema_extra=DNS_LABEL)]
Count = Annotated[int, Field(strict=True)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]


class Spec(BaseModel):
    """Base of everything in a manifest: camelCase in YAML, unknown fields refused, immutable once read."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_absent(cls, value: object) -> object:
        # As the API server does: `parameters:` with nothing after it means the default.
        if isinstance(value, dict) and None in value.values():
            return {name: given for name, given in value.items() if given is not None}
        return value


# What the API server adds to metadata and a person's file may carry after `kubectl get -o yaml`.
_SERVER_FIELDS: Final = frozenset(
    {
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "finalizers",
        "generateName",
        "managedFields",
        "ownerReferences",
        "resourceVersion",
        "selfLink",
    }
)


class Metadata(Spec):
    """Name and namespace of a resource, its labels and annotations, and what the API server says of it."""

    name: DnsLabel = Field(
        description="Name, unique among its kind in the namespace: lower-case letters, digits and '-', at most 63."
    )
    namespace: DnsLabel = Field(default=DEFAULT_NAMESPACE, description="Namespace, by default 'default'.")
    labels: dict[str, str] = Field(default={}, description="Labels, to select resources by.")
    annotations: dict[str, str] = Field(
        default={}, description="Annotations, such as chandlery.dev/approve-generation."
    )
    uid: str | None = Field(default=None, description="Set by Kubernetes.")
    generation: Count | None = Field(default=None, description="Set by Kubernetes: counts changes of the spec.")

    @model_validator(mode="before")
    @classmethod
    def _drop_server_fields(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: given for name, given in value.items() if name not in _SERVER_FIELDS}


class LabelSelector(Spec):
    """Chooses namespaces by their labels."""

    match_labels: dict[str, str] = Field(
        default={}, description="Every one of these labels must be there with this value; none given matches all."
    )

    def matches(self, labels: dict[str, str]) -> bool:
        """Whether ``labels`` have all that is asked for."""
        return all(labels.get(name) == value for name, value in self.match_labels.items())


class NamespaceAccess(Spec):
    """Namespaces that may use a resource, in the words of the Gateway API."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "self.from != 'Selector' || has(self.selector)",
                "from: Selector needs a selector, such as selector: {matchLabels: {team: quant}}",
                field="selector",
            ),
            rule(
                "self.from == 'Selector' || !has(self.selector)",
                "selector has no meaning without from: Selector; write from: Selector, or leave selector out",
                field="selector",
            ),
        )
    )

    from_: Literal["Same", "All", "Selector"] = Field(
        default="Same",
        alias="from",
        description="Same: this namespace only. All: every namespace. Selector: those whose labels match `selector`.",
    )
    selector: LabelSelector | None = Field(default=None, description="Labels of the namespaces; with `from: Selector`.")

    @model_validator(mode="after")
    def _selector_belongs_to_selector(self) -> NamespaceAccess:
        if self.from_ == "Selector" and self.selector is None:
            raise sentence("from: Selector needs a selector, such as selector: {matchLabels: {team: quant}}")
        if self.from_ != "Selector" and self.selector is not None:
            raise sentence(f"selector has no meaning with from: {self.from_}; write from: Selector")
        return self


class Access(Spec):
    """Who may use a resource."""

    namespaces: NamespaceAccess = Field(default=NamespaceAccess(), description="Namespaces that may use it.")

    def admits(self, *, own: str, other: str, labels: dict[str, str]) -> bool:
        """Whether a resource in namespace ``other`` (with these namespace labels) may use one in ``own``."""
        rule = self.namespaces
        if rule.from_ == "All" or other == own:
            return True
        if rule.from_ == "Same" or rule.selector is None:
            return False
        return rule.selector.matches({NAMESPACE_NAME_LABEL: other, **labels})


class Reference(Spec):
    """Names another resource."""

    name: DnsLabel = Field(description="Its name.")
    namespace: DnsLabel | None = Field(default=None, description="Its namespace; absent: the one of this resource.")

    def key(self, own_namespace: str) -> tuple[str, str]:
        """(namespace, name) of what is meant, seen from ``own_namespace``."""
        return self.namespace or own_namespace, self.name


class Resource(Spec):
    """Base of the three kinds."""

    KIND: ClassVar[str]

    api_version: Literal["chandlery.dev/v1alpha1"] = Field(
        default="chandlery.dev/v1alpha1", description="Version of this form: chandlery.dev/v1alpha1."
    )
    metadata: Metadata = Field(description="Name, namespace, labels and annotations.")

    @model_validator(mode="before")
    @classmethod
    def _drop_status(cls, value: object) -> object:
        # `status` belongs to the operator; a file made by `kubectl get -o yaml` carries it.
        if isinstance(value, dict) and "status" in value:
            return {name: given for name, given in value.items() if name != "status"}
        return value

    @property
    def name(self) -> str:
        """``metadata.name``."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """``metadata.namespace``."""
        return self.metadata.namespace

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.metadata.namespace, self.metadata.name

    @property
    def full_name(self) -> str:
        """``namespace/name``."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    def manifest(self) -> dict[str, Any]:
        """The resource as it would stand in a manifest, defaults spelled out; JSON values only."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @property
    def identity(self) -> str:
        """Kubernetes' uid, or where there is no cluster a digest of kind, namespace and name (32 hex digits)."""
        return self.metadata.uid or manifest_identity(self.KIND, self.namespace, self.name)


def manifest_identity(kind: str, namespace: str, name: str) -> str:
    """Stands for a uid where there is no cluster: the same manifest is the same resource, run after run."""
    return hashlib.sha256(f"{kind}/{namespace}/{name}".encode()).hexdigest()[:32]
