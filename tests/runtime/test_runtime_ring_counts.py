"""What rings have counted since the run began, over edits that replace incarnations and with them their rings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from tests.runtime.up_process import Up, kill_hard, platform, teller, until

from chandlery.cli.runtime.ring_counts import RingCounts
from chandlery.core.assignment import TraderAssignment
from chandlery.stream.broker import EmbeddedBroker
from chandlery.workers.ring_names import ring_file_name
from chandlery.workers.segment import SignalRing
from chandlery.workers.supervisor.heritage import heritage

ONE = "default/one"


def ring_of(folder: Path, incarnation: int, *, is_heir: bool = False) -> SignalRing:
    spec = TraderAssignment(ONE, "u", "each-candle", ["BTC/USDT"], "1s", incarnation=incarnation)
    path = str(folder / ring_file_name(spec.key))
    return SignalRing.create(path, trader=ONE, uid="u", heritage=heritage(folder, spec) if is_heir else None)


def decide(ring: SignalRing, signals: int) -> None:
    """So many decisions with a signal each, and one candle that came too late."""
    ring.add("calls", signals)
    ring.add("signals", signals)
    ring.add("decided_ns_sum", 1_000 * signals)
    ring.add("lapped")


def let_go(folder: Path, incarnation: int) -> None:
    (folder / ring_file_name(f"{ONE}@{incarnation}")).unlink()


def begun(folder: Path, *incarnations: int) -> RingCounts:
    counts = RingCounts(folder)
    counts.want([f"{ONE}@{number}" for number in incarnations])
    counts.begin()
    return counts


def total(counts: RingCounts) -> Counter[str]:
    return sum(counts.grown().values(), Counter())


def test_what_a_replaced_incarnation_counted_last_stays_when_its_ring_is_gone(tmp_path: Path) -> None:
    first = ring_of(tmp_path, 1)
    decide(first, 100)
    counts = begun(tmp_path, 1)
    decide(first, 10)
    counts.want([f"{ONE}@1", f"{ONE}@2"])
    second = ring_of(tmp_path, 2)
    counts.look()
    decide(first, 2)
    counts.want([f"{ONE}@2"])
    decide(first, 1)
    decide(second, 5)
    let_go(tmp_path, 1)
    counts.look()
    decide(second, 3)
    assert (total(counts)["signals"], total(counts)["lapped"]) == (10 + 2 + 1 + 5 + 3, 5)
    counts.close()


def test_what_an_incarnation_takes_over_from_the_one_before_is_counted_once(tmp_path: Path) -> None:
    first = ring_of(tmp_path, 1)
    decide(first, 100)
    counts = begun(tmp_path, 1)
    decide(first, 10)
    counts.want([f"{ONE}@2"])
    second = ring_of(tmp_path, 2, is_heir=True)
    assert second.get("signals") == 110
    decide(second, 5)
    assert (total(counts)["signals"], total(counts)["lapped"]) == (15, 2)
    let_go(tmp_path, 1)
    decide(second, 1)
    assert (total(counts)["signals"], total(counts)["lapped"]) == (16, 3)
    counts.want([f"{ONE}@3"])
    third = ring_of(tmp_path, 3, is_heir=True)
    let_go(tmp_path, 2)
    decide(third, 4)
    assert (total(counts)["signals"], total(counts)["lapped"]) == (20, 4)
    counts.close()


def test_signals_that_waited_when_the_run_began_are_carried_also_where_their_trader_is_gone(tmp_path: Path) -> None:
    first = ring_of(tmp_path, 1)
    decide(first, 3)
    for _ in range(3):
        assert first.push(b"a signal")
    counts = begun(tmp_path)
    assert (total(counts)["carried"], total(counts)["waiting"]) == (3, 3)
    let_go(tmp_path, 1)
    assert (total(counts)["carried"], total(counts)["waiting"], total(counts)["signals"]) == (3, 0, 0)
    counts.close()


def test_a_ring_that_took_the_place_of_one_that_left_is_counted_from_its_own_beginning(tmp_path: Path) -> None:
    decide(ring_of(tmp_path, 1), 3)
    counts = begun(tmp_path)
    let_go(tmp_path, 1)
    decide(ring_of(tmp_path, 1), 5)
    assert total(counts)["signals"] == 5
    counts.close()


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_counts_reconcile_after_a_killed_feed_and_an_edit_that_came_while_it_was_down(
    tmp_path: Path, broker: EmbeddedBroker
) -> None:
    manifests = tmp_path / "m"
    manifests.mkdir()
    name = f"market-{tmp_path.name.replace('_', '-')[-20:]}".rstrip("-")
    (manifests / "platform.yaml").write_text(platform("{synthetic: {seed: 7, tradesPerSecond: 20}}", name))
    (manifests / "one.yaml").write_text(teller("one"))
    with Up(tmp_path, manifests, "--for", "300s", "--json", "--kafka", broker.bootstrap) as up:
        up.running()

        def signals(generation: int) -> int:
            row = up.trader("one")
            return row.signals if row is not None and row.generation == generation and row.ready else 0

        until(lambda: signals(1) > 3, lambda: f"it signals: {up.trader('one')}; {up.said}")
        kill_hard(up.pid_of("feed-demo-0"))
        (manifests / "one.yaml").write_text(teller("one", every=2))
        until(lambda: signals(2) > 3, lambda: f"its next version signals: {up.trader('one')}; {up.said}")
        up.process.send_signal(2)
        summary = up.summary()
        assert up.wait() == 0, (summary["problems"], summary["signals"])
    assert summary["restarts"] == {"feed-demo-0": 1}
    assert summary["problems"] == []
