"""Checks across resources: strategies and parameters against a catalogue, references, permissions."""

from __future__ import annotations

from typing import Any

import pytest

from chandlery.core.errors import InputError
from chandlery.core.manifests import check_against_catalogue, parse_manifests

CATALOGUE: list[dict[str, Any]] = [
    {
        "name": "sma-cross",
        "parameters": {
            "fast": {"type": "int", "default": 5, "ge": 2, "le": 100, "choices": None, "doc": ""},
            "width": {"type": "float", "default": 2.0, "ge": 0.5, "le": 5},
            "side": {"type": "str", "default": "both", "choices": ["long", "short", "both"]},
            "strict": {"type": "bool", "default": True},
        },
    },
    {"name": "broken", "parameters": {}, "errors": ["ImportError: no such module"]},
    {"name": "plain", "parameters": {}},
]
FEED = "apiVersion: chandlery.dev/v1alpha1\nkind: MarketFeed\nmetadata: {name: f}\nspec: {source: {synthetic: {}}, symbols: [BTC/USDT]}\n"
POOL = "apiVersion: chandlery.dev/v1alpha1\nkind: TraderPool\nmetadata: {name: p}\nspec: {feed: {name: f}}\n"


def trader(
    strategy: str = "{name: plain}", pool: str = "{name: p}", symbols: str = "[BTC/USDT]", namespace: str = "default"
) -> str:
    return (
        f"apiVersion: chandlery.dev/v1alpha1\nkind: Trader\nmetadata: {{name: t, namespace: {namespace}}}\nspec:\n  pool: {pool}\n"
        f"  strategy: {strategy}\n  market: {{symbols: {symbols}, interval: 1s}}\n"
    )


def found(*documents: str, catalogue: list[dict[str, Any]] | None = CATALOGUE) -> list[tuple[str, str]]:
    manifests = parse_manifests("---\n".join(documents), file="t.yaml")
    return [(problem.reason, str(problem)) for problem in check_against_catalogue(manifests, catalogue)]


def test_sound_manifests_have_no_problem() -> None:
    parameters = "{fast: 2, width: 1, side: long, strict: false}"
    assert found(FEED, POOL, trader(f"{{name: sma-cross, parameters: {parameters}}}")) == []


@pytest.mark.parametrize(
    ("strategy", "reason", "says"),
    [
        ("{name: sma_cross}", "UnknownStrategy", 'spec.strategy.name: there is no strategy "sma_cross"; there are broken, plain, sma-cross; did you mean "sma-cross"?'),
        ("{name: broken}", "BadStrategy", "broken can't be used: ImportError"),
        ("{name: plain, parameters: {fast: 1}}", "BadParameter", "spec.strategy.parameters.fast: plain has no such parameter; it has none"),
        ("{name: sma-cross, parameters: {fats: 3}}", "BadParameter", 'it has fast, width, side, strict; did you mean "fast"?'),
        ("{name: sma-cross, parameters: {fast: 1}}", "BadParameter", "spec.strategy.parameters.fast: must be at least 2, got 1"),
        ("{name: sma-cross, parameters: {fast: 101}}", "BadParameter", "must be at most 100, got 101"),
        ("{name: sma-cross, parameters: {fast: 2.5}}", "BadParameter", "needs a whole number, got 2.5"),
        ("{name: sma-cross, parameters: {fast: true}}", "BadParameter", "needs a whole number, got true"),
        ("{name: sma-cross, parameters: {width: wide}}", "BadParameter", 'needs a number, got "wide"'),
        ("{name: sma-cross, parameters: {strict: 1}}", "BadParameter", "needs true or false, got 1"),
        ("{name: sma-cross, parameters: {side: lon}}", "BadParameter", 'must be one of long, short, both, got "lon"; did you mean "long"?'),
        ("{name: sma-cross, parameters: {side: 5}}", "BadParameter", "needs text, got 5"),
    ],
)  # fmt: skip
def test_a_strategy_is_held_to_the_catalogue(strategy: str, reason: str, says: str) -> None:
    ((word, message),) = found(FEED, POOL, trader(strategy))
    assert word == reason
    assert says in message
    assert message.startswith("t.yaml (document 3, line 16) Trader/default/t: ")


@pytest.mark.parametrize("at", [0, len(CATALOGUE)])
def test_an_entry_that_can_not_be_used_takes_its_name_from_none_that_can(at: int) -> None:
    broken = {"name": "plain", "parameters": {}, "errors": ["plain.py: invalid syntax (line 1)"]}
    catalogue = [*CATALOGUE[:at], broken, *CATALOGUE[at:]]
    assert found(FEED, POOL, trader(), catalogue=catalogue) == []
    ((reason, message),) = found(FEED, POOL, trader(), catalogue=[broken])
    assert (reason, message.endswith("plain can't be used: plain.py: invalid syntax (line 1)")) == ("BadStrategy", True)


def test_without_a_catalogue_strategies_are_not_judged() -> None:
    assert found(FEED, POOL, trader("{name: nobody-knows}"), catalogue=None) == []


def test_a_strategy_with_a_source_is_not_looked_for_in_the_catalogue() -> None:
    pool = POOL.replace("{feed: {name: f}}", "{feed: {name: f}, allowConfigMapStrategies: true}")
    code = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {strategy.py: "class Mine: ..."}\n'
    own = trader("{name: Mine, source: {configMapRef: {name: c}}}")
    assert found(FEED, pool, code, own) == []
    assert found(FEED, POOL, code, own)[0][0] == "NotAllowed"
    assert found(FEED, pool, own)[0][0] == "BadSource"


@pytest.mark.parametrize(
    ("documents", "reason", "says"),
    [
        ((FEED, POOL, trader(pool="{name: nope}")), "UnknownPool", "there is no TraderPool default/nope; namespace default has p"),
        ((FEED, POOL.replace("name: p}", "name: pool}"), trader(pool="{name: pol}")), "UnknownPool", 'default/pol; namespace default has pool; did you mean "pool"?'),
        ((FEED, POOL, trader(namespace="x")), "UnknownPool", "there is default/p: name its namespace"),
        ((FEED, POOL, trader(pool="{name: p, namespace: default}", namespace="x")), "NotAllowed", "its spec.allowedTraders.namespaces.from is Same"),
        ((FEED, POOL, trader(symbols="[BTC/USDT, ETH/USDT]")), "UnknownSymbol", "spec.market.symbols[1]: MarketFeed default/f has no ETH/USDT; its spec.symbols are BTC/USDT"),
        ((POOL, trader()), "UnknownFeed", "TraderPool/default/p: spec.feed.name: there is no MarketFeed default/f; namespace default has none"),
        ((FEED, POOL.replace("{name: f}", "{name: nofeed}")), "UnknownFeed", "there is no MarketFeed default/nofeed; namespace default has f"),
    ],
)  # fmt: skip
def test_references_must_lead_somewhere(documents: tuple[str, ...], reason: str, says: str) -> None:
    ((word, message),) = found(*documents)
    assert word == reason
    assert says in message


def test_what_there_is_instead_is_bounded_and_of_ones_own_namespace() -> None:
    pools = [POOL.replace("name: p}", f"name: pool-{number:02d}}}") for number in range(20)]
    ((_, message),) = found(FEED, *pools, trader(pool="{name: nope}"))
    listed = ", ".join(f"pool-{number:02d}" for number in range(12))
    assert message.endswith(f"there is no TraderPool default/nope; namespace default has {listed} and 8 more")
    ((_, message),) = found(FEED, *pools, trader(pool="{name: nope, namespace: default}", namespace="x"))
    assert message.endswith("there is no TraderPool default/nope"), "what others' namespaces hold is theirs to show"


def test_what_has_a_problem_of_its_own_is_not_missing_too() -> None:
    assert found(FEED, POOL.replace("feed:", "fed:"), trader()) == []


def test_a_malformed_catalogue_is_refused() -> None:
    with pytest.raises(InputError, match="sma-cross"):
        found(
            FEED,
            POOL,
            trader("{name: sma-cross}"),
            catalogue=[{"name": "sma-cross", "parameters": {"x": {"type": "odd"}}}],
        )
