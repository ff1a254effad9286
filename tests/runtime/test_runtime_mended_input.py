"""A feed whose ingest once couldn't use what it was given: a run's problem until that is mended, and no longer."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.runtime.unstarted import market_of, unstarted, wanted
from tests.runtime.up_process import Up, platform, trader, until

from chandlery.cli.running import _all_finished
from chandlery.cli.runtime.children import Child
from chandlery.cli.runtime.feedgroup import FeedGroup
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.stream.broker import EmbeddedBroker

REPLAY = "{replay: {files: [{path: trades.csv, symbol: BTC/USDT}], loop: true}}"
TRADES = "time,price,quantity\n" + "".join(f"{1_700_000_000_000 + 100 * number},100,1\n" for number in range(50))


def runtime_of(tmp_path: Path, source: str) -> LocalRuntime:
    (tmp_path / "trades.csv").write_text(TRADES)
    return unstarted(tmp_path, wanted(source.replace("trades.csv", str(tmp_path / "trades.csv"))))


def end_with(code: int, child: Child, group: FeedGroup) -> None:
    """The process ended so, and waits for its restart."""
    child.last_exit, child.restarts, child.state, child._process = code, child.restarts + 1, "backoff", None
    group.note_ingest_end()


async def run_again(group: FeedGroup, monkeypatch: pytest.MonkeyPatch, **status: Any) -> None:
    """Another process runs and says this of itself."""

    async def answers(path: str) -> bytes:
        return msgspec.json.encode(status)

    monkeypatch.setattr(group.ingest_endpoint, "get", answers)
    group.ingest.state = "running"
    group.ingest._process = SimpleNamespace(pid=4711, returncode=None)  # type: ignore[assignment]
    await group.ingest_watch.refresh()


async def test_a_loop_replay_whose_file_was_mended_is_no_problem_once_it_appends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = market_of(runtime_of(tmp_path, REPLAY))
    end_with(2, group.ingest, group)
    assert "ingest-market ended (exit code 2)" in group.wrong_input
    await run_again(group, monkeypatch, connected=True, trades={"appended": 0})
    assert group.wrong_input, "it says that before it has read a line of its files"
    await run_again(group, monkeypatch, connected=True, trades={"appended": 7})
    assert group.wrong_input == ""
    end_with(-9, group.ingest, group)
    assert group.wrong_input == "", "that it was killed says nothing of its input"
    end_with(2, group.ingest, group)
    assert group.wrong_input, "it is wrong once more"


@pytest.mark.parametrize("source", ["{binance: {}}", "{synthetic: {seed: 7}}"])
async def test_a_market_that_is_connected_can_use_its_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    group = market_of(runtime_of(tmp_path, source))
    end_with(2, group.ingest, group)
    await run_again(group, monkeypatch, connected=False, trades={"appended": 0})
    assert group.wrong_input
    await run_again(group, monkeypatch, connected=True, trades={"appended": 0})
    assert group.wrong_input == ""


async def test_what_the_process_that_ended_had_appended_mends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = market_of(runtime_of(tmp_path, REPLAY))
    await run_again(group, monkeypatch, connected=True, trades={"appended": 900})
    end_with(2, group.ingest, group)
    assert group.wrong_input
    await group.ingest_watch.refresh()
    assert group.wrong_input, "an answer that was on its way"


async def test_a_run_until_the_end_of_its_replays_waits_for_one_that_was_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = runtime_of(tmp_path, REPLAY.replace(", loop: true", ""))
    group = market_of(runtime)
    runtime.feeds["default", "other"] = SimpleNamespace(finished=True, wrong_input="")  # type: ignore[assignment]
    end_with(2, group.ingest, group)
    assert _all_finished(runtime), "as it is, it gets to no end"
    await run_again(group, monkeypatch, connected=True, trades={"appended": 0})
    assert not _all_finished(runtime), "it is tried: whether the file has been mended is seen by what comes"
    end_with(-9, group.ingest, group)
    assert group.wrong_input
    assert not _all_finished(runtime), "the one that tried it was killed, and the next will"
    await run_again(group, monkeypatch, connected=True, trades={"appended": 7})
    assert not _all_finished(runtime)
    end_with(-9, group.ingest, group)
    assert not _all_finished(runtime), "it goes on where it was"
    await run_again(group, monkeypatch, connected=False, finished=True, trades={"appended": 7})
    assert _all_finished(runtime)


@pytest.mark.broker
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_whose_file_was_mended_meanwhile_ends_well(tmp_path: Path, broker: EmbeddedBroker) -> None:
    manifests = tmp_path / "m"
    manifests.mkdir()
    (manifests / "trades.csv").write_text("when,how much\n1,2\n")
    name = f"market-{tmp_path.name.replace('_', '-')[-20:]}".rstrip("-")
    (manifests / "platform.yaml").write_text(platform(REPLAY, name))
    (manifests / "one.yaml").write_text(trader("one"))
    with Up(tmp_path, manifests, "--for", "300s", "--json", "--kafka", broker.bootstrap) as up:
        log = up.state / "logs" / f"ingest-{name}.log"
        up.running()
        until(lambda: log.exists() and "no column time" in log.read_text(), lambda: f"it can't be used: {up.said}")
        (manifests / "trades.csv").write_text(TRADES)

        def has_candles() -> bool:
            view = up.view()
            return view is not None and view.feeds[0].candles_closed > 5

        until(has_candles, lambda: f"its market is there: {up.said}")
        up.process.send_signal(2)
        summary = up.summary()
        assert up.wait() == 0, summary["problems"]
    assert summary["problems"] == []
