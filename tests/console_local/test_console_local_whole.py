"""The quickstart with its console: the API tells what runs, and changes it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.runtime.up_process import DEADLINE_S, Up, kill_hard, teller, until, write_manifests

from chandlery.cli.runtime.procfs import is_alive
from chandlery.core.latency import account
from chandlery.core.signals import Signal

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
API = "/api/v1"


class Served:
    """A running quickstart and a client of its console."""

    def __init__(self, up: Up, manifests: Path) -> None:
        self.up = up
        self.manifests = manifests
        view = up.running()
        assert view.console is not None
        self.address = view.console.address
        assert self.address in up.said, "the panel says where it is"
        self.client = httpx.Client(base_url=self.address, timeout=DEADLINE_S)
        until(self.answers, lambda: f"the console answers; it said:\n{up.said}\n{self.log}")

    @property
    def log(self) -> str:
        path = self.up.state / "logs" / "console.log"
        return path.read_text(errors="replace") if path.exists() else "no log"

    def answers(self) -> bool:
        try:
            return self.client.get(f"{API}/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def get(self, path: str, code: int = 200) -> Any:
        answer = self.client.get(API + path)
        assert answer.status_code == code, answer.text
        return answer.json()

    def state_of(self, trader: str) -> str:
        answer = self.client.get(f"{API}/traders/default/{trader}")
        return str(answer.json()["state"]) if answer.status_code == 200 else ""

    def signals_of(self, trader: str) -> list[Any]:
        return list(self.get(f"/signals?trader=default/{trader}")["items"])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("whole")
    manifests = folder / "m"
    shutil.copytree(QUICKSTART, manifests)
    # Port 0: others may run beside this.
    with Up(folder, manifests, "--console", "127.0.0.1:0", "--trace-url", "http://jaeger/trace/{trace_id}") as up:
        serving = Served(up, manifests)
        yield serving
        serving.client.close()
        assert up.end() == 0, up.said
        assert up.left() == []


def test_the_first_look_says_that_all_is_well(served: Served) -> None:
    def well() -> bool:
        overview = served.get("/overview")
        return bool(
            (overview["traders_ready"], overview["traders"], overview["feeds_alive"], overview["feeds"]) == (5, 5, 1, 1)
            and overview["signals_per_min"] > 0
            and not overview["away"]
        )

    until(well, lambda: f"all is well: {served.get('/overview')}")
    overview = served.get("/overview")
    assert overview["writable"] is True
    assert overview["memory_bytes"] > 100_000_000
    assert overview["attention"] == []
    memory = served.get("/memory")
    kinds = {one["kind"] for one in memory["processes"]}
    assert kinds == {"up", "kafka", "ingest", "aggregator", "feed", "supervisor", "trader", "console", "strategies"}
    (segment,) = memory["segments"]
    assert (segment["worker"], segment["rings"]) == ("quants-0", 5)
    # Ten symbols at 1s, and BTC/USDT at 5s.
    assert 0 < segment["series_used"] <= segment["series_capacity"]
    assert segment["size_bytes"] > 1_000_000
    (pool,) = served.get("/pools")["items"]
    assert (pool["feed"], pool["ready_workers"], pool["transport"]) == ("default/synthetic", 1, "SharedMemory")
    assert "console" in {row.name for row in served.up.running().processes}


def test_signals_come_as_a_stream(served: Served) -> None:
    with served.client.stream("GET", f"{API}/signals/stream") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        data = next(line for line in stream.iter_lines() if line.startswith("data:"))
    signal_ = json.loads(data.removeprefix("data:"))
    assert signal_["feed"] == "default/synthetic"
    assert signal_["trader"].startswith("default/")


def test_the_command_and_the_api_tell_the_same_stages(served: Served) -> None:
    def with_stages() -> list[Any]:
        return [one for one in served.get("/signals")["items"] if one["stages"]]

    until(lambda: bool(with_stages()), "a signal is whole")
    listed = with_stages()[0]
    detail = served.get(f"/signals/{listed['id']}")
    done = subprocess.run(
        [sys.executable, "-m", "chandlery.cli", "trace", listed["id"], "--json", "--state", str(served.up.state)],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    traced = msgspec.json.decode(done.stdout, type=Signal)
    told = account(traced.stamps)
    assert [(one["name"], one["duration_us"], one["clock"]) for one in detail["waterfall"]] == [
        (stage.name, pytest.approx(stage.duration_us, abs=0.01), stage.clock) for stage in told.stages
    ]
    assert detail["frame_to_signal_us"] == pytest.approx(told.frame_to_signal_us, abs=0.01)
    assert (detail["trader"], detail["price"], detail["ordinal"]) == (traced.trader, traced.price, traced.ordinal)
    assert detail["trace_url"] == f"http://jaeger/trace/{detail['trace_id']}"


def test_a_trader_made_through_the_api_signals_until_it_is_suspended_and_goes(served: Served) -> None:
    manifest = {
        "apiVersion": "chandlery.dev/v1alpha1",
        "kind": "Trader",
        "metadata": {"name": "posted"},
        "spec": {
            "pool": {"name": "quants"},
            "strategy": {"name": "each-candle"},
            "market": {"symbols": ["BTC/USDT"], "interval": "1s"},
        },
    }
    others = {path.name: path.read_bytes() for path in served.manifests.iterdir()}
    made = served.client.post(f"{API}/traders", json=manifest)
    assert made.status_code == 201, made.text
    assert served.client.post(f"{API}/traders", json=manifest).status_code == 409
    until(lambda: served.state_of("posted") == "Active", lambda: f"it is Active: {served.state_of('posted')}")
    until(lambda: bool(served.signals_of("posted")), "it signals")

    version = served.get("/traders/default/posted")["resource_version"]
    stopped = served.client.put(f"{API}/traders/default/posted/suspend", json={"suspend": True})
    assert stopped.json()["manifest"]["spec"]["suspend"] is True
    until(lambda: served.state_of("posted") == "Suspended", "it is suspended")
    overview = served.get("/overview")
    assert (overview["traders"], overview["traders_suspended"]) == (5, 1)
    held = served.get("/traders/default/posted")["signals"]
    before = len(served.signals_of("sma-majors"))
    until(lambda: len(served.signals_of("sma-majors")) > before, "the others go on")
    assert served.get("/traders/default/posted")["signals"] == held, "it decides nothing more"

    edit = served.client.put(
        f"{API}/traders/default/posted", json=stopped.json()["manifest"], headers={"If-Match": version}
    )
    assert edit.status_code == 409, "somebody else's edit came between"
    assert served.client.delete(f"{API}/traders/default/posted").status_code == 204
    until(lambda: served.client.get(f"{API}/traders/default/posted").status_code == 404, "it is gone")
    assert {path.name: path.read_bytes() for path in served.manifests.iterdir()} == others


@pytest.mark.parametrize(
    ("spec", "field", "value", "sentence"),
    [
        ({"strategy": {"name": "macdd"}}, "spec.strategy.name", "macdd", 'did you mean "macd"?'),
        (
            {"strategy": {"name": "macd", "parameters": {"fsat": 3}}},
            "spec.strategy.parameters.fsat",
            "3",
            'did you mean "fast"?',
        ),
        ({"pool": {"name": "quant"}}, "spec.pool.name", "quant", 'did you mean "quants"?'),
    ],
)
def test_what_the_next_start_would_refuse_is_never_written(
    served: Served, spec: dict[str, object], field: str, value: str, sentence: str
) -> None:
    before = {path.name: path.read_bytes() for path in served.manifests.iterdir()}
    manifest = served.get("/traders/default/macd-oracles")["manifest"]
    wrong = {**manifest, "spec": {**manifest["spec"], **spec}}
    new = {**wrong, "metadata": {"name": "new"}}
    for answer in (
        served.client.put(f"{API}/traders/default/macd-oracles", json=wrong),
        served.client.post(f"{API}/traders", json=new),
    ):
        told = answer.json()
        assert (answer.status_code, told["reason"]) == (422, "BadField"), told
        assert (told["field"], told["value"]) == (field, value)
        assert sentence in told["detail"]
    assert {path.name: path.read_bytes() for path in served.manifests.iterdir()} == before


def test_what_the_planner_refuses_is_told_of_the_trader(served: Served) -> None:
    text = (served.manifests / "traders.yaml").read_text()
    detail = served.get("/traders/default/macd-oracles")
    assert text.count("    name: macd\n") == 1, text
    (served.manifests / "traders.yaml").write_text(text.replace("    name: macd\n", "    name: macdd\n"))
    until(
        lambda: served.get("/traders/default/macd-oracles")["reason"] == "UnknownStrategy",
        lambda: f"it is told: {served.get('/traders/default/macd-oracles')}",
    )
    assert any("macd-oracles" in sentence for sentence in served.get("/overview")["attention"])
    back = served.client.put(f"{API}/traders/default/macd-oracles", json=detail["manifest"])
    assert back.status_code == 200, back.text
    until(lambda: served.get("/overview")["traders_ready"] == 5, "all is well again")
    head = text[: text.index("name: macd-oracles")]
    assert (served.manifests / "traders.yaml").read_text().startswith(head), "the others' text is as it was"


def test_a_console_that_is_killed_comes_back_and_the_market_goes_on(served: Served) -> None:
    pid = served.up.pid_of("console")
    traders = {row.trader: row.pid for row in served.up.running().traders}
    kill_hard(pid)
    until(lambda: served.up.pid_of("console") not in (0, pid), "it is started again")
    until(served.answers, lambda: f"it answers again:\n{served.log}")
    assert {row.trader: row.pid for row in served.up.running().traders} == traders


def test_kill_9_of_all_leaves_no_console(tmp_path: Path) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"))
    with Up(tmp_path, manifests, "--console", "127.0.0.1:0") as up:
        serving = Served(up, manifests)
        pid = up.pid_of("console")
        # Somebody looks while it happens.
        with serving.client.stream("GET", f"{API}/live?topics=overview") as stream:
            assert stream.status_code == 200
            up.process.send_signal(signal.SIGKILL)
            up.process.wait()
            until(lambda: not is_alive(pid), "it has ended too")
        serving.client.close()


def test_a_named_port_that_is_taken_ends_the_start(tmp_path: Path) -> None:
    manifests = write_manifests(tmp_path / "m", one=teller("one"))
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with Up(tmp_path, manifests, "--console", f"127.0.0.1:{port}") as up:
            assert up.wait() == 3, up.said
            assert f"port {port}, that --console names, is held by pid" in up.said
            assert up.left() == []
    with Up(tmp_path, manifests, "--console", "0.0.0.0:8420") as up:
        assert up.wait() == 2
        assert "--console-token-file" in up.said
