"""The kinds of objects that the operator reads and writes."""

from __future__ import annotations

from typing import Final

from chandlery.core.resources import API_VERSION
from chandlery.operator.kubernetes.api import Kind

MARKET_FEED: Final = Kind(API_VERSION, "marketfeeds", "MarketFeed")
TRADER_POOL: Final = Kind(API_VERSION, "traderpools", "TraderPool")
TRADER: Final = Kind(API_VERSION, "traders", "Trader")
#: By plural, as watches name them.
RESOURCES: Final = {kind.plural: kind for kind in (MARKET_FEED, TRADER_POOL, TRADER)}

CONFIG_MAP: Final = Kind("v1", "configmaps", "ConfigMap")
SECRET: Final = Kind("v1", "secrets", "Secret")
SERVICE: Final = Kind("v1", "services", "Service")
POD: Final = Kind("v1", "pods", "Pod")
NAMESPACE: Final = Kind("v1", "namespaces", "Namespace", namespaced=False)
STATEFUL_SET: Final = Kind("apps/v1", "statefulsets", "StatefulSet")
POD_DISRUPTION_BUDGET: Final = Kind("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
NETWORK_POLICY: Final = Kind("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy")
EVENT: Final = Kind("events.k8s.io/v1", "events", "Event")
