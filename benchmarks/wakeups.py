"""Visible in the segment → decided: real trader processes, 20 of them, one candle every 5 ms.

``one_of_20``: one trader subscribed to the series that changes, 19 others asleep. ``all_20``: all subscribed.
Each call is ``sma-cross`` on a window of 500 candles; the times are the stamps of the signals themselves
(published → decided), so they hold whatever the trader's loop does before and around the strategy.

``all_20`` is taken where one trader at a time signals; ``all_20_at_once`` where all twenty signal on the same
candle, so that writing the signals of the first delays the decisions of the last.

Peers in the same run: the same strategy in 20 processes that get a 7 × 500 float64 window handed over by
multiprocessing.Queue and by multiprocessing.Pipe. Floors: the extension's wait and wake without a trader, and
a C program's.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmarks._fleet import WINDOW, Fleet, Market, crosser, memory_folder
from benchmarks._handover import bare_wakes, c_wakes, hand_over, pace
from benchmarks.harness import Row, percentile, run, say
from chandlery.core.assignment import TraderAssignment

TRADERS: Final = 20
PERIOD_S: Final = 0.005
WARM_ROUNDS: Final = 100
#: One pulse in a flat market of this many candles: sma-cross(fast, slow) buys at the pulse, all together, and
#: sells ``fast`` candles later, each trader at its own time.
PULSE_ROUNDS: Final = 32
_SLOW: Final = 30


class Samples(NamedTuple):
    """Times of one case, ns: of signals that came alone, and of signals that all traders gave together."""

    alone: list[int]
    together: list[int]
    woken_to_decided_mean_ns: float


def _close(number: int) -> float:
    return 110.0 if number % PULSE_ROUNDS == 0 else 100.0


def traders_decide(subscribed: int, rounds: int) -> Samples:
    """Real traders: ``subscribed`` of 20 on the series that is published."""
    traders: list[TraderAssignment] = []
    for index in range(TRADERS):
        symbol = "BUSY/USDT" if index < subscribed else "QUIET/USDT"
        # Alone, a trader that crosses often gives more samples.
        fast, slow = (2, 3) if subscribed == 1 else (2 + index, _SLOW)
        traders.append(crosser(f"trader-{index}", symbol, fast=fast, slow=slow))
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-", dir=memory_folder()) as folder:
        market = Market(folder, ["BUSY/USDT", "QUIET/USDT"])
        for symbol in ("BUSY/USDT", "QUIET/USDT"):
            market.fill(symbol, [100.0] * (WINDOW + 50))
        with Fleet(folder, market.path, traders, slots=4_096) as fleet:
            return _rounds(market, fleet, subscribed, rounds)


def _rounds(market: Market, fleet: Fleet, subscribed: int, rounds: int) -> Samples:
    bells = range(subscribed)
    warm_until_ms = 0
    pulses: set[int] = set()
    gc.freeze()
    for number in pace(WARM_ROUNDS + rounds, PERIOD_S):
        if number == WARM_ROUNDS:
            before = fleet.counters("decided_ns_sum")
        # Alone: the pulse comes every fourth candle.
        close = _close(number) if subscribed > 1 else _close(number % 4)
        open_time_ms, _ = market.publish("BUSY/USDT", close, bells)
        if number < WARM_ROUNDS:
            warm_until_ms = open_time_ms
        if close > 100.0:
            pulses.add(open_time_ms)
    fleet.await_calls([WARM_ROUNDS + rounds] * subscribed + [0] * (TRADERS - subscribed))
    decided_ns = [after - old for after, old in zip(fleet.counters("decided_ns_sum"), before, strict=True)]
    alone: list[int] = []
    together: list[int] = []
    for signals in fleet.signals():
        for signal in signals:
            if signal.open_time_ms > warm_until_ms:
                kind = together if signal.open_time_ms in pulses else alone
                kind.append(signal.stamps.decided_ns - signal.stamps.published_ns)
    market.writer.close()
    return Samples(alone, together, statistics.fmean(decided_ns[:subscribed]) / rounds)


def _microseconds(samples: Sequence[int], share: float) -> float:
    return percentile(samples, share) / 1_000


def _case(name: str, subscribed: int, rounds: int, goal_us: float) -> list[Row]:
    say(f"{name}: traders")
    ours = traders_decide(subscribed, rounds)
    common = {"processes": TRADERS, "subscribed": subscribed, "rounds": rounds, "period_s": PERIOD_S}
    peers: dict[str, list[int]] = {}
    for channel in ("Queue", "Pipe"):
        say(f"{name}: multiprocessing.{channel}")
        peers[channel] = hand_over(channel, warm_rounds=WARM_ROUNDS, **common)  # type: ignore[arg-type]
    say(f"{name}: floors")
    with tempfile.TemporaryDirectory(prefix="chandlery-bench-", dir=memory_folder()) as folder:
        bare = bare_wakes(folder, warm_rounds=WARM_ROUNDS, **common)  # type: ignore[arg-type]
    in_c = c_wakes(**common)  # type: ignore[arg-type]
    # One trader alone: every signal counts, whatever candle it is on.
    mine = ours.alone + ours.together if subscribed == 1 else ours.alone
    rows = []
    for label, share in (("p50", 0.5), ("p99", 0.99)):
        of_peers = {channel: _microseconds(samples, share) for channel, samples in peers.items()}
        c_text = "no compiler" if in_c is None else f"C alone {_microseconds(in_c, share):.0f}"
        counts = f"{len(mine)} samples; of each peer {len(peers['Queue'])}, of the floor {len(bare)}"
        rows.append(
            Row(
                f"wakeups/{name}/{label}",
                _microseconds(mine, share),
                "µs",
                peer=min(of_peers.values()),
                floor=_microseconds(bare, share),
                goal=goal_us if label == "p50" else None,
                note=f"peers: Queue {of_peers['Queue']:.0f}, Pipe {of_peers['Pipe']:.0f}; "
                f"floor: the extension's wake-up alone ({c_text}); {counts}",
            )
        )
        if subscribed > 1:
            rows.append(
                Row(
                    f"wakeups/{name}_at_once/{label}",
                    _microseconds(ours.together, share),
                    "µs",
                    peer=min(of_peers.values()),
                    floor=_microseconds(bare, share),
                    note=f"all traders signal on the same candle; {len(ours.together)} samples",
                )
            )
    rows.append(
        Row(
            f"wakeups/{name}/woken_to_decided_mean",
            ours.woken_to_decided_mean_ns / 1_000,
            "µs",
            note="the part within the trader's loop and strategy, mean over all calls (ring counter decided_ns_sum)",
        )
    )
    return rows


def measure(quick: bool) -> list[Row]:
    """Both cases with their peers and floors."""
    # Four mechanisms a case, two cases: 8 × rounds × 5 ms, and start-ups.
    rounds = 500 if quick else 3_000
    return _case("one_of_20", 1, rounds, 100.0) + _case("all_20", TRADERS, rounds, 500.0)


if __name__ == "__main__":
    run(measure, __doc__)
