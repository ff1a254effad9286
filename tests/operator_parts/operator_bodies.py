"""Objects as the API server gives them, for tests of the operator's parts."""

from __future__ import annotations

from typing import Any

Body = dict[str, Any]


def trader_body(
    name: str = "one", namespace: str = "default", *, uid: str = "", version: int = 1, generation: int = 1,
    in_pool: str = "quants", **spec: Any,
) -> Body:  # fmt: skip
    """A Trader."""
    whole = {
        "pool": {"name": in_pool},
        "strategy": {"name": "sma-cross"},
        "market": {"symbols": ["BTC/USDT"], "interval": "1s"},
        **spec,
    }
    return _body("Trader", name, namespace, uid, version, generation, whole)


def pool_body(
    name: str = "quants",
    namespace: str = "default",
    *,
    uid: str = "",
    version: int = 1,
    generation: int = 1,
    **spec: Any,
) -> Body:
    """A TraderPool."""
    return _body("TraderPool", name, namespace, uid, version, generation, {"feed": {"name": "market"}, **spec})


def feed_body(
    name: str = "market",
    namespace: str = "default",
    *,
    uid: str = "",
    version: int = 1,
    generation: int = 1,
    **spec: Any,
) -> Body:
    """A MarketFeed."""
    return _body("MarketFeed", name, namespace, uid, version, generation, {"source": {"synthetic": {}}, **spec})


def _body(kind: str, name: str, namespace: str, uid: str, version: int, generation: int, spec: Body) -> Body:
    return {
        "apiVersion": "chandlery.dev/v1alpha1",
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": uid or f"{kind}-{namespace}-{name}",
            "resourceVersion": str(version),
            "generation": generation,
        },
        "spec": spec,
    }
