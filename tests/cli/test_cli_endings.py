"""Exit codes of the command, and that nothing is started or printed on the wrong stream."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from chandlery.cli.endings import ends_well
from chandlery.cli.running import verdict
from chandlery.cli.runtime.options import UpOptions
from chandlery.cli.starting import _address
from chandlery.console.summary import Summary
from chandlery.core.errors import InputError, MachineError, UnavailableError

COMMAND = [sys.executable, "-m", "chandlery.cli"]


def call(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


@pytest.mark.parametrize(
    ("error", "code"),
    [(InputError("bad"), 2), (MachineError("no room"), 3), (UnavailableError("nobody"), 4), (KeyboardInterrupt(), 130)],
)
def test_what_a_verb_raises_becomes_its_exit_code(error: BaseException, code: int) -> None:
    def verb() -> int:
        raise error

    with pytest.raises(typer.Exit) as end:
        ends_well(verb)()
    assert end.value.exit_code == code


def test_every_line_of_an_error_stands_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    def verb() -> int:
        raise InputError("first\nsecond")

    with pytest.raises(typer.Exit):
        ends_well(verb)()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "chandlery: first\nchandlery: second\n"


def test_without_a_running_instance_get_says_so_and_exits_4(tmp_path: Path) -> None:
    done = call("get", "traders", "--state", str(tmp_path / "none"))
    assert done.returncode == 4
    assert "nothing runs over" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("up", "-f", ".", "--port", "abc"), "--port must be a whole number"),
        (("up", "-f", ".", "--metrics-port", "80"), "--metrics-port must be at least 1024"),
        (("up", "-f", ".", "--port", "99999"), "--port must be at most 65535"),
        (("up", "-f", ".", "--port", "-3"), "--port must be at least 1"),
        (("up", "-f", ".", "--port", "0"), "--port must be at least 1"),
        (("doctor", "--port", "99999"), "--port must be at most 65535"),
        (("doctor", "--port", "9092", "--port", "0"), "--port must be at least 1"),
        (
            ("up", "-f", ".", "--port", "9092", "--kafka", "here:9092"),
            "--port is of the Kafka that is started here, and --kafka names another: leave one of them out",
        ),
        (("up", "-f", ".", "--kafka", "foo"), "--kafka 'foo': write host:port"),
        (("signals", "-n", "-1"), "-n / --last must be at least 0"),
        (("get", "traders", "--nonsense"), "no such option: --nonsense; `chandlery get --help` tells of all"),
        (("up",), "missing option '-f' / '--filename'; `chandlery up --help` tells of all"),
        (("nonsense",), "no such command 'nonsense'; `chandlery --help` tells of all"),
    ],
)
def test_a_command_line_that_can_t_be_read_is_told_in_one_line(arguments: tuple[str, ...], said: str) -> None:
    done = call(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"chandlery: {said}\n")


@pytest.mark.parametrize(
    "text", ["foo", "", ":9092", "a b:1", " a:1", "a:0", "a:99999", "unix:/k", "a:1,", "a:1, b:2", "a:1,:2"]
)
def test_a_kafka_that_nobody_could_reach_is_told_with_its_option_and_what_would_be_right(text: str) -> None:
    with pytest.raises(InputError) as caught:
        _address(text)
    assert str(caught.value) == f"--kafka {text!r}: write host:port"


@pytest.mark.parametrize("text", [None, "a:1", "a.b:9092,10.0.0.1:65535", "[::1]:9092"])
def test_a_kafka_is_taken_as_it_is_named(text: str | None) -> None:
    assert _address(text) == text


def test_a_choice_that_there_is_not_names_those_there_are() -> None:
    done = call("get", "tradres")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "'traders'" in done.stderr


def test_without_a_verb_the_help_is_shown() -> None:
    done = call()
    assert (done.returncode, done.stderr) == (2, "")
    assert "signals" in done.stdout
    assert call("--help").returncode == 0


def test_without_a_verb_the_help_is_shown_also_where_rich_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TYPER_USE_RICH", "0")
    done = call()
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.count("Usage: chandlery") == 1


def test_without_its_packages_it_names_the_extra_that_brings_them() -> None:
    program = "import sys; sys.modules['aiohttp'] = None\nfrom chandlery.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "chandlery: the package aiohttp is missing: pip install 'chandlery[all]' brings it\n"


def test_version_as_json_is_one_object() -> None:
    done = call("version", "--json")
    assert done.returncode == 0
    assert set(json.loads(done.stdout)) == {"version", "python", "platform"}


def test_an_unknown_log_names_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "feed-demo-0.log").write_text("one\ntwo\n")
    missing = call("logs", "nobody", "--state", str(tmp_path))
    assert missing.returncode == 2
    assert "feed-demo-0" in missing.stderr
    assert call("logs", "feed-demo-0", "--tail", "1", "--state", str(tmp_path)).stdout == "two\n"


def test_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "long.log").write_text("line\n" * 200_000)
    process = subprocess.Popen(
        [*COMMAND, "logs", "long", "--state", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    complaint = process.stderr.read()
    assert process.wait(60) == 0, complaint
    assert complaint == b""


def test_ctrl_c_while_following_exits_130(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "one.log").write_text("begun\n")
    process = subprocess.Popen(
        [*COMMAND, "logs", "one", "-f", "--state", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"begun\n"
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=60)
    assert process.returncode == 130, complaint
    assert complaint == b""


def test_logs_of_a_state_where_nothing_ran_says_so(tmp_path: Path) -> None:
    ended = call("logs", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "nothing has run over this state folder" in ended.stderr


@pytest.mark.parametrize("verb", ["up", "validate"])
def test_a_file_that_no_replay_can_be_is_refused_before_anything_starts(tmp_path: Path, verb: str) -> None:
    (tmp_path / "trades.txt").touch()
    feed = {
        "apiVersion": "chandlery.dev/v1alpha1",
        "kind": "MarketFeed",
        "metadata": {"name": "f"},
        "spec": {"source": {"replay": {"files": ["trades.txt"]}}},
    }
    (tmp_path / "feed.json").write_text(json.dumps(feed))
    ended = call(verb, "-f", "feed.json", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert 'spec.source.replay.files[0]: "trades.txt": replays are .frames' in ended.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["feed.json", "trades.txt"]


def test_a_file_that_no_history_can_be_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "candles.xlsx").touch()
    file = {"symbol": "BTC/USDT", "interval": "1m", "path": "candles.xlsx"}
    feed = {
        "apiVersion": "chandlery.dev/v1alpha1",
        "kind": "MarketFeed",
        "metadata": {"name": "f"},
        "spec": {"source": {"synthetic": {}}, "history": {"files": [file]}},
    }
    (tmp_path / "feed.json").write_text(json.dumps(feed))
    ended = call("up", "-f", "feed.json", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert 'spec.history.files[0].path: "candles.xlsx": files of history are .csv' in ended.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["candles.xlsx", "feed.json"]


@pytest.mark.parametrize("text", ["3x", "", "9" * 5000 + "s"])
def test_a_duration_that_is_none_is_told_in_one_line_with_its_option(tmp_path: Path, text: str) -> None:
    ended = call("up", "-f", str(tmp_path), "--for", text, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"chandlery: --for '{text[:59]}")
    assert line.endswith("write whole numbers with units w, d, h, m, s or ms, such as 1m30s")


@pytest.mark.parametrize(
    ("asked", "problems", "code"),
    [
        ({}, [], 0),
        ({}, ["a trader is missing"], 0),
        ({"run_for_s": 3.0}, [], 0),
        ({"run_for_s": 3.0}, ["a trader is missing"], 1),
        ({"until_end": True}, ["a trader is missing"], 1),
    ],
)
def test_a_run_that_is_to_end_by_itself_is_judged_and_one_that_a_person_ends_is_not(
    tmp_path: Path, asked: dict[str, Any], problems: list[str], code: int
) -> None:
    options = UpOptions(manifests=("m",), state=tmp_path, **asked)
    assert verdict(options, Summary("1", 1, problems=problems)) == code
