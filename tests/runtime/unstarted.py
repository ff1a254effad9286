"""An instance that hasn't started: made of manifests, its processes only told of."""

from __future__ import annotations

from pathlib import Path

from tests.runtime.up_process import platform, trader

from chandlery.cli.runtime.catalogue import Catalogue
from chandlery.cli.runtime.desired import Wanted
from chandlery.cli.runtime.feedgroup import FeedGroup
from chandlery.cli.runtime.local import LocalRuntime
from chandlery.cli.runtime.options import UpOptions
from chandlery.core.manifests import Key, parse_manifests

MARKET: Key = ("default", "market")
POOL: Key = ("default", "demo")


def quiet(line: str, fraction: float | None = None) -> None:
    """Nobody listens."""


def wanted(source: str, symbol: str = "BTC/USDT") -> Wanted:
    """A feed of that source (YAML in braces), the pool ``demo``, and the Trader ``one`` in it."""
    return wanted_of(platform(source) + "---" + trader("one", symbol))


def wanted_of(text: str) -> Wanted:
    """Manifests without a problem."""
    manifests = parse_manifests(text)
    assert not manifests.problems
    return Wanted(manifests, [], [])


def unstarted(tmp_path: Path, wanted: Wanted, catalogue: Catalogue | None = None) -> LocalRuntime:
    """The instance, with its state in ``tmp_path``."""
    options = UpOptions(manifests=("-",), state=tmp_path / "s")
    for folder in ("assignments", "settings"):
        (options.state / folder).mkdir(parents=True)
    return LocalRuntime(options, wanted, catalogue or Catalogue(), quiet)


def market_of(runtime: LocalRuntime) -> FeedGroup:
    """The processes of its feed, as if they were there."""
    group = runtime.feeds[MARKET] = runtime._new_feed(runtime.wanted.manifests.feeds[MARKET])
    return group
