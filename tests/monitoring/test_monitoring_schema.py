"""Dashboards fit Grafana's schema, by the models that its foundation SDK is generated into: every field is known to them,
and every value is of the field's type."""

from __future__ import annotations

import enum
import json
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard
from monitoring.dashboards import BOARDS, rendered
from tests.support.promql import selectors_in


def misfits(value: Any, hint: Any, path: str) -> Iterator[str]:
    """Where a value isn't of its type; objects of the models are looked into."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        told = [list(misfits(value, one, path)) for one in arguments]
        if all(told):
            yield from min(told, key=len)
    elif not _fits(value, origin or hint, arguments):
        yield f"{path}: {value!r} is no {hint}"
    elif origin in {list, dict}:
        for key, one in value.items() if origin is dict else enumerate(value):
            yield from misfits(one, arguments[-1], f"{path}.{key}")
    elif hasattr(value, "to_json"):
        for name, inner in typing.get_type_hints(type(value)).items():
            yield from misfits(getattr(value, name), inner, f"{path}.{name}")


def _fits(value: Any, hint: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether a value is of a type itself, whatever is in it."""
    if hint is typing.Any:
        return True
    if hint is typing.Literal:
        return value in arguments
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return isinstance(value, hint) or value in {one.value for one in hint}
    if isinstance(value, bool):
        return hint in {bool, object}
    return isinstance(value, (int, float) if hint is float else hint)


def stated(plain: Any) -> Any:
    """Without what is empty: the models fill in empty objects for what isn't said."""
    if isinstance(plain, dict):
        inner = {name: stated(value) for name, value in plain.items()}
        return {name: value for name, value in inner.items() if value not in (None, {})}
    return [stated(value) for value in plain] if isinstance(plain, list) else plain


def wrong_with(text: str) -> list[str]:
    """What isn't as the schema has it."""
    register_default_plugins()
    read = Dashboard.from_json(json.loads(text))
    told = list(misfits(read, Dashboard, "dashboard"))
    if not told and stated(json.loads(JSONEncoder().encode(read))) != stated(json.loads(text)):
        return ["a field that the schema doesn't know was left out"]
    return told


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)
def test_a_dashboard_fits_grafanas_schema(board: Any) -> None:
    text = rendered(board)
    assert wrong_with(text) == []
    assert "null" not in text


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (lambda plain: plain.update(uid=7), "dashboard.uid"),
        (lambda plain: plain.update(style="pink"), "dashboard.style"),
        (lambda plain: plain.update(panles=[]), "left out"),
        (lambda plain: plain["panels"][0].update(titel="x"), "left out"),
        (lambda plain: plain["panels"][0]["gridPos"].update(w="12"), "panels.0.grid_pos.w"),
        (lambda plain: plain["panels"][0]["targets"][0].update(expr=None), "targets.0.expr"),
        (lambda plain: plain["panels"][0]["targets"][0].update(instant="yes"), "targets.0.instant"),
        (lambda plain: plain["panels"][0]["fieldConfig"]["defaults"].update(unit=["s"]), "defaults.unit"),
        (lambda plain: plain["templating"]["list"][1].update(type="qurey"), "list_val.1.type_val"),
    ],
)
def test_the_check_finds_what_does_not_fit(spoil: Callable[[dict[str, Any]], None], where: str) -> None:
    plain = json.loads(rendered(BOARDS[1]))
    spoil(plain)
    (told,) = wrong_with(json.dumps(plain))
    assert where in told


def test_every_query_of_the_board_of_feeds_asks_of_the_chosen_feed_alone() -> None:
    (board,) = (board for board in BOARDS if board.uid == "chandlery-feed")
    assert [name for name, _ in board.variables] == ["feed"]
    for panel in board.panels:
        for query in panel.queries:
            assert {inner for _, inner in selectors_in(query.expr)} == {'chandlery_dev_feed=~"$feed"'}, query.expr
            assert "{{chandlery_dev_feed}}" in query.legend
            assert "sum by" not in query.expr or "namespace, chandlery_dev_feed" in query.expr


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("sum(rate(a_total[5m])) or vector(0)", {"a_total"}),
        ('sum by (reason) (rate(a_total{reason="b"}[$__rate_interval])) or vector(0)', {"a_total"}),
        ("histogram_quantile(0.99, sum by (le, stage) (rate(a_bucket[5m])))", {"a_bucket"}),
        ("avg(avg_over_time((a > bool b)[1h:15s])) > 1e-3 and on () c == 0", {"a", "b", "c"}),
        ('absent(up{job="}"}) unless label_replace(b, "x", "c", "", "")', {"up", "b"}),
    ],
)
def test_the_names_that_a_query_asks_for_are_found(query: str, names: set[str]) -> None:
    assert {name for name, _ in selectors_in(query)} == names
