"""What processes rely on of each other: decimals, stamps, signal ids, topics, assignments, settings, errors, logs."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chandlery.core import clocks, errors, wire
from chandlery.core.assignment import Assignment, SeriesRef, TraderAssignment, content_hash, decode_assignment
from chandlery.core.clocks import Stamps, unpack_stamps
from chandlery.core.errors import ChandleryError, InputError
from chandlery.core.logs import configure_logs
from chandlery.core.settings import AggregatorSettings, KafkaSettings, parse_listen, read_settings
from chandlery.core.signals import Completion, Signal, decode_record, signal_id
from chandlery.core.signals import encode as encode_signal
from chandlery.core.topics import murmur2, partition_of, topics_of
from chandlery.core.wire import CandlesRecord, CandleUpdate, TradesRecord, scaled_to_text, text_to_scaled


@given(st.integers(-(10**18), 10**18), st.integers(0, 12))
def test_scaled_prices_survive_as_text(value: int, scale: int) -> None:
    text = scaled_to_text(value, scale)
    assert Decimal(text) == Decimal(value).scaleb(-scale)
    assert "E" not in text
    if value >= 0:
        assert text_to_scaled(text, scale) == value


@pytest.mark.parametrize(
    ("value", "scale", "text"), [(6183760, 2, "61837.6"), (5, 3, "0.005"), (100, 2, "1"), (0, 4, "0"), (-15, 1, "-1.5")]
)
def test_scaled_prices_are_written_without_needless_zeros(value: int, scale: int, text: str) -> None:
    assert scaled_to_text(value, scale) == text


def test_more_decimals_than_the_scale_are_refused_unless_zero() -> None:
    assert text_to_scaled("1.5000", 1) == 15
    with pytest.raises(ValueError, match="more than 1 decimals"):
        text_to_scaled("1.55", 1)


def test_records_survive_the_wire() -> None:
    record = CandlesRecord("BTC/USDT", 1, 7, [CandleUpdate("1s", 0, -1, "closed", 0, "1", "2", "0.5", "1.5", "10", 3)])
    assert wire.decode_candles(wire.encode(record)) == record
    heartbeat = TradesRecord("BTC/USDT", 0, 5_000)
    assert wire.decode_input(wire.encode(heartbeat)) == heartbeat


def test_a_record_of_another_form_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        wire.decode_candles(b'{"kind": "trades", "symbol": "BTC/USDT", "session": 0, "seq": 1, "updates": []}')


stamps = st.builds(Stamps, *[st.integers(0, 2**62)] * 7)


@given(stamps, st.integers(-(2**61), 2**61))
def test_stamps_of_this_host_come_back_as_they_were(given_stamps: Stamps, offset: int) -> None:
    header = given_stamps.pack(offset)
    assert len(header) == 124
    assert unpack_stamps(header, 123) == given_stamps, "the same boot: no translation, whatever the wall clock does"


def test_stamps_of_another_host_are_translated_into_this_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Stamps(exchange_ns=9, received_ns=1_000, appended_ns=8, aggregated_ns=0, emitted_ns=2_000)
    header = there.pack(500_000)  # its wall clock is 500,000 ns ahead of its monotonic clock
    monkeypatch.setattr(clocks, "boot_id", lambda: b"x" * 16)
    here = unpack_stamps(header, 200_000)
    assert (here.received_ns, here.emitted_ns) == (301_000, 302_000)
    assert here.aggregated_ns == 0, "not stamped stays not stamped"
    assert (here.exchange_ns, here.appended_ns) == (9, 8), "wall clocks are nobody's monotonic clock"


@pytest.mark.parametrize("header", [None, b"", b"short", b"\x02" + bytes(83)])
def test_a_header_of_unknown_form_gives_empty_stamps(header: bytes | None) -> None:
    assert unpack_stamps(header, 0) == Stamps()


def test_the_wall_offset_places_the_monotonic_clock_on_the_wall() -> None:
    before = time.time_ns()
    placed = clocks.now_ns() + clocks.wall_offset_ns()
    assert abs(placed - before) < 60 * 10**9


IDS = {"trader": "a/b", "uid": "u", "code": "c", "symbol": "BTC/USDT", "interval": "1s", "rule": "r"}


def test_a_signals_id_is_the_same_every_time_and_on_every_machine() -> None:
    one = signal_id(**IDS, open_time_ms=1, ordinal=0)
    assert one == signal_id(**IDS, open_time_ms=1, ordinal=0) == "b00777fb598d48865d6107c0d682f77b"


@given(st.lists(st.text(max_size=4), min_size=6, max_size=6), st.lists(st.text(max_size=4), min_size=6, max_size=6))
def test_signals_with_another_field_have_another_id(one: list[str], other: list[str]) -> None:
    first = signal_id(**dict(zip(IDS, one, strict=True)), open_time_ms=1, ordinal=0)
    second = signal_id(**dict(zip(IDS, other, strict=True)), open_time_ms=1, ordinal=0)
    assert (first == second) == (one == other)


def test_signals_and_completions_are_told_apart() -> None:
    completion = Completion("id", "a/b", 5, 6)
    assert decode_record(msgspec.json.encode(completion)) == completion
    signal = Signal(
        id="1", trader="a/b", strategy="s", code="c", rule="r", ordinal=0, action="buy", symbol="BTC/USDT",
        interval="1s", open_time_ms=0, session=0, price="1", strength=1.0, reason="",
    )  # fmt: skip
    assert decode_record(encode_signal(signal)) == signal


@pytest.mark.parametrize(
    ("key", "expected"),
    # From Apache Kafka's own UtilsTest.testMurmur2, as unsigned numbers.
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("abc", 479470107),
    ],
)
def test_murmur2_is_that_of_the_java_client(key: str, expected: int) -> None:
    assert murmur2(key.encode()) == expected & 0xFFFFFFFF


@given(st.text(min_size=1, max_size=20), st.integers(1, 64))
def test_every_symbol_has_a_partition(symbol: str, partitions: int) -> None:
    assert 0 <= partition_of(symbol, partitions) < partitions


def test_topics_carry_prefix_and_feed() -> None:
    topics = topics_of(KafkaSettings(bootstrap="x:1", feed="binance", prefix="p."))
    assert topics.candles_fast == "p.binance.candles-fast"
    assert len(set(topics)) == 7
    assert all(topic.startswith("p.binance.") for topic in topics)


def some_trader(name: str, **more: object) -> TraderAssignment:
    return TraderAssignment(name, "u", "s", ["BTC/USDT", "ETH/USDT"], "1s", **more)  # type: ignore[arg-type]


def test_an_assignments_hash_knows_content_and_no_order() -> None:
    one, two = some_trader("a/a"), some_trader("a/b", parameters={"x": 1, "y": 2})
    same = some_trader("a/b", parameters={"y": 2, "x": 1})
    assert content_hash([one, two]) == content_hash([same, one])
    assert content_hash([one, two]) != content_hash([one, some_trader("a/b", parameters={"x": 1, "y": 3})])
    assert content_hash([]) != content_hash([one])


def test_an_assignment_survives_the_wire_with_its_hash() -> None:
    traders = [some_trader("a/a", informative=[SeriesRef("BTC/USDT", "1h")], mode="standby")]
    assignment = Assignment("w-0", 3, content_hash(traders), traders)
    read = decode_assignment(msgspec.json.encode(assignment))
    assert read == assignment
    assert content_hash(read.traders) == assignment.hash


def test_a_trader_reads_its_own_series_first_and_none_twice() -> None:
    one = some_trader("a/a", informative=[SeriesRef("BTC/USDT", "1s"), SeriesRef("BTC/USDT", "1h")])
    assert one.series() == [SeriesRef("BTC/USDT", "1s"), SeriesRef("ETH/USDT", "1s"), SeriesRef("BTC/USDT", "1h")]


def test_settings_are_read_whole(tmp_path: Path) -> None:
    settings = AggregatorSettings(KafkaSettings("x:1", "f"), ["1s"], "unix:/s", "/d", checkpoint_ms=100)
    file = tmp_path / "a.json"
    file.write_bytes(msgspec.json.encode(settings))
    assert read_settings(str(file), AggregatorSettings) == settings


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "truncated"), ('{"intervals": 3}', "intervals"), ("{}", "kafka"), (None, "No such file")],
)
def test_bad_settings_name_file_and_field(tmp_path: Path, content: str | None, says: str) -> None:
    file = tmp_path / "a.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=says) as caught:
        read_settings(str(file), AggregatorSettings)
    assert str(file) in str(caught.value)


def test_addresses_are_paths_or_host_and_port() -> None:
    assert parse_listen("unix:/run/a.sock") == "/run/a.sock"
    assert parse_listen("127.0.0.1:80") == ("127.0.0.1", 80)
    assert parse_listen(":0") == ("", 0)


@pytest.mark.parametrize("text", ["", "localhost", "a:b", "a:65536", "80"])
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="host:port"):
        parse_listen(text)


def every_error(root: type[ChandleryError]) -> Iterator[type[ChandleryError]]:
    yield root
    for child in root.__subclasses__():
        yield from every_error(child)


def test_exit_codes_tell_what_to_do_next() -> None:
    codes = {
        error.__name__: error.exit_code for error in every_error(ChandleryError) if error.__module__ == errors.__name__
    }
    assert codes == {
        "ChandleryError": 1,
        "InputError": 2,
        "ManifestError": 2,
        "StrategyError": 2,
        "MachineError": 3,
        "SegmentError": 3,
        "UnavailableError": 4,
        "LoginError": 4,
        "SpoiledError": 4,
        "InvariantError": 70,
    }


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Logging as it was, afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("chandlery")
    handlers, level, own_level = root.handlers[:], root.level, ours.level
    yield
    root.handlers[:], root.level = handlers, level
    ours.setLevel(own_level)


@pytest.mark.usefixtures("own_logging")
def test_a_log_line_is_one_json_object_with_its_facts(capsys: pytest.CaptureFixture[str]) -> None:
    log = configure_logs("feed")
    log.info("assignment applied", extra={"sequence": 7, "where": Path("/x")})
    log.debug("not shown")
    try:
        raise ValueError("gone")
    except ValueError:
        log.exception("failed")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first["message"] == "assignment applied"
    assert (first["component"], first["level"], first["sequence"]) == ("feed", "info", 7)
    assert "ValueError: gone" in second["exception"]


@pytest.mark.usefixtures("own_logging")
def test_logs_that_are_set_up_already_get_another_name_and_level_and_no_new_parts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logs("nursery")
    (handler,) = logging.getLogger().handlers
    formatter = handler.formatter
    log = configure_logs("trader desk/a", "debug")
    log.debug("seen")
    assert (logging.getLogger().handlers, handler.formatter is formatter) == ([handler], True)
    line = json.loads(capsys.readouterr().err)
    assert (line["component"], line["level"], line["message"]) == ("trader desk/a", "debug", "seen")


@pytest.mark.usefixtures("own_logging")
def test_on_a_terminal_a_log_line_is_short(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    configure_logs("feed").warning("late", extra={"trades": 3})
    assert capsys.readouterr().err.strip().endswith("feed  warning: late  trades=3")
