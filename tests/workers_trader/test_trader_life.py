"""What the close of a candle says of the signals made on it while it was forming: from the trader's loop through its
ring and the feed's admission to the records of the topic."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.workers_trader.test_trader_forming import Above
from tests.workers_trader.trader_stage import STEP_MS, TRADER, Player, Stage, Tell

from chandlery.core.assignment import TraderAssignment
from chandlery.core.signal_life import Lives
from chandlery.core.signals import Decided, Life, Signal
from chandlery.workers.candles import Candles
from chandlery.workers.feed.admission import RecentIds
from chandlery.workers.feed.assignments import Fence
from chandlery.workers.feed.forming_signals import FormingSignals, MissedCloses
from chandlery.workers.feed.ring_drain import RingDrain, Tally
from chandlery.workers.segment import SignalRing
from chandlery.workers.strategy import Context
from chandlery.workers.trader.messages import Live


class Topic:
    """The feed's side of one ring: what it would write to the topic, and how it counts."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.tally = Tally()
        self.records: list[Signal | Life] = []
        self.begin_feed()

    def begin_feed(self) -> None:
        """A feed that has just started: what is on the topic it has read there (recall.py)."""
        self.ids, self.forming = RecentIds(), FormingSignals()
        for record in self.records:
            if isinstance(record, Signal):
                self.ids.recall(record.id)
                note(self.forming, record)
            else:
                self.forming.settle(record.id)

    def take(self, spec: TraderAssignment) -> list[str]:
        """Drain the ring; what came to the topic, in words."""
        path = Path(self.stage.ring_path)
        drain = RingDrain(f"{TRADER}@{spec.incarnation}", path, path.stat().st_ino, self.tally, Counter())
        came: list[Signal | Life] = []
        while entries := drain.take(Fence.of(spec), self.ids, self.forming):
            for entry in entries:
                assert entry.record is not None
                came.append(entry.record)
                entry.done = True
            drain.settle()
        drain.settle()
        assert drain.depth() == 0
        drain.close()
        self.records += came
        return [f"{record.action} {record.price}" if isinstance(record, Signal) else record.state for record in came]

    def states(self) -> list[str]:
        """The state of each signal, oldest first."""
        lives = Lives()
        for record in self.records:
            lives.add(record)
        ids = dict.fromkeys(record.id for record in self.records)
        return [found.state for one in ids if (found := lives.of(one, 0)) is not None]


def note(forming: FormingSignals, signal: Signal) -> None:
    """Remember a signal on a forming candle."""
    if signal.forming:
        forming.note(
            signal.id,
            signal.action,
            trader=signal.trader,
            code=signal.code,
            symbol=signal.symbol,
            session=signal.session,
            open_time_ms=signal.open_time_ms,
        )


@pytest.fixture
def topic(stage: Stage) -> Topic:
    return Topic(stage)


@pytest.fixture
def every(stage: Stage) -> TraderAssignment:
    return stage.spec(trigger="EveryUpdate")


def watching(stage: Stage, spec: TraderAssignment) -> tuple[int, Player]:
    """A trader that has seen two closed candles, and the third one forming without a signal."""
    index = stage.series()
    stage.close(index, 0, 1)
    player = stage.trader(spec, Above)
    player.settle()
    stage.form(index, 2, 5.0)
    player.settle()
    return index, player


def close(stage: Stage, index: int, at: int, price: float) -> None:
    stage.writer.append(index, at * STEP_MS, price, price, price, price, 1.0, 1, (0,) * 8)


def test_a_close_that_says_the_same_confirms_and_is_no_signal_of_its_own(
    stage: Stage, topic: Topic, every: TraderAssignment
) -> None:
    index, player = watching(stage, every)
    stage.form(index, 2, 11.0)
    player.settle()
    assert topic.take(every) == ["buy 11"]
    assert topic.states() == ["detected"]
    close(stage, index, 2, 14.0)
    player.settle()
    assert topic.take(every) == ["confirmed"]
    assert topic.states() == ["active"]
    assert player.counters()["signals"] == 1
    assert (topic.tally.emitted, topic.tally.dropped) == (1, {})
    word = topic.records[-1]
    assert isinstance(word, Life)
    assert (word.id, word.open_time_ms) == (topic.records[0].id, 2 * STEP_MS)
    assert word.at_wall_ms > 0


def test_a_close_that_does_not_say_it_withdraws_it(stage: Stage, topic: Topic, every: TraderAssignment) -> None:
    index, player = watching(stage, every)
    stage.form(index, 2, 11.0)
    player.settle()
    close(stage, index, 2, 9.0)
    player.settle()
    assert topic.take(every) == ["buy 11", "invalidated"]
    assert topic.states() == ["invalidated"]
    assert (topic.tally.emitted, player.counters()["signals"]) == (1, 1)


def test_once_watching_nothing_is_told_of_closes_without_a_forming_signal(
    stage: Stage, topic: Topic, every: TraderAssignment
) -> None:
    index, player = watching(stage, every)
    close(stage, index, 2, 5.0)
    player.settle()
    topic.take(every)
    head = player.ring.info()["head"]
    for at in range(3, 8):
        stage.form(index, at, 5.0)
        player.settle()
        close(stage, index, at, 5.0)
        player.settle()
    assert player.ring.info()["head"] == head, "nothing in the ring for ticks that signal nothing"
    close(stage, index, 8, 20.0)
    player.settle()
    assert topic.take(every) == ["buy 20"]
    assert topic.states() == ["active"]


def test_a_trader_of_closes_alone_tells_nothing_of_them(stage: Stage) -> None:
    index = stage.series()
    stage.close(index, 0, 1)
    player = stage.trader(make=Above)
    player.settle()
    stage.form(index, 2, 11.0)
    close(stage, index, 2, 14.0)
    player.settle()
    assert len(stage.signals()) == 1
    assert stage.decided == []


@pytest.mark.parametrize(("price", "word"), [(14.0, "confirmed"), (9.0, "invalidated")])
@pytest.mark.parametrize("feed", ["runs", "restarts"])
def test_a_trader_that_starts_again_before_the_close_leaves_no_signal_without_a_word(
    stage: Stage, topic: Topic, every: TraderAssignment, price: float, word: str, feed: str
) -> None:
    index, player = watching(stage, every)
    stage.form(index, 2, 11.0)
    player.settle()
    assert topic.take(every) == ["buy 11"]
    if feed == "restarts":
        topic.begin_feed()
    again = stage.trader(every, Above)
    close(stage, index, 2, price)
    again.settle()
    assert topic.take(every) == [word]
    assert topic.tally.emitted == 1


@pytest.mark.parametrize(("price", "word"), [(14.0, "confirmed"), (9.0, "invalidated")])
def test_one_that_starts_while_the_candle_still_forms_is_told_of_too(
    stage: Stage, topic: Topic, every: TraderAssignment, price: float, word: str
) -> None:
    index, player = watching(stage, every)
    stage.form(index, 2, 11.0)
    player.settle()
    again = stage.trader(every, Above)
    again.settle()
    stage.form(index, 2, 9.5)
    again.settle()
    close(stage, index, 2, price)
    again.settle()
    assert topic.take(every)[0] == "buy 11"
    assert topic.states() == ["active" if word == "confirmed" else "invalidated"]
    stage.form(index, 3, 5.0)
    again.settle()
    close(stage, index, 3, 5.0)
    head = again.ring.info()["head"]
    again.settle()
    assert again.ring.info()["head"] == head, "of that candle on it knows itself"


def test_a_decision_that_is_repeated_after_a_crash_tells_its_words_once(
    stage: Stage, topic: Topic, every: TraderAssignment
) -> None:
    """Killed between the push and the stored position."""
    index, player = watching(stage, every)
    stage.form(index, 2, 11.0)
    player.settle()
    position = player.ring.position("BTC/USDT 1s")
    assert position is not None
    close(stage, index, 2, 9.0)
    player.settle()
    player.ring.set_position("BTC/USDT 1s", *position)
    again = stage.trader(every, Above)
    again.settle()
    assert topic.take(every) == ["buy 11", "invalidated"]


def test_another_code_says_nothing_of_what_the_one_before_signalled(
    stage: Stage, topic: Topic, every: TraderAssignment
) -> None:
    index, player = watching(stage, every)
    stage.form(index, 2, 11.0)
    player.settle()
    topic.take(every)
    again = stage.trader(every, Above)
    again.loop._code = "0ther"
    close(stage, index, 2, 9.0)
    again.settle()
    assert topic.take(every) == []
    assert topic.states() == ["detected"], "it was never guessed"


def test_a_candle_whose_session_ends_says_nothing_and_the_next_session_goes_on(
    stage: Stage, topic: Topic, every: TraderAssignment
) -> None:
    index, player = watching(stage, every)
    stage.form(index, 2, 11.0)
    player.settle()
    stage.writer.reset(index, 2)
    close(stage, index, 2, 5.0)
    close(stage, index, 3, 5.0)
    player.settle()
    stage.form(index, 4, 12.0)
    player.settle()
    close(stage, index, 4, 5.0)
    player.settle()
    assert topic.take(every) == ["buy 11", "buy 12", "invalidated"]
    assert topic.states() == ["detected", "invalidated"]


class Turns(Tell):
    """One rule that says buy while the candle forms and sell at its close: two things under one name."""

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        if ctx.is_forming:
            ctx.buy("up so far", rule="turns")
        else:
            ctx.sell("down after all", rule="turns")


def test_a_close_that_says_something_else_under_the_same_rule_withdraws(
    stage: Stage, topic: Topic, every: TraderAssignment
) -> None:
    index = stage.series()
    stage.close(index, 0)
    player = stage.trader(every, Turns)
    player.settle()
    stage.form(index, 1, 2.0)
    player.settle()
    close(stage, index, 1, 1.0)
    player.settle()
    assert topic.take(every) == ["buy 2", "invalidated"]
    assert topic.tally.dropped == {"duplicate_signal": 1}


def test_a_full_ring_keeps_words_in_their_order(tmp_path: Path) -> None:
    stage = Stage(tmp_path, slots=1)
    topic, every = Topic(stage), stage.spec(trigger="EveryUpdate")
    index, player = watching(stage, every)
    stage.form(index, 2, 11.0)
    player.turn(2)
    close(stage, index, 2, 14.0)
    player.turn(3)
    assert player.state() == "Blocked"
    told: list[str] = []
    for _ in range(4):
        told += topic.take(every)
        player.turn(2)
    assert told == ["buy 11", "confirmed"]
    assert player.ring.position("BTC/USDT 1s") == (1, 2 * STEP_MS)


def test_one_that_becomes_active_again_does_not_know_what_another_signalled_meanwhile(
    stage: Stage, topic: Topic, every: TraderAssignment
) -> None:
    index, player = watching(stage, every)
    player.loop.apply(Live(1, "standby", stage.path, 0))
    player.settle()
    player.loop.apply(Live(2, "active", stage.path, 0))
    player.settle()
    close(stage, index, 2, 5.0)
    player.settle()
    with SignalRing.attach(stage.ring_path) as ring:
        assert ring.depth == 1, "the feed shall look whether anything waits for this close"
    assert topic.take(every) == []


def test_a_word_of_a_foreign_trader_series_or_incarnation_tells_nothing(stage: Stage, every: TraderAssignment) -> None:
    from chandlery.core.signals import encode
    from chandlery.workers.feed.admission import admit

    fence, ids, forming = Fence.of(every), RecentIds(), FormingSignals()
    forming.note("a" * 32, "buy", trader=TRADER, code="c", symbol="BTC/USDT", session=1, open_time_ms=7)
    good = Decided(TRADER, "c", "BTC/USDT", "1s", 7, 1, every.incarnation, 5)

    def told(**changes: object) -> tuple[int, str, bool]:
        payload = encode(Decided(**{**{name: getattr(good, name) for name in good.__struct_fields__}, **changes}))
        admission = admit(payload, TRADER, fence, ids, forming, MissedCloses())
        return len(admission.records), admission.reason, admission.is_signal

    assert told(trader="desk/b") == (0, "bad_signal", True)
    assert told(symbol="ETH/USDT") == (0, "bad_signal", True)
    assert told(at_wall_ms=10**30) == (0, "bad_signal", True)
    assert told(incarnation=9) == (0, "fenced", False)
    assert told(session=2) == (0, "", False)
    assert told() == (1, "", False)
    assert told() == (0, "", False), "once"


def test_of_more_signals_on_forming_candles_than_are_remembered_the_oldest_stays_without_a_word() -> None:
    forming = FormingSignals(limit=2)
    for number in range(3):
        forming.note(f"{number:032x}", "buy", trader="d/a", code="c", symbol="B", session=1, open_time_ms=number)
    assert (len(forming), forming.forgotten) == (2, 1)
    assert forming.withdrawn(Decided("d/a", "c", "B", "1m", 0, 1)) == []
    assert [word.id for word in forming.withdrawn(Decided("d/a", "c", "B", "1m", 1, 1))] == [f"{1:032x}"]
