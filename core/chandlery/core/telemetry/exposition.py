"""Figures in Prometheus' form: families read where they are kept, when somebody asks. Nothing is counted twice.

prometheus_client is imported here alone: a process that nobody scrapes does without it (1 MB).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from chandlery.core.histogram import BOUNDS_US, Histogram
from chandlery.core.processes import pss_bytes

#: An answer is given again for this long, s: far below any interval of scraping.
FRESH_S: Final = 1.0
#: Texts kept: clients may ask for forms that differ in an escaping scheme.
_MOST_FORMS: Final = 4
_BOUNDS: Final = tuple(str(floatToGoString(bound / 1e6)) for bound in BOUNDS_US)  # type: ignore[no-untyped-call]


class Exposition:
    """One process's figures.

    They are read on the loop, where they change; made into text, which takes tens of ms, beside it. One scrape at a time:
    who asks meanwhile, or within :data:`FRESH_S`, gets the same answer.

    Args:
        families: gives every family of now, of names under ``chandlery_``. Those of the process come beside them.
    """

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families
        self._process = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._process)
        self._turn = asyncio.Lock()
        #: By content type's encoder: the text, and when its figures were read, s by the loop's clock.
        self._made: dict[str, tuple[bytes, float]] = {}

    async def answer(self, accept: str) -> tuple[bytes, str]:
        """The figures, and their content type: OpenMetrics (with exemplars) for who accepts it, else text 0.0.4."""
        encode, content_type = choose_encoder(accept)
        async with self._turn:
            now_s = asyncio.get_running_loop().time()
            made = self._made.get(content_type)
            if made is not None and now_s - made[1] < FRESH_S:
                return made[0], content_type
            read = list(self._families())
            body = await asyncio.to_thread(self._encoded, encode, read)
            if len(self._made) >= _MOST_FORMS:
                self._made.clear()
            self._made[content_type] = body, now_s
            return body, content_type

    def _encoded(self, encode: Callable[[CollectorRegistry], bytes], read: list[Metric]) -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Read([*read, *self._process.collect(), _memory()]))
        return encode(registry)


class _Read(Collector):
    """Families that were read already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._families

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known when they are collected."""
        return ()


def _memory() -> Metric:
    return gauge(
        "process_proportional_memory_bytes",
        "Memory of the process with what it shares divided among those who share it (PSS)",
        pss_bytes(),
    )


def counter(name: str, meaning: str, values: float | Mapping[str, float], label: str = "") -> CounterMetricFamily:
    """A counter, or one a value of ``label``; ``_total`` comes behind its name by itself."""
    if not isinstance(values, Mapping):
        return CounterMetricFamily(name, meaning, value=values)
    family = CounterMetricFamily(name, meaning, labels=(label,))
    for value, number in values.items():
        family.add_metric((value,), number)
    return family


def gauge(name: str, meaning: str, values: float | Mapping[str, float], label: str = "") -> GaugeMetricFamily:
    """A gauge, or one a value of ``label``."""
    if not isinstance(values, Mapping):
        return GaugeMetricFamily(name, meaning, value=values)
    family = GaugeMetricFamily(name, meaning, labels=(label,))
    for value, number in values.items():
        family.add_metric((value,), number)
    return family


def histogram(
    name: str, meaning: str, histograms: Histogram | Mapping[str, Histogram], label: str = ""
) -> HistogramMetricFamily:
    """Durations in seconds, in buckets from 1 µs to 67 s, each with its newest trace as exemplar."""
    if isinstance(histograms, Histogram):
        family = HistogramMetricFamily(name, meaning)
        family.add_metric((), _buckets(histograms), histograms.sum_us / 1e6)
        return family
    family = HistogramMetricFamily(name, meaning, labels=(label,))
    for value, one in histograms.items():
        family.add_metric((value,), _buckets(one), one.sum_us / 1e6)
    return family


def _buckets(one: Histogram) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    made: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for index, (bound, number) in enumerate(zip((*_BOUNDS, "+Inf"), (*one.below(), one.count), strict=True)):
        shown = one.exemplars.get(index)
        if shown is None:
            made.append((bound, float(number)))
        else:
            exemplar = Exemplar({"trace_id": shown.trace_id}, shown.value_us / 1e6, shown.at_s)
            made.append((bound, float(number), exemplar))
    return made


class Labelled:
    """Names that may be labels: the first ``most`` to come keep theirs, the others share ``_other``.

    A label's value is a time series for as long as Prometheus remembers: names that anybody may invent must not be
    without a bound. What was counted in ``_other`` stays there for as long as it is known: were it to leave, the sum
    would fall, which Prometheus takes for a process that began anew.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._names: set[str] = set()
        self._sharing: set[str] = set()
        self.others = 0

    def follow(self, names: Iterable[str]) -> None:
        """These are the names of now; those that are gone make room for such as are new."""
        now = set(names)
        self._names &= now
        self._sharing &= now
        for name in sorted(now - self._names - self._sharing):
            (self._names if len(self._names) < self._most else self._sharing).add(name)
        self.others = len(self._sharing)

    def __getitem__(self, name: str) -> str:
        """The label for a name."""
        return name if name in self._names else "_other"

    def summed(self, values: Mapping[str, float]) -> dict[str, float]:
        """Values by name as values by label."""
        summed: dict[str, float] = {}
        for name, value in values.items():
            label = self[name]
            summed[label] = summed.get(label, 0.0) + value
        return summed
