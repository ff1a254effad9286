"""``kubectl chandlery`` on real clusters: called by kubectl as a plugin, answered by real API servers and pods."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.cluster.commands import ClusterError
from tests.e2e.conftest import Images
from tests.e2e.desk import CHART, ROLES, START_S, Desk, install
from tests.e2e.kubectl import Cluster, Namespace
from tests.e2e.plugin_calls import COMMAND_S, Operated, Plugin

ANNOTATION = "chandlery.dev/approve-generation"


@pytest.fixture(scope="module")
def operated(control_plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operated]:
    """One for all tests here: each has Traders of its own."""
    namespace = control_plane.namespace(f"operated-{uuid.uuid4().hex[:6]}")
    made = Operated(namespace, tmp_path_factory.mktemp("operated"))
    try:
        made.start()
        yield made
    finally:
        made.stop()
        namespace.remove()


@pytest.fixture
def called(operated: Operated, tmp_path: Path) -> Plugin:
    (tmp_path / "bin").mkdir()
    return Plugin(operated.namespace.cluster, tmp_path / "bin", operated.namespace.name)


def test_a_waiting_change_is_approved_as_it_was_looked_at_and_no_other(
    operated: Operated, called: Plugin, tmp_path: Path
) -> None:
    ns = called.namespace
    operated.trader("slow", rollout="Manual")
    operated.trader("quick")
    operated.until("slow", "Running")
    assert "waits for approval: generation 1 runs" in called.refused("approve", "slow")
    assert "rollout: Auto" in called.refused("approve", "quick")

    operated.trader("slow", rollout="Manual", fast=5)
    operated.until("slow", "AwaitingApproval")
    shown = called.told("status")
    assert re.search(rf"{ns}/slow +False +AwaitingApproval .* 1 of 2 ", shown)
    assert f"→ kubectl chandlery approve slow -n {ns}" in shown
    assert called.call("status", "slow", "--exit-code").returncode == 1
    assert "is 2, not 3" in called.refused("approve", "slow", "--generation", "3")
    assert "dry run" in called.told("approve", "slow", "--dry-run")
    assert ANNOTATION not in annotations_of(operated.namespace, "slow")

    # Only its status moves on between look and patch: the same generation is approved all the same.
    status = json.dumps({"status": {"signals": 7}})
    called.before_patch(f"$KUBECTL patch trader slow -n {ns} --subresource=status --type=merge -p '{status}'")
    told = called.told("approve", f"{ns}/slow")
    assert "approved generation 2" in told
    assert "strategy.parameters.fast: 9 → 5" in told
    assert annotations_of(operated.namespace, "slow")[ANNOTATION] == "2"
    operated.until("slow", "Running")
    assert "was approved before" not in called.refused("approve", "slow")

    # Somebody changes the spec between look and patch: what was looked at is gone, and nothing is approved.
    operated.trader("slow", rollout="Manual", fast=6)
    operated.until("slow", "AwaitingApproval")
    spec = json.dumps({"spec": {"strategy": {"parameters": {"fast": 7}}}})
    (tmp_path / "bin" / "patched-once").unlink()
    called.before_patch(f"$KUBECTL patch trader slow -n {ns} --type=merge -p '{spec}'")
    assert "changed meanwhile: generation 4 is the newest, not 3" in called.refused("approve", "slow")
    assert annotations_of(operated.namespace, "slow")[ANNOTATION] == "2"


def test_suspending_is_no_fault_and_whoever_keeps_the_trader_in_a_repository_is_named(
    operated: Operated, called: Plugin, tmp_path: Path
) -> None:
    ns = called.namespace
    operated.trader("one")
    operated.trader("kept")
    operated.namespace.kubectl("label", "trader", "kept", "kustomize.toolkit.fluxcd.io/name=desk")
    assert called.call("status", "one", "kept", "--wait", "--timeout", "60s").returncode == 0
    done = called.call("suspend", "one")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, f"suspended {ns}/one", "")
    operated.until("one", "Suspended")
    assert "1 of 2 Traders Ready, 1 suspended" in called.told("status", "one", "kept", "--exit-code")
    assert "is suspended already" in called.told("suspend", "one")
    assert "Flux Kustomization desk applies this Trader" in called.call("suspend", "kept").stderr
    assert called.json("resume", "one")["suspend"] is False
    called.told("resume", "kept")
    operated.until("one", "Running")


def test_wrong_names_missing_rights_and_absent_servers_are_one_line_each(
    operated: Operated, called: Plugin, tmp_path: Path
) -> None:
    ns = called.namespace
    operated.trader("sma-btc")
    operated.until("sma-btc", "Running")
    assert 'did you mean "sma-btc"?' in called.refused("approve", "sma-bct")
    assert "there is " + ns + "/sma-btc" in called.call("logs", "sma-btc", "-n", "default", anywhere=True).stderr
    assert "contradict" in called.refused("suspend", "elsewhere/sma-btc")
    assert "context" in called.refused("status", "--context", "nowhere")
    nobody = called.refused("status", "--as", "nobody")
    assert "you may not do this" in nobody
    assert "traders" in nobody

    away = tmp_path / "away"
    away.write_text(
        json.dumps(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "a",
                "clusters": [{"name": "a", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "a", "user": {"token": "very-secret"}}],
                "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            }
        )
    )  # fmt: skip
    line = called.refused("status", "--kubeconfig", str(away), code=4)
    assert "https://127.0.0.1:1 doesn't answer" in line
    assert "--context" in line
    assert "very-secret" not in line

    # The pod runs in name only: nobody answers inside, and what the statuses tell is still shown.
    top = called.call("top")
    assert top.returncode == 0
    assert "sma-btc" in top.stdout
    assert "not live" in top.stderr

    words = ("kubectl", "__complete", "chandlery", "logs", "-n", ns, "sm")
    completed = subprocess.run(
        words, env=called.environment(), capture_output=True, text=True, timeout=COMMAND_S, check=True
    )
    assert completed.stdout.splitlines() == ["sma-btc", ":4"]


def test_inspectors_may_ask_workers_and_run_nothing_else(
    operated: Operated, called: Plugin, control_plane: Cluster
) -> None:
    operated.trader("asked")
    operated.until("asked", "Running")
    ns, kubectl = called.namespace, operated.namespace.kubectl
    values = ("--set", "rbac.inspectors={quants}", "--namespace", ns)
    templates = ("-s", "templates/inspectors.yaml", "-s", "templates/roles-for-people.yaml")
    text = control_plane.run("helm", "template", "mine", str(CHART), *values, *templates)
    try:
        control_plane.apply(text)
        for role in ("worker-inspect", "view"):
            kubectl("create", "rolebinding", role, f"--clusterrole={ns}:mine-{role}", "--group=quants")
        as_quant = ("--as=somebody", "--as-group=quants")

        def attempt(*command: str, container: str = "feed") -> str:
            try:
                return kubectl("exec", "quants-0-0", "-c", container, *as_quant, "--", *command)
            except ClusterError as error:
                return str(error)

        # A new policy takes a moment to be known; that a pod of kwok's runs nothing is the sign of having been let in.
        until("the policy", lambda: "only ask workers" in attempt("sh"))
        query = ("python", "-m", "chandlery.workers.feed.query")
        for command, container in (
            ((*query, "get", "status"), "traders"),
            ((*query, "--config", "/tmp/other", "get", "status"), "feed"),
            ((*query,), "feed"),
            (("cat", "/etc/chandlery/token/token"), "feed"),
        ):
            assert "only ask workers" in attempt(*command, container=container), command
        asked = attempt(*query, "get", "status")
        assert "only ask workers" not in asked
        assert "orbidden" not in asked
        top = called.call("top", *as_quant)  # the very words that the plugin asks with
        assert top.returncode == 0
        assert "not live" in top.stderr
        assert "only ask workers" not in top.stderr
    finally:
        control_plane.kubectl("delete", "-f", "-", "--ignore-not-found", stdin=text)


def annotations_of(namespace: Namespace, name: str) -> dict[str, str]:
    found: dict[str, str] = namespace.get("trader", name)["metadata"].get("annotations", {})
    return found


# On real pods.

_STRATEGIES = '''
from chandlery.workers.strategy import Strategy


class Chatty(Strategy):
    """Says what it sees, and buys at every third candle."""

    name = "chatty"

    @property
    def warmup(self) -> int:
        return 2

    def on_candle(self, ctx, candles):
        print("chatty saw", candles.close[-1])
        if int(candles.open_time[-1]) // 1000 % 3 == 0:
            ctx.buy(reason="its turn", rule="third")


class Crasher(Strategy):
    """Can't."""

    name = "crasher"

    @property
    def warmup(self) -> int:
        return 2

    def on_candle(self, ctx, candles):
        raise ValueError("no idea what to do")
'''


@pytest.fixture(scope="module")
def desk(node: Cluster, images: Images) -> Iterator[Desk]:
    """A desk with a Trader ``chatty`` that runs and ``crasher`` that doesn't."""
    namespace = node.namespace(f"plugin-{uuid.uuid4().hex[:6]}")
    desk = install(namespace, {role: images[role] for role in ROLES})
    code = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "own"}, "data": {"own.py": _STRATEGIES}}
    source = {"configMapRef": {"name": "own", "key": "own.py"}}
    namespace.apply(
        [
            code,
            desk.trader("chatty", strategy={"name": "chatty", "source": source}),
            desk.trader("crasher", "ETH/USDT", strategy={"name": "crasher", "source": source}),
        ]
    )
    desk.wait_ready("chatty")
    yield desk
    namespace.remove()


@pytest.fixture
def plugin(desk: Desk, tmp_path: Path) -> Plugin:
    return Plugin(desk.namespace.cluster, tmp_path, desk.namespace.name)


def until(what: str, holds: Any, timeout_s: float = START_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.5)
    return found


@pytest.mark.node
@pytest.mark.slow
def test_top_shows_each_traders_own_figures_from_its_pod(desk: Desk, plugin: Plugin) -> None:
    def signalled() -> Any:
        rows = {row["trader"].partition("/")[2]: row for row in plugin.json("top")}
        # A signal's latency is known before the worker's next report counts it.
        known = rows["chatty"]["p99_us"] and rows["chatty"]["signals"] and rows["crasher"]["restarts"]
        return rows if known else None

    rows = until("a signal with its latency, counted, and a restart", signalled)
    chatty = rows["chatty"]
    assert chatty["live"]
    assert chatty["state"] == "Active"
    assert chatty["calls"] > chatty["signals"] > 0
    assert chatty["calls_per_s"] >= 0
    assert 0 < chatty["p50_us"] <= chatty["p99_us"]
    assert chatty["rss_bytes"] > 1_000_000
    assert rows["crasher"]["signals"] == 0
    assert re.search(rf"{plugin.namespace}/chatty +Active ", plugin.told("top"))


# In two words, for the program itself stands among the processes it looks at.
_QUERIES = """
from pathlib import Path
for process in Path("/proc").glob("[0-9]*/cmdline"):
    if b"chandlery.workers.feed." + b"query" in process.read_bytes():
        print(process)
"""


@pytest.mark.node
@pytest.mark.slow
def test_top_refreshes_on_a_terminal_and_leaves_nothing_behind_in_the_pod(desk: Desk, plugin: Plugin) -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 140, 0, 0))
    process = subprocess.Popen(
        ["kubectl", "chandlery", "top", "--every", "0.5", "-n", plugin.namespace],
        env=plugin.environment() | {"TERM": "xterm-256color"}, stdin=theirs, stdout=theirs, stderr=theirs,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        shown = ""
        while len(set(re.findall(r"chatty[^\n]*?Active[^\d\n]*\x1b\[0m +(\d+) ", shown))) < 2:
            shown += os.read(ours, 65_536).decode(errors="replace")
        pod = desk.namespace.get("trader", "chatty")["status"]["pod"]
        assert desk.namespace.execute(pod, "python", "-c", _QUERIES, container="feed")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does at Ctrl-C: to kubectl's own processes too
        while _read_some(ours):
            pass
        assert process.wait(COMMAND_S) == 130
    finally:
        process.kill()
        os.close(ours)
    until("no query in the pod", lambda: not desk.namespace.execute(pod, "python", "-c", _QUERIES, container="feed"))


def _read_some(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # whoever wrote there has ended
        return b""


@pytest.mark.node
@pytest.mark.slow
def test_a_signal_on_the_topic_is_traced_by_the_beginning_of_its_id(desk: Desk, plugin: Plugin) -> None:
    signal = next(iter(desk.more_signals("chatty", {})))
    shown = plugin.told("trace", signal[:12])
    assert signal in shown
    for stage in ("appended", "published", "decided", "signalled", "acknowledged"):
        assert re.search(rf"^{stage} ", shown, re.MULTILINE)
    assert plugin.json("trace", signal, "--trader", "chatty")["id"] == signal
    assert "no signal's id begins" in plugin.refused("trace", "f" * 32)
    assert "hexadecimal" in plugin.refused("trace", "chatty")


@pytest.mark.node
@pytest.mark.slow
def test_the_segment_and_the_ring_of_a_trader_are_shown_from_inside_its_pod(desk: Desk, plugin: Plugin) -> None:
    shown = plugin.told("debug", "segment", "chatty")
    assert re.search(r"layout +version", shown)
    assert "BTC/USDT" in shown
    assert "ETH/USDT" not in shown
    assert re.search(rf"^{plugin.namespace}/chatty +\d+/\d+", shown, re.MULTILINE)
    whole = plugin.json("debug", "segment", "chatty")
    assert {row["symbol"] for row in whole["segment"]["series"]} == {"BTC/USDT", "ETH/USDT"}
    assert whole["segment"]["readers"][f"{plugin.namespace}/chatty"]["lapped"] == 0
    assert set(plugin.json("debug", "signals", "chatty")) == {f"{plugin.namespace}/chatty"}


@pytest.mark.node
@pytest.mark.slow
def test_logs_are_one_traders_alone_and_follow_it_over_a_restart_of_its_container(desk: Desk, plugin: Plugin) -> None:
    until("a crash in the log", lambda: "no idea what to do" in plugin.told("logs", "crasher"))
    own = plugin.told("logs", "chatty")
    assert "chatty saw" in own
    assert "no idea what to do" not in own
    assert "chatty saw" not in plugin.told("logs", "crasher")
    assert len(plugin.told("logs", "chatty", "--tail", "3").splitlines()) == 3
    records = [json.loads(line) for line in plugin.told("logs", "chatty", "--tail", "5", "--json").splitlines()]
    assert {record.get("printed") for record in records} == {"stdout"}
    assert "supervisor" in {json.loads(line).get("component") for line in worker_lines(plugin)}

    following = plugin.start("logs", "chatty", "--follow", "--tail", "1")
    try:
        assert following.stdout is not None
        assert "chatty saw" in following.stdout.readline()
        pod = desk.namespace.get("trader", "chatty")["status"]["pod"]
        desk.namespace.execute(pod, "python", "-c", "import os; os.kill(1, 15)", container="traders")
        # What ends and what begins again are both told, and then it goes on as before.
        assert any("trader started" in line for line in following.stdout)
        assert any("chatty saw" in line for line in following.stdout)
        following.send_signal(2)
        following.stdout.read()
        assert following.wait(COMMAND_S) == 130
    finally:
        following.kill()
    assert "chatty saw" in plugin.told("logs", "chatty", "--previous")


def worker_lines(plugin: Plugin) -> list[str]:
    return plugin.told("logs", "chatty", "--worker", "--json").splitlines()


@pytest.mark.node
@pytest.mark.slow
def test_who_may_not_look_into_pods_sees_statuses_and_is_told_which_right_is_missing(
    desk: Desk, plugin: Plugin
) -> None:
    kubectl = desk.namespace.kubectl
    kubectl("create", "role", "reader", "--verb=get,list", "--resource=traders.chandlery.dev,traderpools.chandlery.dev")
    kubectl("create", "rolebinding", "reader", "--role=reader", "--user=quant")
    top = plugin.call("top", "--as", "quant")
    assert top.returncode == 0
    assert f"{plugin.namespace}/chatty" in top.stdout
    assert "the right to get pods and create pods/exec in namespace" in top.stderr
    assert "pods/exec" in plugin.refused("debug", "segment", "chatty", "--as", "quant")
    assert "pods/log" in plugin.refused("logs", "chatty", "--as", "quant")
    assert "may not" in plugin.refused("suspend", "chatty", "--as", "quant")


@pytest.mark.node
@pytest.mark.slow
def test_no_token_is_in_anything_that_is_printed(desk: Desk, plugin: Plugin) -> None:
    pod = desk.namespace.get("trader", "chatty")["status"]["pod"]
    secret = desk.namespace.get("secret", f"{pod.removesuffix('-0')}-worker-token")["data"]["token"]
    token = base64.b64decode(secret).decode()
    calls = (("top", "--json"), ("debug", "segment", "chatty", "--worker", "--json"))
    printed = "".join(done.stdout + done.stderr for done in (plugin.call(*arguments) for arguments in calls))
    assert len(printed) > 1_000
    assert token not in printed
    assert secret not in printed
