"""What makes a signal's trace whole: every stage, end to end, with the account's own numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

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
_KIND_OF = {
    "appended": "SPAN_KIND_PRODUCER",
    "aggregated": "SPAN_KIND_CONSUMER",
    "fed": "SPAN_KIND_CLIENT",
    "acknowledged": "SPAN_KIND_PRODUCER",
}
_MOST_LINKS = 16
#: Spans are told in whole ns, and a stage of no length as 1 ns.
_STEP_US = 0.002


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
        assert span.end_ns > span.start_ns, "none has no length, which backends warn of"
        assert span.length_us == pytest.approx(stage.duration_us, abs=_STEP_US), stage.name
        assert span.attributes["chandlery.stage.clock"] == stage.clock
        assert span.kind == _KIND_OF.get(stage.name, "SPAN_KIND_INTERNAL")
        assert ("messaging.destination.name" in span.attributes) == (stage.name in _KIND_OF)
    assert [span.start_ns for span in stages[1:]] == [span.end_ns for span in stages[:-1]], "end to end"
    assert (stages[0].start_ns, stages[-1].end_ns) == (root.start_ns, root.end_ns)
    assert root.length_us == pytest.approx(told.whole_us, abs=_STEP_US)
    assert root.attributes["chandlery.frame_to_signal_us"] == told.frame_to_signal_us
    assert root.attributes["chandlery.trader"] == signal.trader
    inner = [span for span in spans if span.parent_id and span.parent_id != root.span_id]
    assert [span.name for span in inner] == (["on candle"] if signal.strategy_ns else [])
    assert stages[-1].attributes["messaging.destination.name"].endswith(".signals")
    assert abs(root.start_ns / 1e9 - signal.emitted_wall_ms / 1e3) < 60, "in wall clock"


def check_links(traces: Mapping[str, list[Seen]], signals: list[Signal]) -> int:
    """Signals that came of one candle record are linked, each to those before it, at the decision; how many links."""
    records: defaultdict[tuple[str, int, int], dict[str, Signal]] = defaultdict(dict)
    for signal in signals:
        records[signal.symbol, signal.stamps.received_ns, signal.stamps.emitted_ns][signal.id] = signal
    found = 0
    for record in records.values():
        counts = []
        for signal_id in record:
            (root,) = [span for span in traces[signal_id] if not span.parent_id]
            assert not any(span.links for span in traces[signal_id] if span is not root)
            for trace_id, span_id, about in root.links:
                assert trace_id in record.keys() - {signal_id}, "of the same record"
                (decided,) = [span for span in traces[trace_id] if span.span_id == span_id]
                assert decided.attributes["chandlery.stage"] == "decided"
                said = {"chandlery.link": "same candle record", "chandlery.trader": record[trace_id].trader}
                assert about == said
            assert len({trace_id for trace_id, _, _ in root.links}) == len(root.links)
            counts.append(len(root.links))
        assert sorted(counts) == [min(before, _MOST_LINKS) for before in range(len(record))]
        found += sum(counts)
    return found


def check_all_traced(receiver: Receiver, signals: list[Signal]) -> None:
    """Each of these signals is one whole trace, linked to those of the same record, and there is no other."""
    traces = receiver.traces()
    assert traces.keys() == {signal.id for signal in signals}
    for signal in signals:
        check_trace(traces[signal.id], signal)
    check_links(traces, signals)
