"""From signals and processes to figures, and from figures to tables, plots and advice."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from tests.cli_perf.perf_figures import SECOND_NS, comparison, figures, group, observed, signal

from chandlery.cli.comparing.figures import advice_of, measured, ratios, side_by_side, sizes_of, spread
from chandlery.cli.comparing.plotting import svg_of
from chandlery.cli.comparing.result import Comparison, Spread, decode_comparison, encode_comparison
from chandlery.cli.comparing.running import notes_of, problems_of
from chandlery.cli.comparing.showing import comparison_view
from chandlery.cli.comparing.taken import Look, children_of, cpu_ns, elsewhere_percent

IN_TIME = 11 * SECOND_NS


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=3_000))
def test_percentiles_are_values_that_were_measured_and_in_order(values: list[int]) -> None:
    found = spread(values)
    assert found.count == len(values)
    assert found.p50 in values
    assert found.p99 in values
    assert sum(value <= found.p50 for value in values) >= len(values) / 2
    assert (found.p999 is None) == (len(values) < 1_000)
    told = [each for each in (found.p50, found.p99, found.p999) if each is not None]
    assert told == sorted(told)


def test_only_signals_of_the_group_and_of_its_time_count() -> None:
    run = observed(group("Pipe", "a", "b", pool="Pipe"))
    signals = [
        signal("a", 1, at_ns=IN_TIME, decided_us=100),
        signal("b", 1, at_ns=IN_TIME, decided_us=300),
        signal("a", 2, at_ns=IN_TIME, decided_us=200),
        signal("a", 3, at_ns=9 * SECOND_NS, decided_us=9_999),
        signal("a", 4, at_ns=12 * SECOND_NS, decided_us=9_999),
        signal("other", 1, at_ns=IN_TIME, decided_us=9_999),
    ]
    found = measured(run, signals)
    assert found.visible_to_decided_us == Spread(200.0, 300.0, None, 3)
    assert found.frame_to_signal_us == Spread(5_000.0, 5_000.0, None, 3)
    assert (found.candles, found.missed) == (2, 1), "b left out the second candle"
    forming = observed(group("Pipe", "a", "b", pool="Pipe"), trigger="EveryUpdate")
    assert measured(forming, signals).missed == 0


def test_cpu_and_memory_are_of_the_worker_and_a_traders_are_a_mean() -> None:
    # Pids 1 (feed), 2 (supervisor), 3 and 4 (traders): 10 ms each, times the pid, in two seconds.
    found = measured(observed(group("SharedMemory", "a", "b")), [])
    assert (found.feed_cpu_percent, found.trader_cpu_percent, found.worker_cpu_percent) == (0.5, 1.75, 5.0)
    assert (found.feed_pss_bytes, found.trader_pss_bytes, found.worker_pss_bytes) == (10**6, 3_500_000, 10**7)
    assert (found.visible_to_decided_us.count, found.visible_to_decided_us.p50) == (0, None)


def test_side_by_side_compares_what_both_decided_trader_by_trader() -> None:
    run = observed(group("SharedMemory", "s0", "s1"), group("Pipe", "p0", "p1"))
    alike = [signal(name, 1, at_ns=IN_TIME) for name in ("s0", "s1", "p0", "p1")]
    found = side_by_side(run, [*alike, signal("s0", 2, at_ns=IN_TIME)])
    assert (found.decisions, found.different) == (2, 0), "the second candle was decided by one of them only"
    other = [*alike[:3], signal("p1", 1, at_ns=IN_TIME, reason="mean of another window")]
    assert side_by_side(run, other).different == 1
    assert found.visible_to_decided_us["Pipe"].count == 2


def test_ratios_say_how_much_pipes_take_of_what_shared_memory_takes() -> None:
    found = ratios(figures(100, 10.0, 100), figures(250, 12.0, 150))
    assert (found.visible_to_decided_p50, found.worker_cpu, found.worker_pss) == (2.5, 1.2, 1.5)
    assert ratios(figures(100, 0.0, 0), figures(250, 12.0, 150)).worker_cpu is None


def test_a_number_of_traders_counts_once_both_transports_were_measured() -> None:
    of = figures(1, 1.0, 1)
    assert [one.traders for one in sizes_of({(5, "Pipe"): of, (9, "Pipe"): of, (5, "SharedMemory"): of})] == [5]


@pytest.mark.parametrize(
    ("piped", "says"),
    [
        ((300, 20.0, 200), "decides 3.0 times sooner and takes 50% less CPU and 50% less memory: keep it"),
        ((300, 10.0, 100), "decides 3.0 times sooner: keep it"),
        ((100, 10.0, 200), "takes 50% less memory: keep it"),
        ((50, 10.0, 100), "decides 2.0 times later: pipes do as well here"),
        ((300, 5.0, 100), "decides 3.0 times sooner, but it takes 100% more CPU: keep it unless"),
        ((105, 10.5, 99), "the two differ by no more than two runs do: keep shared memory"),
    ],
)
def test_the_advice_follows_from_the_figures_of_the_most_traders(piped: tuple[float, float, int], says: str) -> None:
    shared = figures(100, 10.0, 100)
    found = comparison((50, shared, figures(*piped)), (5, shared, figures(100_000, 1.0, 1)))
    assert f"With 50 traders {'shared memory ' if 'the two' not in says else ''}{says}" in found.advice
    assert "Nothing was measured" in advice_of([])


def test_doubts_are_told_in_sentences() -> None:
    nothing, left_out = figures(1, 1.0, 1, count=0), figures(1, 1.0, 1)
    left_out.missed = 3
    both = comparison().side_by_side
    assert both is not None
    both.different = 2
    told = problems_of({(5, "Pipe"): nothing, (9, "SharedMemory"): left_out}, both)
    assert told == [
        "5 traders on Pipe decided nothing while they were measured: use more --seconds",
        "9 traders on SharedMemory left out 3 of 90 decisions: the machine did not keep up",
        "side by side 2 of 40 decisions differ between the transports",
    ]
    # The machine worked for two seconds, our four processes for 0.1 s of them, in a time of two seconds.
    run = observed(group("SharedMemory", "a", "b"))
    assert elsewhere_percent(run.before, run.after) == pytest.approx(95.0)
    assert notes_of([run]) == [
        "other programs took up to 95 % of a core meanwhile: latencies are those of a busy machine"
    ]


def whole() -> Comparison:
    rows = [(n, figures(100.0 * n, 1.5 * n, 9**8), figures(999.0 * n, 2.5 * n, 9**8 + 5)) for n in (5, 10, 20, 100)]
    return comparison(*rows, problems=["one"], notes=["two"])


@pytest.mark.parametrize("width", [80, 120, 400])
def test_the_tables_fit_a_terminal_of_80_columns(width: int) -> None:
    console = Console(file=io.StringIO(), width=width)
    console.print(comparison_view(whole()))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    assert "…" not in shown
    for words in ("F→S P99", "shared memory", "pipe ÷ shared", "side by side", "doubtful: one", "note: two", "█"):
        assert words.lower() in shown.lower()


def test_the_plot_is_an_svg_with_a_bar_for_each_figure_and_colours_for_dark_grounds() -> None:
    root = ET.fromstring(svg_of(whole()))
    bars = [one for one in root.iter("{http://www.w3.org/2000/svg}rect") if len(one)]
    assert len(bars) == 4 * 4 * 2
    assert all(float(one.attrib["height"]) >= 0 for one in bars)
    (style,) = root.iter("{http://www.w3.org/2000/svg}style")
    assert "prefers-color-scheme: dark" in (style.text or "")
    empty = svg_of(comparison())
    assert "nothing was measured" in empty
    ET.fromstring(empty)


def test_the_json_says_the_same_again() -> None:
    assert decode_comparison(encode_comparison(whole())) == whole()


def test_another_processs_time_and_children_are_read_from_the_kernel() -> None:
    spin = "import sys, time; end = time.process_time() + 0.2\nwhile time.process_time() < end: pass\nprint(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        before = Look.at([process.pid, os.getpid()])
        process.stdout.readline()
        taken = cpu_ns(process.pid)
        assert taken is not None
        assert taken >= 200_000_000
        assert process.pid in children_of(os.getpid())
        after = Look.at([process.pid])
        assert after.percent_since(before, process.pid) is not None
        assert after.percent_since(before, os.getpid()) is None, "not looked at the second time"
        process.communicate()
    assert cpu_ns(process.pid) is None
    assert children_of(process.pid) == []
    assert time.monotonic_ns() >= after.at_ns
