"""The resources as types: defaults, normalisation, bounds, and the schema that a CRD will come from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError
from tests.core.wrong_resources import ACCEPTED, FEED, POOL, REFUSED, TRADER, with_spec

from chandlery.core.resources import KINDS, MarketFeed, Resource, Trader, TraderPool, manifest_identity


def refusal(kind: type[Resource], value: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(value)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in caught.value.errors())


def test_a_traders_defaults() -> None:
    spec = Trader.model_validate(TRADER).spec
    assert (spec.trigger, spec.tier, spec.suspend, spec.rollout) == ("CandleClose", "standard", False, "Auto")
    assert (spec.signals.cooldown, spec.resources.memory, spec.market.warmup) == (0, 256 * 2**20, None)
    assert Trader.model_validate(TRADER).signal_ttl_ms == 600_000


def test_a_feeds_defaults() -> None:
    spec = MarketFeed.model_validate(FEED).spec
    assert (spec.symbols, spec.intervals, spec.history.candles) == ("auto", [], 500)
    assert (spec.allowed_lateness, spec.watermark_delay) == (5_000, 0)
    assert (spec.kafka.topic_prefix, spec.kafka.partitions, spec.kafka.bootstrap_servers) == ("chandlery.", 4, None)
    assert spec.allowed_pools.namespaces.from_ == "Same"


def test_a_pools_defaults() -> None:
    spec = TraderPool.model_validate(POOL).spec
    assert (spec.workers.min, spec.workers.max, spec.workers.spare, spec.traders_per_worker) == (1, 1, 0, 20)
    assert (spec.segment.candles, spec.segment.series, spec.transport) == (1_000, 512, "SharedMemory")
    assert spec.allow_config_map_strategies is False
    assert TraderPool.model_validate(with_spec(POOL, workers={"min": 3})).spec.workers.max == 3


@pytest.mark.parametrize(("kind", "value"), ACCEPTED)
def test_a_resource_survives_being_written_as_a_manifest(kind: type[Resource], value: dict[str, Any]) -> None:
    one = kind.model_validate(value)
    assert kind.model_validate(one.manifest()) == one


def test_units_and_spellings_are_normalised() -> None:
    market = {"symbols": ["btcusdt", "ETH/USDT:USDT"], "interval": "5m", "informative": [{"interval": "1h"}]}
    spec = with_spec(TRADER, market=market, signals={"ttl": "1m30s"}, resources={"memory": "1G"})
    one = Trader.model_validate(spec)
    assert one.spec.market.symbols == ["BTC/USDT", "ETH/USDT:USDT"]
    assert (one.signal_ttl_ms, one.spec.resources.memory) == (90_000, 10**9)
    assert [series.symbol for series in one.spec.market.informative_series()] == ["BTC/USDT", "ETH/USDT:USDT"]


def test_what_the_api_server_adds_is_not_in_the_way() -> None:
    seen = {
        **TRADER,
        "status": {"conditions": []},
        "metadata": {"name": "a", "uid": "u", "generation": 3, "resourceVersion": "9", "managedFields": [], "creationTimestamp": "x"},
    }  # fmt: skip
    one = Trader.model_validate(seen)
    assert (one.identity, one.metadata.generation) == ("u", 3)


def test_a_field_with_nothing_in_it_has_its_default() -> None:
    assert Trader.model_validate(with_spec(TRADER, signals=None, tier=None)) == Trader.model_validate(TRADER)


def test_a_manifests_identity_is_its_kind_namespace_and_name() -> None:
    one = Trader.model_validate(TRADER)
    assert one.identity == manifest_identity("Trader", "default", "a")
    assert one.identity != manifest_identity("Trader", "other", "a")


@pytest.mark.parametrize(("kind", "value", "says", "_"), REFUSED)
def test_what_can_not_be_is_refused(kind: type[Resource], value: dict[str, Any], says: str, _: str | None) -> None:
    assert says in refusal(kind, value)


def test_access_is_by_namespace() -> None:
    def admits(namespaces: dict[str, Any], other: str, labels: dict[str, str] | None = None) -> bool:
        one = TraderPool.model_validate(with_spec(POOL, allowedTraders={"namespaces": namespaces}))
        return one.spec.allowed_traders.admits(own="here", other=other, labels=labels or {})

    assert admits({}, "here")
    assert not admits({}, "there")
    assert admits({"from": "All"}, "there")
    team = {"from": "Selector", "selector": {"matchLabels": {"team": "quant"}}}
    assert admits(team, "there", {"team": "quant", "x": "y"})
    assert not admits(team, "there", {"team": "sales"})
    named = {"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "there"}}}
    assert admits(named, "there")
    assert not admits(named, "elsewhere")


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field
    for name, inner in schema.get("$defs", {}).items():
        yield from fields(inner, name)


@pytest.mark.parametrize("kind", KINDS.values())
def test_every_field_is_described_in_camel_case_and_defaults_are_as_a_manifest_spells_them(
    kind: type[Resource],
) -> None:
    schema = kind.model_json_schema(mode="serialization")
    for path, field in fields(schema, kind.KIND):
        assert field.get("description") or "$ref" in field, f"{path} has no description"
        assert "_" not in path.rpartition(".")[2], f"{path} is not camelCase"
    text = str(schema)
    assert "Infinity" not in text
    if kind is MarketFeed:
        assert schema["$defs"]["MarketFeedSpec"]["properties"]["allowedLateness"]["default"] == "5s"
    if kind is Trader:
        assert schema["$defs"]["TraderResources"]["properties"]["memory"]["default"] == "256Mi"
