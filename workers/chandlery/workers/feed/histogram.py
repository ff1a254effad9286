"""How long each stage of the worker's signals takes, and the two spans of time that people ask about."""

from __future__ import annotations

from chandlery.core.histogram import Histogram
from chandlery.core.latency import STAGES, Account


class LatencyBook:
    """Histograms of every stage and of the two spans that people ask about."""

    def __init__(self) -> None:
        self.stages = {name: Histogram() for name in STAGES}
        self.frame_to_signal = Histogram()
        self.visible_to_decided = Histogram()
        self.corrected = 0

    def record(self, account: Account, trace_id: str = "") -> None:
        """Count one signal's account; ``trace_id`` (hex) where its trace is exported."""
        for stage in account.stages:
            histogram = self.stages.get(stage.name)
            if histogram is not None:
                histogram.record(stage.duration_us, trace_id)
        if account.frame_to_signal_us is not None:
            self.frame_to_signal.record(account.frame_to_signal_us, trace_id)
        if account.visible_to_decided_us is not None:
            self.visible_to_decided.record(account.visible_to_decided_us, trace_id)
        self.corrected += account.corrected

    def summary(self) -> dict[str, object]:
        """As in the status (docs/status.md); µs."""
        return {
            "frame_to_signal": self.frame_to_signal.summary(),
            "visible_to_decided": self.visible_to_decided.summary(),
            "stages": {name: histogram.summary() for name, histogram in self.stages.items()},
            "corrected_stamps": self.corrected,
        }
