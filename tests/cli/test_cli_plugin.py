"""``kubectl chandlery``: what its views show, what kubectl's complaints become, whose a log line is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cli.plugin_rows import a_ready, a_trader
from tests.cli.test_cli_views import a_signal, text_of

from chandlery.cli.plugin.asking import explained, pod_of
from chandlery.cli.plugin.deciding import _approvable, _set_suspend
from chandlery.cli.plugin.inside import part_of
from chandlery.cli.plugin.kubectl import ChangedError, ForbiddenError, Kubectl, NotFoundError
from chandlery.cli.plugin.loglines import read_line
from chandlery.cli.plugin.resources import split_name
from chandlery.cli.plugin.top import worst_first
from chandlery.cli.plugin.watching import Figures, Look, Reported, first_row
from chandlery.console.cluster import (
    FeedState,
    PoolState,
    TopRow,
    TraderState,
    advice,
    cluster_status,
    status_view,
    top_table,
)
from chandlery.console.statuses import feed_state, kept_by, pool_state, trader_state
from chandlery.core.errors import ChandleryError, InputError, UnavailableError
from chandlery.core.resources import CHANGED_IN_PLACE, OF_ITS_POOL
from chandlery.core.signals import Life, Signal, Word

STAMP = "2026-11-25T12:00:00.123456789Z"


def a_row(ready: str = "True", reason: str = "Running", **more: Any) -> TraderState:
    return msgspec.structs.replace(trader_state(a_trader()), ready=ready, reason=reason, **more)


def test_a_trader_of_another_namespaces_pool_has_its_pod_there() -> None:
    row = trader_state(a_trader())
    assert (row.trader, row.pool) == ("desk/sma", "platform/quants")
    assert pod_of(row) == ("platform", "quants-0-0")
    row.pod, row.ready, row.reason, row.message = "", "False", "PoolFull", "no room"
    with pytest.raises(UnavailableError, match=r"runs in no pod \(PoolFull: no room\)"):
        pod_of(row)


@pytest.mark.parametrize("status", [{}, {"observedGeneration": 1, "conditions": [a_ready("True", "Running")]}])
def test_what_the_operator_has_not_looked_at_counts_as_unknown(status: dict[str, Any]) -> None:
    row = trader_state(a_trader(status=status))
    assert (row.ready, row.reason) == ("Unknown", "Unseen")
    seen = cluster_status([], [], [row])
    assert not seen.ready
    assert "does the operator run?" in seen.attention[0].advice


def test_a_status_shows_what_runs_and_says_what_to_do_about_the_rest() -> None:
    waiting = a_row("False", "AwaitingApproval", running_generation=1, message="generation 2 waits")
    full = PoolState("desk/quants", "True", "PoolFull", workers=2, ready_workers=2, capacity=4, used=4, pending=3)
    full.message = "some of its traders find no room: raise spec.segment.series"
    seen = cluster_status(
        [FeedState("desk/market", "True", "Running", source="synthetic", symbols=["BTC/USDT"], intervals=["1s"])],
        [full],
        [a_row(), waiting, a_row("False", "Suspended")],
    )
    shown = text_of(status_view(seen))
    assert "9.8ms" in shown
    assert "BTC/USDT,ETH/USDT +1" in shown
    assert "1 of 2" in shown
    assert "1 of 3 Traders Ready, 1 suspended" in shown
    assert "→ kubectl chandlery approve sma -n desk" in shown
    assert "raise spec.segment.series" in shown
    assert "spec.workers.max" not in shown, "the pool's own message names the field"
    assert [one.reason for one in seen.attention] == ["PoolFull", "AwaitingApproval"]
    assert not seen.ready
    assert "SOL/USDT" in text_of(status_view(seen, wide=True))


def test_suspended_as_somebody_wanted_is_all_well() -> None:
    assert cluster_status([], [], [a_row(), a_row("False", "Suspended")]).ready
    pool = PoolState("desk/quants", "False", "Suspended", workers=1, ready_workers=1, message="spec.suspend is true")
    seen = cluster_status([], [pool], [a_row("False", "Suspended")])
    assert (seen.ready, seen.attention) == (True, [])
    assert not cluster_status([], [], [a_row("False", "CrashLoop")]).ready
    assert not cluster_status([FeedState("desk/market", "False", "Starting")], [], []).ready


@pytest.mark.parametrize("reason", ["Suspended", "BadParameter"])
@pytest.mark.parametrize("itself", [True, False])
def test_who_resumes_a_trader_of_a_suspended_pool_is_told_that_it_decides_nothing_yet(
    itself: bool, reason: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "spec.suspend is true, and that " if itself else "spec.suspend "
    ready = a_ready("False", reason, f"{said}{OF_ITS_POOL} platform/quants too: it keeps its place")
    item = a_trader(status={"observedGeneration": 2, "conditions": [ready]})
    item["spec"]["suspend"] = itself
    monkeypatch.setattr("chandlery.cli.plugin.deciding.find_trader", lambda _kubectl, _name: item)
    patched: list[Any] = []

    def patch(*given: Any, **_: Any) -> Any:
        patched.append(given[-1])
        return item

    monkeypatch.setattr(Kubectl, "patch", patch)
    _set_suspend(Kubectl(), "sma", False, dry_run=False, json=True)
    told = json.loads(capsys.readouterr().out)["message"]
    assert told == (
        f"{'resumed desk/sma' if itself else 'desk/sma is not suspended'}, but decides nothing as long as its TraderPool "
        "platform/quants is suspended (spec.suspend)"
    )
    assert [one["spec"] for one in patched] == ([{"suspend": False}] if itself else [])


def test_advice_names_the_very_trader_and_never_a_pod_that_isnt_there() -> None:
    row = a_row("False", "WorkerUnready")
    assert advice("WorkerUnready", row) == "kubectl describe pod quants-0-0 -n platform"
    assert advice("WorkerUnready", msgspec.structs.replace(row, pod="")) == ""
    assert advice("CrashLoop", row) == "kubectl chandlery logs sma -n desk"
    assert advice("BadParameter", row) == ""


def test_what_no_approval_would_let_run_is_neither_approved_nor_advised_to_be() -> None:
    message = f"ConfigMap desk/code {CHANGED_IN_PLACE}, which no approval of generation 2 covers: give it a new name"
    waits = {"observedGeneration": 2, "runningGeneration": 2}
    ready = {**a_ready("False", "AwaitingApproval"), "message": message}
    item = a_trader(status={**waits, "conditions": [ready]})
    item["spec"]["rollout"] = "Manual"
    for asked in (None, 2):
        with pytest.raises(InputError, match="can be approved as it is: ConfigMap desk/code was changed in place"):
            _approvable(item, asked)
    assert advice("AwaitingApproval", trader_state(item)) == ""
    ready["message"] = "generation 2 waits for the annotation"
    assert _approvable(item, None) == 2
    assert advice("AwaitingApproval", trader_state(item)) == "kubectl chandlery approve sma -n desk"


def test_feeds_and_pools_that_say_nothing_yet_still_have_a_row() -> None:
    meta = {"name": "x", "namespace": "desk", "generation": 1}
    feed = feed_state({"metadata": meta, "spec": {"source": {"binance": {}}}})
    pool = pool_state({"metadata": meta, "spec": {}})
    assert (feed.source, pool.workers) == ("binance", None)
    assert "desk/x" in text_of(status_view(cluster_status([feed], [pool], [])))


def look(at_s: float, calls: int, *signals: tuple[str, str, float | None]) -> Look:
    from chandlery.cli.plugin.watching import _Status

    reported = Reported("Active", calls=calls, signals=len(signals), rss_bytes=20_000_000)
    return Look(int(at_s * 1e9), _Status({"desk/sma": reported}), list(signals))


def test_two_looks_make_a_rate_and_signals_their_own_percentiles() -> None:
    figures = Figures()
    row = first_row(a_row())
    assert (row.live, row.signals, row.calls) == (False, 1234, None)
    figures.take(look(10.0, 100, ("s1", "desk/sma", 2_000.0), ("s2", "desk/other", 90_000.0), ("s3", "desk/sma", None)))
    figures.fill(row)
    assert (row.live, row.state, row.calls, row.calls_per_s) == (True, "Active", 100, None)
    figures.take(look(12.0, 110, ("s1", "desk/sma", 2_000.0), ("s4", "desk/sma", 4_000.0)))
    figures.fill(row)
    assert (row.calls_per_s, row.p50_us, row.p99_us) == (5.0, 2_000.0, 4_000.0)
    shown = text_of(top_table([row], wide=True))
    assert "20.0 MB" in shown
    assert "4.00 ms" in shown


def test_after_a_restart_of_the_pod_no_rate_is_made_up() -> None:
    figures = Figures()
    row = first_row(a_row())
    figures.take(look(1_000.0, 500))
    figures.take(look(5.0, 3))  # another host, another clock
    figures.fill(row)
    assert (row.calls, row.calls_per_s) == (3, None)
    figures.take(look(6.0, 1))  # the same host, another Trader of that name
    figures.fill(row)
    assert row.calls_per_s is None


def test_top_has_what_needs_attention_first_then_the_busiest() -> None:
    rows = [
        TopRow("d/idle", "Active", calls_per_s=0.1), TopRow("d/busy", "Active", calls_per_s=9.0),
        TopRow("d/bad", "Backoff"), TopRow("d/off", "Suspended"),
    ]  # fmt: skip
    assert [row.trader for row in worst_first(rows)] == ["d/bad", "d/busy", "d/idle", "d/off"]


def line(**facts: Any) -> str:
    return f"{STAMP} {json.dumps({'time': '2026-11-25T12:00:00.123+00:00', 'level': 'info', **facts})}"


def test_a_log_line_is_a_traders_by_its_process_or_by_who_speaks_of_it() -> None:
    own = line(component="trader desk/sma@3", message="close is 3", printed="stdout")
    about = line(component="supervisor", message="trader ended", level="error", trader="desk/sma", reason="Crashed")
    gone = line(component="supervisor", message="trader removed", trader="desk/sma@2")
    other = line(component="trader desk/sma-2@3", message="hello")
    assert read_line(gone, "desk/sma").is_wanted
    plain = f"{STAMP} Segmentation fault: desk/sma"
    assert [read_line(one, "desk/sma").is_wanted for one in (own, about, other, plain)] == [True, True, False, False]
    assert all(read_line(one, "").is_wanted for one in (own, about, other, plain))
    assert read_line(about, "desk/sma").text().plain == "11-25 12:00:00.123 error: trader ended  reason=Crashed"
    assert read_line(plain, "").text().plain == "Segmentation fault: desk/sma"
    assert read_line(own, "").text(whose=True).plain == "11-25 12:00:00.123 desk/sma@3  close is 3"
    kubelets = read_line("failed to watch file: too many open files", "desk/sma")
    assert (kubelets.stamp, kubelets.is_wanted) == ("", True)
    assert kubelets.text().plain == "failed to watch file: too many open files"
    crash = line(component="trader desk/sma", message="trader crashed", exception="Traceback …\nValueError: x")
    assert read_line(crash, "desk/sma").text().plain.endswith("\nTraceback …\nValueError: x")


@pytest.mark.parametrize("written", [line(component="trader desk/sma", message="\x1b]0;x\x07a\tb\nc\r\x9b2J",
                                             extra="\x1b[2J", exception="\x1b[31mError\nx"),
                                        f"{STAMP} \x1b]52;c;x\x07a\x7f"])  # fmt: skip
def test_a_terminal_obeys_no_strategys_line(written: str) -> None:
    plain = read_line(written, "").text(whose=True).plain
    assert all(char in "\t\n" or char.isprintable() for char in plain)
    assert "\\x1b]" in plain
    if "\\t" in written:
        assert "a\tb\nc\\x0d\\x9b2J" in plain


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        ('Error from server (NotFound): traders.chandlery.dev "a" not found', NotFoundError, '"a" not found'),
        ('Error from server (Forbidden): User "q" cannot list', ForbiddenError, "may not do this"),
        ("Error from server (Conflict): the object has been modified", ChangedError, "modified"),
        ("Error from server (BadRequest): container is waiting to start", InputError, "waiting to start"),
        ("Error from server (ServiceUnavailable): the server is busy", UnavailableError, "busy"),
        ("The connection to the server 1.2.3.4:6443 was refused - did you specify", UnavailableError, "--context"),
        ("Unable to connect to the server: dial tcp: lookup nowhere: no such host", UnavailableError, "--context"),
        ("error: You must be logged in to the server (Unauthorized)", ForbiddenError, "log in again"),
        ('error: context "x" does not exist', InputError, 'context "x" does not exist'),
        ('error: unable to upgrade connection: container not found ("feed")', UnavailableError, "not found"),
    ],
)
def test_kubectls_complaints_are_errors_of_ours_in_one_line(
    said: str, kind: type[ChandleryError], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Kubectl, "server", "https://1.2.3.4:6443")
    noise = 'E1125 12:00:00.000000  1 memcache.go:265] "Unhandled Error" err="couldn\'t get current server"\n'
    error = Kubectl().failure(f"{noise}{noise}{said}\n", 1)
    assert type(error) is kind
    assert told in str(error)
    assert "memcache" not in str(error)
    assert len(str(error).splitlines()) == 1


def test_a_program_in_a_pod_speaks_for_itself_and_an_older_image_is_named() -> None:
    own = Kubectl().failure("Kafka at k:9092 doesn't answer\ncommand terminated with exit code 4\n", 4)
    assert "p/quants-0-0 gives no answer: Kafka at k:9092 doesn't answer" in str(explained(own, "p", "quants-0-0"))
    old = Kubectl().failure(
        "python: No module named chandlery.workers.feed.query\ncommand terminated with exit code 1\n", 1
    )
    assert "older than this command" in str(explained(old, "p", "quants-0-0"))
    denied = explained(ForbiddenError("no"), "p", "quants-0-0")
    assert isinstance(denied, ForbiddenError)
    assert "the right to get pods and create pods/exec in namespace p" in str(denied)


@pytest.mark.parametrize(
    ("given", "name", "meant"),
    [
        ("", "desk/sma", ("desk", "sma")),
        ("desk", "sma", ("desk", "sma")),
        ("desk", "trader/sma", ("desk", "sma")),
        ("desk", "desk/sma", ("desk", "sma")),
        ("desk", "trader.chandlery.dev/sma", ("desk", "sma")),
    ],
)
def test_traders_are_named_as_kubectl_names_things(given: str, name: str, meant: tuple[str, str]) -> None:
    assert split_name(Kubectl(given), name) == meant


@pytest.mark.parametrize("name", ["", "/", "/sma", "desk/", "a/b/c"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no Trader's name"):
        split_name(Kubectl("desk"), name)


@pytest.mark.parametrize(
    ("meta", "keeper"),
    [
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "desk"}}, "Flux Kustomization desk"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "app:x/Trader:a/b"}}, "Argo CD Application app"),
        ({"managedFields": [{"manager": "kustomize-controller"}]}, "Flux' kustomize-controller"),
        ({"labels": {"team": "quant"}, "annotations": None}, ""),
    ],
)
def test_who_keeps_a_trader_in_a_repository_is_known_by_its_marks(meta: dict[str, Any], keeper: str) -> None:
    assert kept_by({"metadata": meta}) == keeper


def test_without_kubectl_it_says_where_to_get_it(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chandlery.cli.plugin", "status"],
        env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    assert "there is no kubectl" in done.stderr
    assert len(done.stderr.splitlines()) == 1


_KUBECTL = """#!/bin/sh
case "$1 $*" in
  get*) if [ -e {folder}/moved ]; then cat {folder}/there; else cat {folder}/here; fi ;;
  logs*quants-1-0*) cat {folder}/log-there; exec sleep 60 ;;
  logs*--follow*) touch {folder}/moved; exec sleep 60 ;;
  logs*) cat {folder}/log-here ;;
esac
"""


def test_a_trader_that_moves_while_it_is_followed_is_followed_to_its_new_pod(tmp_path: Path) -> None:
    # No Kubernetes here moves a Trader from one live worker to another; what kubectl says of one is short enough.
    there = a_trader()
    there["status"] = {**there["status"], "pod": "quants-1-0"}
    (tmp_path / "here").write_text(json.dumps(a_trader()))
    (tmp_path / "there").write_text(json.dumps(there))
    (tmp_path / "log-here").write_text(line(component="trader desk/sma", message="said here") + "\n")
    (tmp_path / "log-there").write_text(line(component="trader desk/sma", message="said there") + "\n")
    (tmp_path / "kubectl").write_text(_KUBECTL.format(folder=tmp_path))
    (tmp_path / "kubectl").chmod(0o755)
    process = subprocess.Popen(
        [sys.executable, "-m", "chandlery.cli.plugin", "logs", "desk/sma", "--follow"],
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert "said here" in process.stdout.readline()
        assert "said there" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, remarks = process.communicate(timeout=60)
        assert (process.returncode, remarks) == (130, "desk/sma goes on in platform/quants-1-0\n")
    finally:
        process.kill()


_ASKED = """#!/bin/sh
case "$1" in
  get) cat {folder}/trader ;;
  exec) cat {folder}/answer ;;
esac
"""


@pytest.mark.parametrize("tells", [True, False])
def test_signals_are_listed_with_their_states_where_the_feed_tells_what_closes_said(
    tmp_path: Path, tells: bool
) -> None:
    at_ms = 1_700_000_000_000
    buy = a_signal(id="a1" * 16, trader="desk/sma", emitted_wall_ms=at_ms)
    sell = a_signal(id="b2" * 16, trader="desk/sma", emitted_wall_ms=at_ms + 1_000, action="sell", forming=True)
    other = a_signal(id="c3" * 16, trader="desk/sma", emitted_wall_ms=at_ms + 2_000, action="sell", forming=True)
    words: list[tuple[Signal, Word]] = [(sell, "confirmed"), (other, "invalidated")]
    told = {
        signal.id: Life(signal.id, "desk/sma", "BTC/USDT", state, signal.open_time_ms, at_ms + 3_000)
        for signal, state in words
    }
    signals = [
        {"signal": one, "account": {}} | ({"word": told.get(one.id)} if tells else {}) for one in (other, sell, buy)
    ]
    (tmp_path / "answer").write_bytes(msgspec.json.encode({"now_ns": 1, "now_ms": at_ms + 4_000, "signals": signals}))
    (tmp_path / "trader").write_text(json.dumps(a_trader()))
    (tmp_path / "kubectl").write_text(_ASKED.format(folder=tmp_path))
    (tmp_path / "kubectl").chmod(0o755)

    def called(*words: str) -> str:
        return subprocess.run(
            [sys.executable, "-m", "chandlery.cli.plugin", "signals", "desk/sma", *words],
            env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"},
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip

    head, *rows = called().splitlines()
    assert ("STATE" in head) == tells
    lines = [json.loads(line) for line in called("--json").splitlines()]
    assert [one["id"] for one in lines] == [buy.id, sell.id, other.id]
    if not tells:
        assert not any("state" in one for one in lines)
        return
    for row, one, state in zip(rows, lines, ("closed", "active", "invalidated"), strict=True):
        assert f" {state} " in row
        assert one["state"] == state
    assert lines[0]["ended_by"] == sell.id
    (narrowed,) = called("--last", "1").splitlines()[1:]
    assert " invalidated " in narrowed


def test_the_verbs_are_completed_as_kubectl_asks_for_it() -> None:
    program = "from chandlery.cli.plugin.completion import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "debug", "se"], capture_output=True, text=True, timeout=60, check=True
    )
    first, directive = done.stdout.splitlines()
    assert first.split("\t")[0] == "segment"
    assert directive == ":4"


def test_the_plugin_needs_neither_kafka_nor_http_nor_the_local_runtimes_packages() -> None:
    program = (
        "import sys, chandlery.cli.plugin.app\n"
        "print([n for n in ('aiokafka', 'aiohttp', 'psutil', 'numpy', 'watchfiles', 'kopf') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_status_shows_an_escape_of_a_strategy_and_sends_none_to_the_terminal() -> None:
    row = trader_state(a_trader(status={"lastError": "ValueError: \x1b[2J"}))
    assert row.last_error == "ValueError: \\x1b[2J"


def test_of_a_series_that_a_traders_worker_does_not_have_it_is_said_why_or_what_there_is() -> None:
    row = {"symbol": "BTC/USDT", "interval": "5m"}
    market = {
        "symbols": ["BTC/USDT", "ETH/USDT"],
        "interval": "1m",
        "informative": [{"symbol": "BTC/USDT", "interval": "5m"}, {"symbol": "BTC/USDT", "interval": "1h"}],
    }
    told = {"series": [row], "absent": {"ETH/USDT 1m": "the segment is full", "SOL/USDT 1m": "another's"}}
    part = part_of(told, "desk/sma", market)
    assert part["series"] == [row]
    assert part["absent"].keys() == {"BTC/USDT 1m", "BTC/USDT 1h", "ETH/USDT 1m"}
    assert part["absent"]["ETH/USDT 1m"] == "the segment is full"
    assert part["absent"]["BTC/USDT 1m"].startswith("the segment holds BTC/USDT by 5m only; ")
    assert "spec.market.interval" in part["absent"]["BTC/USDT 1m"]
    assert "spec.market.informative" in part["absent"]["BTC/USDT 1h"]
