"""A symbol that the exchange doesn't have, asked for while everything runs."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import entered_beside
from tests.runtime.up_process import Up, trader, until
from tests.support.exchange_server import ExchangeServer

from chandlery.console.backends.local_models import trader_of
from chandlery.stream.broker import EmbeddedBroker

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def exchange() -> Iterator[ExchangeServer]:
    """An exchange that knows one symbol."""
    with entered_beside(ExchangeServer(known=["btcusdt"])) as server:
        yield server


def test_the_trader_that_asks_for_it_stalls_alone_and_fails_the_run_and_one_edited_to_it_runs_on_as_it_was(
    tmp_path: Path, broker: EmbeddedBroker, exchange: ExchangeServer
) -> None:
    manifests = tmp_path / "m"
    manifests.mkdir()
    name = f"market-{tmp_path.name.replace('_', '-')[-20:]}".rstrip("-")
    head = {"apiVersion": "chandlery.dev/v1alpha1", "kind": "MarketFeed", "metadata": {"name": name}}
    feed = {**head, "spec": {"source": {"binance": {"baseUrl": exchange.base_url}}}}
    pool = {**head, "kind": "TraderPool", "metadata": {"name": "demo"}, "spec": {"feed": {"name": name}}}
    (manifests / "platform.yaml").write_text(json.dumps(feed) + "\n---\n" + json.dumps(pool))
    (manifests / "keep.yaml").write_text(trader("keep"))
    with Up(tmp_path, manifests, "--for", "300s", "--json", "--kafka", broker.bootstrap) as up:
        up.running()
        before = up.trader("keep")
        assert before is not None
        assert before.ready, before
        (manifests / "lost.yaml").write_text(trader("lost", "NOPE/USDT"))

        def is_told() -> bool:
            row = up.trader("lost")
            return row is not None and row.reason == "UnknownSymbol"

        until(is_told, lambda: f"told: {up.trader('lost')}; it said:\n{up.said}")
        row, after = up.trader("lost"), up.trader("keep")
        assert row is not None
        assert after is not None
        assert (row.state, row.ready) == ("Stalled", False)
        assert row.message == "the feed's source has no NOPE/USDT: mend spec.market"
        told = trader_of(row, 0, 0)
        assert (told.state, told.reason, told.ready) == ("Stalled", "UnknownSymbol", False)
        assert (after.pid, after.ready, after.reason, after.restarts) == (before.pid, True, "", 0)
        until(lambda: "default/lost: Stalled (UnknownSymbol" in up.said, lambda: f"a line tells it: {up.said}")
        (manifests / "keep.yaml").write_text(trader("keep", "NOPE/USDT"))

        def is_kept() -> bool:
            row = up.trader("keep")
            return row is not None and row.reason == "UnknownSymbol"

        until(is_kept, lambda: f"kept: {up.trader('keep')}; it said:\n{up.said}")
        kept = up.trader("keep")
        assert kept is not None
        assert (kept.pid, kept.ready, kept.generation) == (before.pid, True, before.generation)
        assert kept.message.endswith(f"no NOPE/USDT: mend spec.market (generation {kept.generation} stays)")
        up.process.send_signal(signal.SIGINT)
        summary = up.summary()
        assert up.wait() == 1, up.said
    assert summary["traders"] == {"desired": 2, "ready": 1, "restarts": 0}
    assert summary["problems"] == [
        "Trader default/lost did not become Ready: Stalled UnknownSymbol "
        "the feed's source has no NOPE/USDT: mend spec.market"
    ]
