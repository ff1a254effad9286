"""Symbols that a feed's source lacks, over restarts of the ingest that says so."""

from __future__ import annotations

import pytest

from chandlery.operator.unknown_symbols import FORGET_S, UnknownSymbols


@pytest.fixture
def unknown() -> UnknownSymbols:
    made = UnknownSymbols()
    assert made.note(["DGOE/USDT"], connected=True, now_s=0.0)
    return made


def test_an_ingest_that_starts_again_forgets_nothing_before_its_source_could_answer(unknown: UnknownSymbols) -> None:
    for second in range(100):
        assert not unknown.note([], connected=False, now_s=100.0 + second)
    assert not unknown.note([], connected=True, now_s=300.0)
    assert not unknown.note([], connected=True, now_s=300.0 + FORGET_S - 1.0)
    assert not unknown.note(["DGOE/USDT"], connected=True, now_s=300.0 + FORGET_S)
    assert unknown.symbols == ["DGOE/USDT"]


def test_a_symbol_that_comes_to_be_is_known_once_the_source_has_delivered_for_a_while(unknown: UnknownSymbols) -> None:
    assert not unknown.note([], connected=True, now_s=10.0)
    assert unknown.note([], connected=True, now_s=10.0 + FORGET_S)
    assert unknown.symbols == []


def test_a_cut_connection_begins_the_while_anew(unknown: UnknownSymbols) -> None:
    unknown.note([], connected=True, now_s=10.0)
    unknown.note([], connected=False, now_s=11.0)
    assert not unknown.note([], connected=True, now_s=10.0 + FORGET_S)
    assert unknown.symbols == ["DGOE/USDT"]


def test_another_one_is_told_at_once(unknown: UnknownSymbols) -> None:
    assert unknown.note(["PEPE/USDT"], connected=False, now_s=1.0)
    assert unknown.symbols == ["DGOE/USDT", "PEPE/USDT"]
