"""A series that isn't there is told with what is, and with the field to change; always in few words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chandlery.core.absence import Absence

ADDS = "its feed adds what a Trader's spec.market asks for: if it doesn't, "


@pytest.mark.parametrize(
    ("there", "informative", "told"),
    [
        (["ADA/USDT 5m", "ADA/USDT 1m", "BTC/USDT 1d"], False, "holds ADA/USDT by 1m, 5m only; "
         + ADDS + "set spec.market.interval to one of these"),
        (["ADA/USDT 1h", "ADA/USDT 1m", "ADA/USDT 1d", "ADA/USDT 30s"], True, "holds ADA/USDT by 30s, 1m, 1h, … only; "
         + ADDS + "set spec.market.informative to one of these"),
        (["BTC/USDT 3m", "ETH/USDT 3m", "BTC/USDT 1m"], False, "holds no ADA/USDT, but BTC/USDT, ETH/USDT; "
         + ADDS + "correct spec.market.symbols, or add the symbol to the MarketFeed's spec.symbols"),
        (["D 1m", "C 1m", "B 1m", "A 1m"], True, "holds no ADA/USDT, but A, B, C, …; "
         + ADDS + "correct spec.market.informative, or add the symbol to the MarketFeed's spec.symbols"),
        ([], False, "holds no series yet; " + ADDS + "look at the feed's log"),
    ],
)  # fmt: skip
def test_what_is_there_instead_and_what_to_change(there: list[str], informative: bool, told: str) -> None:
    names = [(symbol, interval) for symbol, interval in (name.split() for name in there)]
    assert Absence.among("ADA/USDT", "3m", names).told(informative=informative) == told


@given(st.lists(st.tuples(st.text(max_size=64), st.text(max_size=16)), max_size=200))
def test_whatever_a_segment_holds_the_words_are_few(names: list[tuple[str, str]]) -> None:
    assert len(Absence.among("ADA/USDT", "3m", names).told()) < 400
