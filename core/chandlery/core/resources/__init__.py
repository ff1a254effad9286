"""The three resources as types: the one source of truth for manifests, the local runtime and the CRDs.

YAML spells fields in camelCase; unknown fields are refused; durations become milliseconds, memory bytes,
symbols the unified spelling. A JSON schema with descriptions and defaults as a manifest would spell them comes
from ``KIND.model_json_schema(mode="serialization")``.
"""

from __future__ import annotations

from typing import Final

from chandlery.core.resources.base import (
    API_VERSION,
    DEFAULT_NAMESPACE,
    Access,
    LabelSelector,
    Metadata,
    NamespaceAccess,
    Reference,
    Resource,
    manifest_identity,
)
from chandlery.core.resources.feed import (
    BinanceSource,
    History,
    HistoryFile,
    MarketFeed,
    MarketFeedSpec,
    ReplayFile,
    ReplaySource,
    Retention,
    Source,
    SyntheticSource,
)
from chandlery.core.resources.kafka import (
    CertificateAndKeySecret,
    CertificateSecret,
    ClientAuthentication,
    ClientTls,
    Kafka,
    PasswordSecret,
    StrimziAccess,
)
from chandlery.core.resources.pool import Segment, Telemetry, Tier, TraderPool, TraderPoolSpec, Workers
from chandlery.core.resources.trader import (
    APPROVE_ANNOTATION,
    CHANGED_IN_PLACE,
    MAX_SOURCE_BYTES,
    MEANWHILE_NOTHING,
    OF_ITS_POOL,
    ConfigMapKey,
    Informative,
    Market,
    Signals,
    Strategy,
    StrategySource,
    Trader,
    TraderResources,
    TraderSpec,
)

#: The kinds by name.
KINDS: Final[dict[str, type[Resource]]] = {kind.KIND: kind for kind in (MarketFeed, TraderPool, Trader)}

__all__ = [
    "API_VERSION",
    "APPROVE_ANNOTATION",
    "CHANGED_IN_PLACE",
    "DEFAULT_NAMESPACE",
    "KINDS",
    "MAX_SOURCE_BYTES",
    "MEANWHILE_NOTHING",
    "OF_ITS_POOL",
    "Access",
    "BinanceSource",
    "CertificateAndKeySecret",
    "CertificateSecret",
    "ClientAuthentication",
    "ClientTls",
    "ConfigMapKey",
    "History",
    "HistoryFile",
    "Informative",
    "Kafka",
    "LabelSelector",
    "Market",
    "MarketFeed",
    "MarketFeedSpec",
    "Metadata",
    "NamespaceAccess",
    "PasswordSecret",
    "Reference",
    "ReplayFile",
    "ReplaySource",
    "Resource",
    "Retention",
    "Segment",
    "Signals",
    "Source",
    "Strategy",
    "StrategySource",
    "StrimziAccess",
    "SyntheticSource",
    "Telemetry",
    "Tier",
    "Trader",
    "TraderPool",
    "TraderPoolSpec",
    "TraderResources",
    "TraderSpec",
    "Workers",
    "manifest_identity",
]
