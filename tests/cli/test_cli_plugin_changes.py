"""What ``kubectl chandlery approve`` says an approval would change."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cli.plugin_rows import a_trader

from chandlery.cli.plugin.changes import changes_of, differences
from chandlery.cli.plugin.kubectl import ForbiddenError, Kubectl
from chandlery.console.statuses import trader_state
from chandlery.core.assignment import Assignment, TraderAssignment, encode
from chandlery.core.durations import format_duration
from chandlery.core.resources import Trader
from chandlery.operator.children.workers import ASSIGNMENT_KEY


def test_what_a_change_would_change_is_told_field_by_field() -> None:
    item = a_trader()
    item["spec"]["strategy"] = {
        "name": "mine", "parameters": {"fast": 5, "new": True}, "source": {"configMapRef": {"name": "own"}},
    }  # fmt: skip
    item["spec"]["transport"] = "Pipe"
    trader = Trader.model_validate({"apiVersion": "chandlery.dev/v1alpha1", **item})
    running = TraderAssignment(
        trader="desk/sma", uid="u", strategy="mine", symbols=["BTC/USDT"], interval="1m",
        parameters={"fast": 3, "old": "x"}, source="a\nb\n", tier=trader.spec.tier,
        signal_ttl_ms=trader.signal_ttl_ms, cooldown_ms=1_500, memory_bytes=trader.spec.resources.memory,
    )  # fmt: skip
    assert list(differences(running, trader, "a\nc\nd\n")) == [
        "strategy.parameters.fast: 3 → 5",
        "strategy.parameters.new: not set → true",
        "strategy.parameters.old: x → not set",
        "strategy.source: 2 lines more, 1 less",
        "market.symbols: BTC/USDT → BTC/USDT, ETH/USDT, SOL/USDT",
        "transport: not set → Pipe",
        f"signals.cooldown: 1s500ms → {format_duration(trader.spec.signals.cooldown)}",
    ]


class Answers(Kubectl):
    """A cluster that answers what a test says, by the end of the path; what it doesn't say may not be read."""

    def __init__(self, **answers: dict[str, Any]) -> None:
        object.__setattr__(self, "answers", answers)

    def get(self, path: str) -> dict[str, Any]:
        for name, answer in vars(self)["answers"].items():
            if path.endswith(f"/{name.replace('_', '-')}"):
                found: dict[str, Any] = answer
                return found
        raise ForbiddenError(f"{path}: forbidden")


@pytest.mark.parametrize(
    ("of_pool", "runs", "wanted", "told"),
    [
        ("Pipe", None, "Pipe", []),
        ("SharedMemory", "SharedMemory", None, []),
        ("SharedMemory", None, "Pipe", ["transport: SharedMemory → Pipe"]),
        ("Pipe", "SharedMemory", None, ["transport: SharedMemory → Pipe"]),
        ("Pipe", "Pipe", "Pipe", []),
        ("", None, "Pipe", ["transport: not set → Pipe"]),
    ],
)
def test_a_transport_that_is_its_pools_anyway_is_no_change(
    of_pool: str, runs: Any, wanted: str | None, told: list[str]
) -> None:
    item = {"apiVersion": "chandlery.dev/v1alpha1", "kind": "Trader", **a_trader()}
    item["spec"] = {**item["spec"], **({"transport": wanted} if wanted else {})}
    trader = Trader.model_validate(item)
    running = TraderAssignment(
        trader="desk/sma", uid="u", strategy="sma-cross", symbols=list(trader.spec.market.symbols), interval="1m",
        tier=trader.spec.tier, signal_ttl_ms=trader.signal_ttl_ms, cooldown_ms=trader.spec.signals.cooldown,
        memory_bytes=trader.spec.resources.memory, transport=runs,
    )  # fmt: skip
    kept = {"data": {ASSIGNMENT_KEY: encode(Assignment("quants-0", 1, "", [running])).decode()}}
    pool = {"metadata": {"name": "quants"}, "spec": {"feed": {"name": "market"}, "transport": of_pool}}
    kubectl = Answers(quants_0_assignment=kept, **({"quants": pool} if of_pool else {}))
    row = trader_state(item)
    assert (row.worker, row.pod_namespace) == ("quants-0", "platform")
    assert changes_of(kubectl, item, row) == told
