"""What makes a signal's trace whole: every stage, end to end, with the account's own numbers."""

from __future__ import annotations

import pytest
from tests.support.otlp_receiver import Receiver, Seen

from chandlery.core.latency import STAGES, account
from chandlery.core.signals import Signal

_SERVICE_OF = {
    "appended": "chandlery-ingest",
    "aggregated": "chandlery-aggregator",
    "emitted": "chandlery-aggregator",
    "fed": "chandlery-feed",
    "published": "chandlery-feed",
    "woken": "chandlery-trader",
    "decided": "chandlery-trader",
    "signalled": "chandlery-trader",
    "acknowledged": "chandlery-feed",
}


def check_trace(spans: list[Seen], signal: Signal) -> None:
    """One signal's trace is complete, lies end to end, and tells the account's numbers."""
    told = account(signal.stamps)
    (root,) = [span for span in spans if not span.parent_id]
    stages = [span for span in spans if span.parent_id == root.span_id]
    stages.sort(key=lambda span: STAGES.index(span.attributes["chandlery.stage"]))
    assert [span.attributes["chandlery.stage"] for span in stages] == list(STAGES)
    assert len({span.span_id for span in spans}) == len(spans)
    assert {span.attributes["chandlery.stage"]: span.service for span in stages} == _SERVICE_OF
    for span, stage in zip(stages, told.stages, strict=True):
        assert span.end_ns >= span.start_ns
        assert span.length_us == pytest.approx(stage.duration_us, abs=0.001), stage.name
        assert span.attributes["chandlery.stage.clock"] == stage.clock
    assert [span.start_ns for span in stages[1:]] == [span.end_ns for span in stages[:-1]], "end to end"
    assert (stages[0].start_ns, stages[-1].end_ns) == (root.start_ns, root.end_ns)
    assert root.length_us == pytest.approx(told.whole_us, abs=0.001)
    assert root.attributes["chandlery.frame_to_signal_us"] == told.frame_to_signal_us
    assert root.attributes["chandlery.trader"] == signal.trader
    inner = [span for span in spans if span.parent_id and span.parent_id != root.span_id]
    assert [span.name for span in inner] == (["on candle"] if signal.strategy_ns else [])
    assert stages[-1].attributes["messaging.destination.name"].endswith(".signals")
    assert abs(root.start_ns / 1e9 - signal.emitted_wall_ms / 1e3) < 60, "in wall clock"


def check_all_traced(receiver: Receiver, signals: list[Signal]) -> None:
    """Each of these signals is one whole trace, and there is no other."""
    traces = receiver.traces()
    assert traces.keys() == {signal.id for signal in signals}
    for signal in signals:
        check_trace(traces[signal.id], signal)
