"""Figures of rings are shown by Trader, whatever incarnations of it are there."""

from chandlery.workers.feed.metrics import by_trader


def test_a_successors_ring_counts_with_its_trader_and_gets_no_label_of_its_own() -> None:
    rings = {"desk/a": {"depth": 2}, "desk/a@4": {"depth": 3}, "desk/b": {"depth": 1}}
    assert by_trader(rings, "depth") == {"desk/a": 5, "desk/b": 1}
