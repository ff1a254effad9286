"""The whole chain behind TLS and a login: it goes on when the password changes, and the password stands nowhere."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from tests.kafka_login.secured_broker import PASSWORD, USER, SecuredBroker
from tests.runtime.up_process import Up, teller, until

from chandlery.cli.runtime.procfs import pids_with_variable
from chandlery.cli.runtime.statedir import RUN_VARIABLE

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]


def _manifests(folder: Path, name: str, kafka: str) -> Path:
    folder.mkdir()
    (folder / "platform.yaml").write_text(
        f"""
apiVersion: chandlery.dev/v1alpha1
kind: MarketFeed
metadata: {{name: {name}}}
spec:
  source: {{synthetic: {{seed: 7, tradesPerSecond: 20}}}}
  history: {{candles: 100}}
  {kafka}
---
apiVersion: chandlery.dev/v1alpha1
kind: TraderPool
metadata: {{name: demo}}
spec: {{feed: {{name: {name}}}}}
"""
    )
    (folder / "one.yaml").write_text(teller("one"))
    return folder


def _signals(up: Up) -> int:
    row = up.trader("one")
    return row.signals if row is not None else 0


def _is_nowhere(up: Up, secret: str, secrets: Path) -> None:
    """Not in the state folder, nor in what processes were started with, nor in what the instance tells."""
    needle = secret.encode()
    for file in up.state.rglob("*"):
        if file.is_file() and not file.is_relative_to(secrets):
            assert needle not in file.read_bytes(), file
    pids = pids_with_variable(RUN_VARIABLE, f"{up._state.key}-")
    assert pids, "its processes run"
    for pid in pids:
        for name in ("cmdline", "environ"):
            assert needle not in Path("/proc", str(pid), name).read_bytes(), (pid, name)
    view = up.view()
    assert view is not None
    assert secret not in repr(view)
    assert secret not in up.said


def test_the_chain_goes_on_when_the_password_changes(secured: SecuredBroker, tmp_path: Path) -> None:
    user, before, after = f"chain-{os.getpid()}", f"before-{uuid.uuid4()}", f"after-{uuid.uuid4()}"
    jaas = 'org.apache.kafka.common.security.scram.ScramLoginModule required username="{}" password="{}";'

    def secret(password: str) -> None:
        secured.secret(user, {"password": password.encode(), "sasl.jaas.config": jaas.format(user, password).encode()})

    asyncio.run(secured.set_password(before, user=user))
    secret(before)
    address = secured.address("SASL_SSL")
    kafka = f'kafka: {{bootstrapServers: "{address}", partitions: 1, strimzi: {{cluster: my-cluster, user: {user}}}}}'
    manifests = _manifests(tmp_path / "m", user, kafka)
    with Up(tmp_path, manifests, "--secrets", str(secured.secrets), "--json", "--log-level", "debug") as up:
        up.running()
        until(lambda: _signals(up) >= 2, lambda: f"signals; it said:\n{up.said}")
        asyncio.run(secured.set_password(after, user=user))
        secured.restart()  # from here on nobody gets in by the old one
        feed_log = up.state / "logs" / "feed-demo-0.log"
        until(lambda: "KafkaUnauthorized" in feed_log.read_text(), lambda: f"refused; {feed_log.read_text()[-3000:]}")
        secret(after)
        seen = _signals(up)
        until(lambda: _signals(up) >= seen + 3, lambda: f"signals after it; it said:\n{up.said}")
        told = [sys.executable, "-m", "chandlery.cli", "signals", "--state", str(up.state), "--json", "-n", "1"]
        assert "default/one" in subprocess.run(told, check=True, capture_output=True, text=True, timeout=60).stdout
        _is_nowhere(up, before, secured.secrets)
        _is_nowhere(up, after, secured.secrets)
        up.process.send_signal(2)
        summary = up.summary()
        assert up.wait() == 0, up.said
    assert summary["reconciles"] is True, json.dumps(summary)
    trades, signals = summary["trades"], summary["signals"]
    assert trades["ingested"] == trades["received"] > 0
    assert signals["emitted"] == signals["published"] == signals["unique"] > 0


def test_a_clients_properties_are_the_way_into_a_kafka_of_ones_own(secured: SecuredBroker, tmp_path: Path) -> None:
    file = tmp_path / "client.properties"
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    file.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=PLAIN\n"
        f'sasl.jaas.config={module} required username="{USER}" password="{PASSWORD}";\n'
        f"ssl.truststore.type=PEM\nssl.truststore.location={secured.authority.certificate}\n"
    )
    manifests = _manifests(tmp_path / "m", f"own-{os.getpid()}", "")
    options = ("--kafka", secured.address("SASL_SSL"), "--kafka-config", str(file), "--json", "--log-level", "debug")
    with Up(tmp_path, manifests, *options) as up:
        up.running()
        until(lambda: _signals(up) >= 2, lambda: f"signals; it said:\n{up.said}")
        _is_nowhere(up, PASSWORD, file)
        up.process.send_signal(2)
        summary = up.summary()
        assert up.wait() == 0, up.said
    assert summary["reconciles"] is True, json.dumps(summary)


def test_a_login_that_is_refused_ends_the_start_with_one_line(secured: SecuredBroker, tmp_path: Path) -> None:
    secured.secret("mistyped", {"password": b"mistyped-password"})
    tls = "tls: {trustedCertificates: [{secretName: my-cluster-cluster-ca-cert}]}"
    login = f"authentication: {{type: scram-sha-512, username: {USER}, passwordSecret: {{secretName: mistyped}}}}"
    kafka = f'kafka: {{bootstrapServers: "{secured.address("SASL_SSL")}", {tls}, {login}}}'
    manifests = _manifests(tmp_path / "m", f"mistyped-{os.getpid()}", kafka)
    with Up(tmp_path, manifests, "--secrets", str(secured.secrets)) as up:
        assert up.wait() == 4, up.said
        assert "key password of Secret mistyped (spec.kafka.authentication.passwordSecret)" in up.said
        assert "mistyped-password" not in up.said
    with Up(tmp_path, manifests) as up:
        assert up.wait() == 4, up.said
        assert "--secrets DIR" in up.said
