"""Figures in Prometheus' form: clean OpenMetrics, right buckets, exemplars, and labels with a bound."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from chandlery.core.histogram import BOUNDS_US, Histogram
from chandlery.core.telemetry import exposition
from chandlery.core.telemetry.exposition import Exposition, Labelled, counter, gauge, histogram

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def an_exposition() -> Exposition:
    stages = {"decided": Histogram(), "fed": Histogram()}
    stages["decided"].record(137.5, "ab" * 16)
    stages["decided"].record(2_000_000)

    def families() -> list[Metric]:
        return [
            counter("chandlery_x_things", "Things", {"one": 1, 'a "quoted"\nname': 2}, "reason"),
            gauge("chandlery_x_depth", "Depth", 3),
            histogram("chandlery_stage_seconds", "Stages", stages, "stage"),
        ]

    return Exposition(families)


async def test_who_asks_for_openmetrics_gets_it_with_exemplars() -> None:
    body, content_type = await an_exposition().answer(OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    found = {family.name: family for family in parse_openmetrics(body.decode())}  # type: ignore[no-untyped-call]
    assert {sample.labels["reason"] for sample in found["chandlery_x_things"].samples} == {"one", 'a "quoted"\nname'}
    buckets = [one for one in found["chandlery_stage_seconds"].samples if one.name.endswith("_bucket")]
    shown = [one for one in buckets if one.exemplar is not None]
    (one,) = shown
    assert one.exemplar is not None
    assert (one.labels["stage"], one.exemplar.labels) == ("decided", {"trace_id": "ab" * 16})
    assert one.exemplar.value <= float(one.labels["le"])
    assert one.exemplar.value == pytest.approx(137.5e-6)
    (total,) = [
        each for each in found["chandlery_stage_seconds"].samples
        if each.name.endswith("_sum") and each.labels["stage"] == "decided"
    ]  # fmt: skip
    assert total.value == pytest.approx(2.0001375)
    assert found["process_resident_memory_bytes"].samples[0].value > 0
    assert found["process_proportional_memory_bytes"].samples[0].value > 0


async def test_everybody_else_gets_the_plain_text() -> None:
    body, content_type = await an_exposition().answer("*/*")
    assert content_type.startswith("text/plain")
    names = {family.name for family in parse_text(body.decode())}
    assert {"chandlery_x_things", "chandlery_x_depth", "chandlery_stage_seconds"} <= names


@given(st.lists(st.floats(0, 1e9), max_size=60))
def test_buckets_count_what_is_no_longer_than_their_bound(values: list[float]) -> None:
    one = Histogram()
    for value in values:
        one.record(value)
    for bound, number in zip(BOUNDS_US, one.below(), strict=True):
        assert number == sum(int(value) < bound for value in values)
    assert one.sum_us == pytest.approx(sum(values))


@given(st.floats(0, 1e9))
def test_an_exemplar_lies_in_its_bucket(value: float) -> None:
    one = Histogram()
    one.record(value, "t")
    ((index, shown),) = one.exemplars.items()
    assert shown.value_us <= (BOUNDS_US[index] if index < len(BOUNDS_US) else float("inf"))
    assert index == 0 or shown.value_us >= BOUNDS_US[index - 1]


def test_names_beyond_the_bound_share_a_label_and_make_room_when_they_go() -> None:
    labelled = Labelled(2)
    labelled.follow(["b", "a", "c", "d"])
    assert labelled.summed({"a": 1, "b": 2, "c": 3, "d": 4}) == {"a": 1, "b": 2, "_other": 7}
    assert labelled.others == 2
    labelled.follow(["b", "c", "d"])
    assert [labelled[name] for name in "bcd"] == ["b", "_other", "_other"], "who had a label keeps it"
    labelled.follow(["b", "c", "d", "e"])
    assert [labelled[name] for name in "bcde"] == ["b", "_other", "_other", "e"], "room is for who is new"
    labelled.follow([f"trader-{number}" for number in range(10_000)])
    assert len({labelled[f"trader-{number}"] for number in range(10_000)}) == 3
    assert labelled.others == 9_998


async def test_figures_are_read_on_the_loop_and_made_into_text_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    here, where, under_way, goes_on = threading.get_ident(), [], threading.Event(), threading.Event()

    def families() -> list[Metric]:
        where.append(threading.get_ident())
        return [gauge("chandlery_x_reads", "Reads", len(where))]

    def slowly() -> int:
        where.append(-threading.get_ident())
        under_way.set()
        assert goes_on.wait(10)
        return 1

    monkeypatch.setattr(exposition, "pss_bytes", slowly)
    one = Exposition(families)
    asked = [asyncio.create_task(one.answer("*/*")) for _ in range(3)]
    assert await asyncio.to_thread(under_way.wait, 10), "the loop goes on while the text is made"
    goes_on.set()
    answers = {body for body, _ in await asyncio.gather(*asked)}
    assert len(answers) == 1, "who asks meanwhile gets the same"
    assert where[0] == here
    assert len(where) == 2
    assert where[1] not in (here, -here)
    monkeypatch.setattr(exposition, "FRESH_S", 0.0)
    assert b"chandlery_x_reads 3.0" in (await one.answer("*/*"))[0]
