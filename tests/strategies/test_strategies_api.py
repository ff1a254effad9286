"""The strategy API: parameters, context, state, and how strategies are found."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.strategies.strategy_bench import walk

from chandlery.core.errors import StrategyError
from chandlery.workers.candles import COLUMNS, Candles, with_forming
from chandlery.workers.discovery import SHIPPED, entry_points, find_strategy
from chandlery.workers.indicators import talib
from chandlery.workers.strategies.sma_cross import SmaCross
from chandlery.workers.strategy import Context, Strategy, parameter
from chandlery.workers.windows import FormingValue


class Sample(Strategy):
    """Has a parameter of each kind."""

    count: int = parameter(3, ge=1, le=9, doc="a count")
    share: float = parameter(1, ge=0, le=2)
    loud: bool = parameter(False)
    side: str = parameter("long", choices=("long", "short"))

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        ctx.buy("always")


def test_defaults_and_types_come_from_the_declaration() -> None:
    sample = Sample()
    assert sample.name == "sample"
    assert dict(sample.parameters) == {"count": 3, "share": 1.0, "loud": False, "side": "long"}
    assert isinstance(sample.share, float), "declared as float, whatever its default looks like"
    assert Sample({"share": 2}).share == 2.0


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"cuont": 1}, 'cuont: unknown parameter; there are: count, share, loud, side; did you mean "count"?'),
        ({"count": 0}, "count: must be at least 1, got 0"),
        ({"count": 10}, "count: must be at most 9, got 10"),
        ({"count": 2.0}, "count: needs a whole number, got 2.0"),
        ({"count": True}, "count: needs a whole number, got true"),
        ({"count": "3"}, 'count: needs a whole number, got "3"'),
        ({"share": float("nan")}, "share: needs a number, got nan"),
        ({"share": None}, "share: needs a number, got nothing"),
        ({"loud": 1}, "loud: needs true or false, got 1"),
        ({"side": "shrot"}, 'side: must be one of long, short, got "shrot"; did you mean "short"?'),
        ({"count": 0, "loud": "no"}, 'count: must be at least 1, got 0; loud: needs true or false, got "no"'),
    ],
)
def test_a_wrong_parameter_is_one_clear_line(parameters: dict[str, object], says: str) -> None:
    with pytest.raises(StrategyError) as caught:
        Sample(parameters)
    assert caught.value.reason == "BadParameter"
    assert str(caught.value) == f"sample: {says}"


def test_a_default_out_of_its_own_bounds_is_refused_when_the_class_is_made() -> None:
    with pytest.raises(StrategyError, match="default of size: must be at least 1, got 0"):
        type("Wrong", (Sample,), {"size": parameter(0, ge=1)})


def test_parameters_are_inherited_and_can_be_declared_anew() -> None:
    class Child(Sample):
        count: int = parameter(5, ge=1, le=50)
        extra: int = parameter(1)

    assert dict(Child().parameters) == {"count": 5, "share": 1.0, "loud": False, "side": "long", "extra": 1}
    assert Sample().count == 3


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_strength_outside_its_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="strength"):
        Context("BTC/USDT", "1m", {}).buy("why", strength)


@pytest.mark.parametrize("rule", ["", "x" * 33, "größe", "line\nbreak"])
def test_a_rule_name_that_fits_no_record_is_refused(rule: str) -> None:
    with pytest.raises(ValueError, match="rule"):
        Context("BTC/USDT", "1m", {}).sell("why", rule=rule)


def test_an_unlisted_informative_series_is_named() -> None:
    with pytest.raises(StrategyError, match=r"5m of ETH/USDT.*market\.informative"):
        Context("BTC/USDT", "1m", {}).informative("5m", symbol="ETH/USDT")


def test_columns_are_read_only_typed_views() -> None:
    candles = walk(5, 1)
    assert len(candles) == 5
    assert [str(candles.open_time.dtype), str(candles.trades.dtype)] == ["int64", "int64"]
    for name in COLUMNS:
        column = getattr(candles, name)
        assert column.shape == (5,)
        with pytest.raises(ValueError, match="read-only"):
            column[0] = 1
    assert candles.last.close == candles.close[-1] == candles[-1].close


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda candles: pickle.loads(pickle.dumps(candles))])
def test_candles_can_be_copied_to_outlive_their_call(copied: Callable[[Candles], Candles]) -> None:
    closed = walk(3, 1)
    forming = FormingValue(180_000, 1.0, 2.0, 0.5, 1.5, 7.0, 4, (0,) * 8, 2)
    for candles in (closed, with_forming(closed, forming, 3)):
        for name in COLUMNS:
            assert getattr(copied(candles), name).tolist() == getattr(candles, name).tolist()


@pytest.mark.parametrize(("length", "kept"), [(9, 3), (4, 3), (3, 2), (2, 1), (1, 0)])
def test_a_forming_candle_is_the_last_row_of_a_copy(length: int, kept: int) -> None:
    closed = walk(3, 1)
    forming = FormingValue(180_000, 1.0, 2.0, 0.5, 1.5, 7.0, 4, (0,) * 8, 2)
    both = with_forming(closed, forming, length)
    assert both.last == (180_000, 1.0, 2.0, 0.5, 1.5, 7.0, 4)
    for name in COLUMNS:
        column = getattr(both, name)
        assert column[:-1].tolist() == getattr(closed, name)[3 - kept :].tolist()
        assert column is getattr(both, name), "made once"
        assert not column.flags.writeable
    assert len(closed) == 3
    with pytest.raises(AttributeError, match="candles have no bid; there are open_time"):
        _ = both.bid


def test_a_fork_shares_no_state_and_keeps_parameters() -> None:
    class Keeper(Strategy):
        size: int = parameter(2)

        def start(self) -> None:
            self.seen: list[int] = []
            self.window = np.zeros(2)
            self.stream = talib.stream.SMA(np.arange(5.0), timeperiod=2)
            self.total = 0

        def on_candle(self, ctx: Context, candles: Candles) -> None:
            self.seen.append(1)
            self.window[0] += 1
            self.stream.update(10.0)
            self.total += 1

    first = Keeper({"size": 4})
    second = first.fork()
    second.on_candle(Context("BTC/USDT", "1m", {}), walk(1, 1))
    assert (first.seen, first.total, first.window.tolist(), first.stream.value) == ([], 0, [0.0, 0.0], 3.5)
    assert (second.seen, second.total, second.window.tolist(), second.stream.value) == ([1], 1, [1.0, 0.0], 7.0)
    assert second.size == 4
    assert second.parameters == {"size": 4}


def test_loading_talib_loads_no_data_frame_library() -> None:
    import subprocess

    script = (
        "import sys, chandlery.workers.strategies.macd; print([m for m in ('pandas', 'polars') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


FOLDER_STRATEGY = '''
"""A folder strategy."""
from chandlery.workers.strategy import Strategy, Context, Candles, parameter

class Twice(Strategy):
    """Buys twice."""
    name = "twice"
    gap: int = parameter(2, ge=1)

    @property
    def warmup(self): return self.gap

    def on_candle(self, ctx: Context, candles: Candles) -> None:
        ctx.buy("one", rule="a"); ctx.buy("two", rule="a")
'''


def test_shipped_strategies_are_found_by_name() -> None:
    assert set(SHIPPED) <= set(entry_points())
    assert find_strategy("sma-cross").strategy is SmaCross


def test_a_folder_strategy_is_found_and_others_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(FOLDER_STRATEGY)
    (tmp_path / "explodes.py").write_text("raise RuntimeError('imported')")
    found = find_strategy("twice", strategies_dir=str(tmp_path))
    assert found.origin == "folder"
    assert found.strategy({"gap": 7}).warmup == 7


def test_a_broken_file_that_has_the_name_too_is_passed_over_and_told_where_no_other_has_it(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(FOLDER_STRATEGY + "\nclass Half(\n")
    with pytest.raises(StrategyError, match=r"^broken\.py: .* \(line \d+\)$"):
        find_strategy("twice", strategies_dir=str(tmp_path))
    (tmp_path / "sound.py").write_text(FOLDER_STRATEGY)
    assert find_strategy("twice", strategies_dir=str(tmp_path)).strategy({"gap": 7}).warmup == 7


def test_a_folder_strategy_can_import_its_sibling(tmp_path: Path) -> None:
    (tmp_path / "sibling_of_borrower.py").write_text("NUMBER = 41\n")
    text = FOLDER_STRATEGY.replace("class Twice", "from sibling_of_borrower import NUMBER\nclass Twice")
    (tmp_path / "twice.py").write_text(text.replace("parameter(2, ge=1)", "parameter(NUMBER, ge=1)"))
    assert find_strategy("twice", strategies_dir=str(tmp_path)).strategy().warmup == 41


@pytest.mark.parametrize("name", ["Twice", "twice"])
def test_given_source_is_found_by_class_or_name(name: str) -> None:
    found = find_strategy(name, source=FOLDER_STRATEGY)
    assert (found.origin, found.strategy.name) == ("source", "twice")


def test_an_unknown_name_gets_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "twice.py").write_text(FOLDER_STRATEGY)
    for wrong, near in (("sma-crss", "sma-cross"), ("twise", "twice")):
        with pytest.raises(StrategyError, match=f'did you mean "{near}"') as caught:
            find_strategy(wrong, strategies_dir=str(tmp_path))
        assert caught.value.reason == "UnknownStrategy"
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("class Broken(:\n", "invalid syntax (line 1)"),
        ("import nothing_of_that_name\n", "No module named 'nothing_of_that_name' (line 1)"),
        ("x = 1\ny = x / 0\n", "ZeroDivisionError: division by zero (line 2)"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        ("x = 1\n", "it has: no strategy at all"),
        ("#" * 70_000, "longer than 65536 bytes"),
    ],
)
def test_broken_source_is_one_clear_line(source: str, says: str) -> None:
    with pytest.raises(StrategyError) as caught:
        find_strategy("twice", source=source)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.reason in ("BadSource", "UnknownStrategy")


def test_the_code_digest_changes_with_source_and_parameters_alone() -> None:
    found = find_strategy("twice", source=FOLDER_STRATEGY)
    other = find_strategy("twice", source=FOLDER_STRATEGY + "\n# changed\n")
    code = found.code(found.strategy())
    assert len(code) == 16
    assert int(code, 16) >= 0
    assert code == found.code(found.strategy({"gap": 2})), "a default given by name is the same configuration"
    assert code != found.code(found.strategy({"gap": 3}))
    assert code != other.code(other.strategy())
