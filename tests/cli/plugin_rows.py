"""A Trader as the API server has it."""

from __future__ import annotations

from typing import Any


def a_trader(name: str = "sma", **changes: Any) -> dict[str, Any]:
    """A Trader as the API server has it."""
    item: dict[str, Any] = {
        "metadata": {"name": name, "namespace": "desk", "generation": 2, "uid": "u", "resourceVersion": "9"},
        "spec": {
            "pool": {"name": "quants", "namespace": "platform"},
            "strategy": {"name": "sma-cross"},
            "market": {"symbols": ["BTC/USDT", "ETH/USDT", "SOL/USDT"], "interval": "1m"},
        },
        "status": {
            "observedGeneration": 2, "runningGeneration": 2, "pod": "quants-0-0", "worker": "quants-0", "signals": 1234,
            "latency": {"p50": "3.1ms", "p99": "9.8ms", "count": 20},
            "conditions": [a_ready("True", "Running")],
        },
    }  # fmt: skip
    item.update(changes)
    return item


def a_ready(status: str, reason: str, message: str = "") -> dict[str, str]:
    return {
        "type": "Ready", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-11-25T12:00:00Z",
    }  # fmt: skip
