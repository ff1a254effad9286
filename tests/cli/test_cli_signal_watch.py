"""What ``chandlery signals --follow`` tells: each signal once with its latency and state, then what becomes of it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cli.test_cli_views import a_signal, text_of

from chandlery.cli.collecting import Collected, Found, row_of
from chandlery.cli.signal_watch import Change, News, SignalWatch, change_json
from chandlery.cli.signalling import must_be_known
from chandlery.console.lines import life_line, signal_line
from chandlery.core.errors import InputError
from chandlery.core.signal_life import Lives
from chandlery.core.signals import Action, Completion, Life, Signal, SignalsRecord, SignalStamps, Word, encode

AT = 1_700_000_000_000
#: Ten intervals of 1 s.
TTL = 10_000


def made(number: int, action: Action = "buy", at_ms: int = AT, *, forming: bool = False) -> Signal:
    stamps = SignalStamps(received_ns=1_000, signalled_ns=number)
    identity = f"{number:032x}"
    return a_signal(id=identity, action=action, emitted_wall_ms=at_ms, forming=forming, stamps=stamps)


def done(signal: Signal) -> Completion:
    return Completion(signal.id, signal.trader, acknowledged_ns=4_201_000, wall_offset_ns=0)


def word(signal: Signal, state: Word, at_ms: int) -> Life:
    return Life(signal.id, signal.trader, signal.symbol, state, signal.open_time_ms, at_ms)


def watch(trader: str = "default/sma-btc") -> SignalWatch:
    return SignalWatch(lambda signal: signal.trader == trader)


def take(watching: SignalWatch, now_ms: int, *records: SignalsRecord) -> list[tuple[str, ...]]:
    return [said(one) for one in watching.take(map(encode, records), now_ms)]


def said(news: News) -> tuple[str, ...]:
    if isinstance(news, Change):
        ended_by = (str(int(news.ended_by, 16)),) if news.ended_by else ()
        return (str(int(news.signal.id, 16)), news.state, *ended_by)
    return (str(int(news.signal.id, 16)), f"is {news.life.state if news.life else 'unknown'}")


def test_a_signal_is_told_with_its_latency_and_state_once_its_completion_is_there() -> None:
    watching, signal = watch(), made(1)
    assert watching.take([encode(signal)], AT) == []
    (news,) = watching.take([encode(done(signal)), encode(done(signal))], AT + 3)
    assert isinstance(news, Found)
    line = text_of(signal_line(row_of(news.signal, news.life)))
    assert "4.20 ms" in line
    assert "active" in line
    assert watching.take([encode(signal)], AT + 5) == [], "a repetition is no other signal"


def test_without_a_completion_a_signal_is_told_after_a_second_or_where_the_clock_was_set_back() -> None:
    watching = watch()
    assert take(watching, AT, made(1)) == []
    assert watching.due(AT + 999) == []
    assert [said(one) for one in watching.due(AT + 1_000)] == [("1", "is active")]
    assert take(watching, AT, made(2)) == []
    assert [said(one) for one in watching.due(AT - 1)] == [("2", "is active")]


@pytest.mark.parametrize(
    ("state", "after"),
    [("confirmed", [("1", "confirmed"), ("1", "expired")]), ("invalidated", [("1", "invalidated")])],
)
def test_what_a_close_says_of_a_told_signal_is_told_and_then_its_end(state: Word, after: list[tuple[str, ...]]) -> None:
    watching, signal = watch(), made(1, forming=True)
    assert take(watching, AT, signal, done(signal)) == [("1", "is detected")]
    told = take(watching, AT + 500, word(signal, state, AT + 400), word(signal, state, AT + 400))
    told += [said(one) for one in watching.due(AT + 400 + TTL + 999)]
    told += [said(one) for one in watching.due(AT + 400 + TTL + 1_000)]
    told += [said(one) for one in watching.due(AT + 400 + 10 * TTL)]
    assert told == after


def test_an_opposite_signal_is_told_before_what_it_closes_and_an_alike_one_closes_nothing() -> None:
    watching = watch()
    buy, again, sell = made(1), made(2, at_ms=AT + 1), made(3, "sell", AT + 2)
    assert take(watching, AT, buy, done(buy), again, done(again)) == [("1", "is active"), ("2", "is active")]
    assert take(watching, AT + 2, sell) == [], "the end waits for the line of what ends it"
    assert take(watching, AT + 3, done(sell)) == [("3", "is active"), ("1", "closed", "3"), ("2", "closed", "3")]


def test_what_closed_a_signal_in_its_last_moment_is_heard_before_it_is_said_to_be_expired() -> None:
    watching, buy, sell = watch(), made(1), made(2, "sell", AT + TTL)
    assert take(watching, AT, buy, done(buy)) == [("1", "is active")]
    assert watching.due(AT + TTL + 500) == []
    assert take(watching, AT + TTL + 900, sell, done(sell)) == [("2", "is active"), ("1", "closed", "2")]
    assert watching.due(AT + TTL + 5_000) == []


def test_of_the_past_only_what_was_shown_is_told_again_and_others_traders_never_are() -> None:
    collected = Collected()
    shown, hidden = made(1), made(2)
    for record in (shown, hidden):
        collected.add(encode(record))
    watching = SignalWatch(lambda signal: signal.trader == "default/sma-btc", collected)
    watching.show(Found(shown, collected.lives.of(shown.id, AT)))
    sell = made(3, "sell", AT + 5)
    other = msgspec.structs.replace(made(4), trader="default/other")
    told = take(watching, AT + 9, shown, other, done(other), sell, done(sell))
    assert told == [("3", "is active"), ("1", "closed", "3")]


def test_a_change_is_one_short_line_and_in_json_of_a_kind_of_its_own() -> None:
    change = Change(made(1), "closed", AT + 7, f"{3:032x}")
    assert text_of(life_line(row_of(change.signal), *change[1:])).split() == [
        "22:13:20", "00000000", "default/sma-btc", "closed", "by", "00000000"
    ]  # fmt: skip
    assert msgspec.json.decode(change_json(change)) == {
        "kind": "state", "id": f"{1:032x}", "trader": "default/sma-btc", "symbol": "BTC/USDT", "state": "closed",
        "at_ms": AT + 7, "ended_by": f"{3:032x}",
    }  # fmt: skip


_ACTIONS = st.sampled_from(("buy", "sell", "close", "custom"))


@given(
    st.lists(st.tuples(_ACTIONS, st.booleans(), st.sampled_from((None, "confirmed", "invalidated"))), max_size=12),
    st.lists(st.integers(1, 30), max_size=30),
)
def test_what_is_told_in_pieces_is_the_life_that_all_records_tell(
    signals: list[tuple[Action, bool, Word | None]], cuts: list[int]
) -> None:
    records: list[SignalsRecord] = []
    for number, (action, forming, state) in enumerate(signals, 1):
        signal = made(number, action, AT + 100 * number, forming=forming)
        records += [signal, done(signal)]
        if forming and state is not None:
            records.append(word(signal, state, AT + 100 * number + 50))
    lives = Lives()
    for record in records:
        if not isinstance(record, Completion):
            lives.add(record)
    watching = watch()
    states: dict[str, str] = {}
    told: list[News] = []
    while records:
        size = cuts.pop() if cuts else len(records)
        told += watching.take(map(encode, records[:size]), AT)
        del records[:size]
    told += watching.due(AT + 1_000)
    told += watching.due(AT + 100 * TTL)
    for one in told:
        if isinstance(one, Found):
            assert one.signal.id not in states, "told once"
            assert one.life is not None
            states[one.signal.id] = one.life.state
        else:
            assert states[one.signal.id] not in (one.state, "invalidated", "closed", "expired"), "an end is the end"
            states[one.signal.id] = "active" if one.state == "confirmed" else one.state
    for number in range(1, len(signals) + 1):
        life = lives.of(f"{number:032x}", AT + 100 * TTL)
        assert life is not None
        assert states[f"{number:032x}"] == life.state


@pytest.mark.parametrize("named", ["", "one", "default/one", "gone", "old/gone"])
def test_a_trader_that_is_there_or_whose_signals_are_is_known(named: str) -> None:
    must_be_known(named, ["default/one"], [a_signal(trader="old/gone")])


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("sma-bct", 'no Trader "sma-bct"; there are: default/rsi, default/sma-btc; did you mean "sma-btc"?'),
        (
            "defualt/rsi",
            'no Trader "defualt/rsi"; there are: default/rsi, default/sma-btc; did you mean "default/rsi"?',
        ),
        ("zzz", 'no Trader "zzz"; there are: default/rsi, default/sma-btc'),
    ],
)
def test_a_trader_that_is_nowhere_is_named_with_those_there_are(named: str, told: str) -> None:
    with pytest.raises(InputError) as raised:
        must_be_known(named, ["default/sma-btc", "default/rsi"], [a_signal()] if named == "zzz" else [])
    assert str(raised.value) == told
    with pytest.raises(InputError, match="there are: none"):
        must_be_known(named, [], [])
