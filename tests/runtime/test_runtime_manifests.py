"""Manifests that change while ``chandlery up`` runs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.runtime.up_process import STRATEGIES, Up, platform, trader, until, write_manifests

from chandlery.cli.runtime.statedir import StateDir

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One instance for all tests here; each has Traders of its own names."""
    folder = tmp_path_factory.mktemp("manifests")
    manifests = write_manifests(folder / "m", keep=trader("keep"))
    with Up(folder, manifests) as running:
        running.running()
        yield running
        assert running.end() == 0, running.said
        assert running.left() == []


@pytest.fixture
def folder(up: Up) -> Path:
    """The manifests' folder."""
    return up.state.parent / "m"


@pytest.fixture(autouse=True)
def others_stay_untouched(up: Up) -> Iterator[None]:
    """Whatever a test does, the Trader ``keep`` keeps its process."""
    before = up.trader("keep")
    assert before is not None
    yield
    after = up.trader("keep")
    assert after is not None
    assert (after.pid, after.ready, after.restarts) == (before.pid, True, 0)


def ready(up: Up, name: str) -> bool:
    row = up.trader(name)
    return row is not None and row.ready


def calls(up: Up, name: str) -> int:
    row = up.trader(name)
    return row.calls if row is not None else 0


def test_a_trader_is_added_edited_and_deleted(up: Up, folder: Path) -> None:
    path = folder / "guest.yaml"
    until(lambda: up.pid_of("strategies") > 0, "the process that parameters are asked of")
    asked = up.pid_of("strategies")
    path.write_text(trader("guest"))
    until(lambda: ready(up, "guest"), lambda: f"added: {up.trader('guest')}")
    first = up.trader("guest")
    assert first is not None
    path.write_text(trader("guest", fast=3, slow=9))
    until(
        lambda: ready(up, "guest") and (up.trader("guest") or first).generation > first.generation,
        lambda: f"edited: {up.trader('guest')}",
    )
    path.unlink()
    until(lambda: up.trader("guest") is None, "deleted")
    assert up.pid_of("strategies") == asked, "no edit has all strategies imported again"


def test_a_new_symbol_and_interval_reach_a_new_trader_with_history(up: Up, folder: Path) -> None:
    path = folder / "wide.yaml"
    path.write_text(trader("wide", "SOL/USDT", interval="2s"))

    def decides() -> bool:
        row = up.trader("wide")
        return row is not None and row.state == "Active" and row.calls > 2

    until(decides, lambda: f"decides: {up.trader('wide')}")
    path.unlink()
    until(lambda: up.trader("wide") is None, "deleted")


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        (
            trader("bad", strategy="sma-crss"),
            "UnknownStrategy",
            'spec.strategy.name: there is no strategy "sma-crss"; there are ',
        ),
        (
            trader("bad", fats=2, slow=5),
            "BadParameter",
            'spec.strategy.parameters.fats: sma-cross has no such parameter; it has fast, slow; did you mean "fast"?',
        ),
        (
            trader("bad", fast=2, slow=5000),
            "BadParameter",
            "spec.strategy.parameters.slow: must be at most 800, got 5000",
        ),
        (
            trader("bad", fast=9, slow=5),
            "BadParameter",
            "spec.strategy.parameters: sma-cross: fast (9) must be below slow (5)",
        ),
    ],
    ids=["unknown strategy", "unknown parameter", "out of bounds", "contradicting"],
)
def test_a_bad_new_trader_stalls_alone_with_field_value_and_way_out(
    up: Up, folder: Path, text: str, reason: str, message: str
) -> None:
    path = folder / "bad.yaml"
    others = calls(up, "keep")
    path.write_text(text)
    until(lambda: up.trader("bad") is not None, "seen")
    row = up.trader("bad")
    assert row is not None
    assert (row.state, row.reason, row.pid) == ("Stalled", reason, 0)
    assert row.message.startswith(message)
    until(lambda: calls(up, "keep") > others, "the others go on")
    path.unlink()
    until(lambda: up.trader("bad") is None, "deleted")


def test_a_strategy_that_is_added_and_changed_while_all_runs_is_known_to_its_trader(up: Up, folder: Path) -> None:
    file = folder.with_name("strategies") / "newcomer.py"
    path = folder / "newcomer.yaml"
    path.write_text(trader("newcomer", strategy="newcomer", every=1))

    def refused(reason: str) -> bool:
        row = up.trader("newcomer")
        return row is not None and row.reason == reason

    def decides(generation: int) -> bool:
        row = up.trader("newcomer")
        return row is not None and (row.state, row.reason) == ("Active", "") and row.generation > generation

    until(lambda: refused("UnknownStrategy"), lambda: f"before there is a file: {up.trader('newcomer')}")
    text = STRATEGIES.replace("each-candle", "newcomer").replace("EachCandle", "Newcomer")
    file.write_text(text)
    until(lambda: decides(0), lambda: f"the new strategy: {up.trader('newcomer')}")
    first = up.trader("newcomer")
    assert first is not None
    path.write_text(trader("newcomer", strategy="newcomer", pace=3))
    until(lambda: refused("BadParameter"), lambda: f"it has no such parameter yet: {up.trader('newcomer')}")
    file.write_text(
        text.replace("    every: int", '    pace: int = parameter(1, ge=1, le=9, doc="new")\n    every: int')
    )
    until(lambda: decides(first.generation), lambda: f"the new parameter: {up.trader('newcomer')}")
    path.unlink()
    until(lambda: up.trader("newcomer") is None, "deleted")
    file.unlink()


def test_a_strategy_file_that_ends_its_process_at_import_stalls_the_trader_that_names_it_alone(
    up: Up, folder: Path
) -> None:
    """Beside it a file that is added later is found, and a Trader of it starts."""
    strategies = folder.with_name("strategies")
    deadly, sound = strategies / "deadly.py", strategies / "sound.py"
    deadly.write_text("import os\nos._exit(3)\n" + STRATEGIES.replace("each-candle", "leaver"))
    text = trader("leaver", strategy="leaver", every=1)
    (folder / "leaver.yaml").write_text(text)

    def refused(reason: str) -> bool:
        row = up.trader("leaver")
        return row is not None and (row.state, row.reason, row.pid) == ("Stalled", reason, 0)

    until(lambda: refused("BadStrategy"), lambda: f"refused: {up.trader('leaver')}")
    row = up.trader("leaver")
    assert row is not None
    assert row.message == (
        "spec.strategy.name: leaver can't be used: deadly.py: the process that imported it ended with exit code 3; "
        "mend or remove it"
    )
    sound.write_text(STRATEGIES.replace("each-candle", "sound"))
    (folder / "sound.yaml").write_text(trader("sound", strategy="sound", every=1))
    until(lambda: ready(up, "sound"), lambda: f"the sound one: {up.trader('sound')}")
    before = up.trader("sound")
    assert before is not None
    sound.write_text("import os\nos._exit(4)\n" + STRATEGIES.replace("each-candle", "sound"))
    deadly.write_text(STRATEGIES.replace("each-candle", "leaver"))
    until(lambda: ready(up, "leaver"), lambda: f"mended: {up.trader('leaver')}")
    after = up.trader("sound")
    assert after is not None
    assert (after.pid, after.ready, after.restarts) == (before.pid, True, 0), "it keeps the code that it began with"
    for name, file in (("leaver", deadly), ("sound", sound)):
        (folder / f"{name}.yaml").unlink()
        file.unlink()
    until(lambda: up.trader("leaver") is None and up.trader("sound") is None, "deleted")


def test_a_symbol_that_its_feed_does_not_list_stalls_the_trader_alone(up: Up, folder: Path) -> None:
    path = folder / "listed.yaml"
    listed = LATER.replace("later", "listed").replace("history:", "symbols: [BTC/USDT]\n  history:")
    path.write_text(listed + "---" + trader("unlisted", "ETH/USDT").replace("{name: demo}", "{name: listed}"))
    until(lambda: up.trader("unlisted") is not None, "seen")
    row = up.trader("unlisted")
    assert row is not None
    assert (row.state, row.reason) == ("Stalled", "UnknownSymbol")
    assert "MarketFeed default/listed has no ETH/USDT; its spec.symbols are BTC/USDT" in row.message
    path.unlink()
    until(lambda: up.trader("unlisted") is None, "deleted")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text.replace('"slow": 5', '"slow": "five"'), "BadParameter"),
        (lambda text: text.replace("interval: 1s", "interval: 1x"), "BadManifest"),
        (lambda text: text[: text.index("market") + 12], "BadManifest"),
        (lambda text: text.replace('"fast": 2', '"fast": 0'), "BadParameter"),
        (lambda text: text.replace('"fast": 2', '"fats": 2'), "BadParameter"),
        (lambda text: text.replace("spec:", "spec:\n  colour: red"), "BadManifest"),
        (lambda text: f"{text}---{text}", "BadManifest"),
    ],
    ids=[
        "bad parameter",
        "bad field",
        "half written",
        "out of bounds",
        "unknown parameter",
        "unknown field",
        "duplicate name",
    ],
)
def test_a_bad_edit_keeps_the_version_before_and_says_so(up: Up, folder: Path, damage: object, reason: str) -> None:
    path = folder / "edited.yaml"
    path.write_text(trader("edited"))
    until(lambda: ready(up, "edited"), "runs")
    before = up.trader("edited")
    assert before is not None
    path.write_text(damage(trader("edited")))  # type: ignore[operator]
    until(lambda: (up.trader("edited") or before).reason == reason, lambda: f"told: {up.trader('edited')}")
    after = up.trader("edited")
    assert after is not None
    assert (after.pid, after.ready) == (before.pid, True)
    assert any(words in after.message for words in ("keeps running", "stays")), after.message
    path.write_text(trader("edited"))
    until(lambda: (up.trader("edited") or before).reason == "", "mended")
    path.unlink()
    until(lambda: up.trader("edited") is None, "deleted")


def test_a_newcomer_of_a_running_traders_name_is_refused_though_its_file_sorts_before(up: Up, folder: Path) -> None:
    path = folder / "a0.yaml"
    generation = (up.trader("keep") or pytest.fail("it runs")).generation
    path.write_text(trader("keep", fast=9, slow=77))
    until(lambda: "taken by" in (up.trader("keep") or pytest.fail("it runs")).message, lambda: f"{up.trader('keep')}")
    row = up.trader("keep")
    assert row is not None
    assert row.message.startswith(f"{path}: metadata.name: this name is taken by {folder}/keep.yaml ")
    assert (row.ready, row.generation) == (True, generation)
    path.unlink()
    until(lambda: (up.trader("keep") or row).reason == "", "the newcomer is gone")


def test_a_change_that_running_processes_can_not_take_in_is_told(up: Up, folder: Path) -> None:
    def told() -> list[str]:
        view = up.view()
        return view.notices if view is not None else []

    path = folder / "platform.yaml"
    text = path.read_text()
    path.write_text(
        text.replace("seed: 7", "seed: 8").replace("{feed: {name: market}}", "{feed: {name: market}, transport: Pipe}")
    )
    until(lambda: len(told()) == 2, lambda: f"told: {told()}")
    assert all("next start" in notice for notice in told())
    path.write_text(text)
    until(lambda: told() == [], "all is as it runs")


def test_a_pool_taken_away_and_put_back_goes_on_and_the_signals_of_its_first_life_are_counted(
    up: Up, folder: Path
) -> None:
    pool = """
apiVersion: chandlery.dev/v1alpha1
kind: TraderPool
metadata: {name: other}
spec: {feed: {name: market}}
"""
    (folder / "other-trader.yaml").write_text(
        trader("elsewhere", strategy="each-candle", every=1).replace("{name: demo}", "{name: other}")
    )
    path = folder / "other.yaml"
    for life in range(2):
        path.write_text(pool)
        until(lambda: ready(up, "elsewhere"), lambda: f"it runs: {up.trader('elsewhere')}")
        until(lambda: _published(up, "elsewhere") > 0, "it signals")
        if life == 0:
            path.unlink()
            until(lambda: not up.pid_of("feed-other-0"), "the pool's worker ended")
    # That the counts reconcile is held by the run's exit code, at the end of this file's instance.


def _published(up: Up, name: str) -> int:
    view = up.view()
    return sum(row.trader == f"default/{name}" for row in view.signals) if view else 0


def test_a_missing_and_an_emptied_folder_keep_everything_and_say_so(up: Up, folder: Path) -> None:
    def told(words: str) -> bool:
        view = up.view()
        return view is not None and any(words in notice for notice in view.notices)

    aside = folder.with_name("aside")
    folder.rename(aside)
    until(lambda: told("is missing"), "the missing folder is told")
    folder.mkdir()
    until(lambda: told("was emptied"), "the empty folder is told")
    assert ready(up, "keep")
    for path in aside.iterdir():
        shutil.copy(path, folder / path.name)
    until(lambda: not told(str(folder)), "all is well again")
    shutil.rmtree(aside)


LATER = platform(
    "{synthetic: {seed: 8, tradesPerSecond: 20}}", "later", pool="later", feed_spec="history: {candles: 100}"
)


def test_a_feed_that_does_not_start_says_why_and_is_tried_again(up: Up, folder: Path) -> None:
    """Its aggregator's folder can't be made: the feed, its pool and its Trader say so, and all begin when it can."""
    in_the_way = StateDir(up.state).aggregator("later")
    in_the_way.write_text("no folder")
    (folder / "later.yaml").write_text(LATER + "---" + trader("late").replace("{name: demo}", "{name: later}"))

    def says() -> list[str]:
        view = up.view()
        assert view is not None
        told = [row.message for row in view.feeds] + [row.message for row in view.pools]
        told += [row.message for row in view.traders]
        return [message for message in told if "MarketFeed default/later does not start" in message]

    until(lambda: len(says()) == 3, lambda: f"feed, pool and Trader say why: {says()}, {up.trader('late')}")
    assert all("aggregator-later ended at its start" in message for message in says()), says()
    row = up.trader("late")
    assert row is not None
    assert (row.reason, row.calls) == ("FeedFailed", 0)
    in_the_way.unlink()
    until(lambda: not says(), lambda: f"it began: {says()}")
    until(
        lambda: ready(up, "late") and (up.trader("late") or row).calls > 0, lambda: f"it decides: {up.trader('late')}"
    )
    (folder / "later.yaml").unlink()
    until(lambda: up.trader("late") is None, "deleted")
