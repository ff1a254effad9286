"""The console's own process reads signals from behind TLS and a login, as its pod enters Kafka: by files of Secrets."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import yaml
from tests.console_cluster.api_server import ApiServer, an_object, serving
from tests.console_reading.reading_setup import signal_writer
from tests.kafka_login.secured_broker import PASSWORD, USER, SecuredBroker
from tests.support.free_ports import free_ports
from tests.workers_feed.feed_setup import until

from chandlery.console.settings import ClusterSettings, ConsoleSettings
from chandlery.core.settings import KafkaSettings
from chandlery.stream.topics import ensure_topics

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(400)]

#: The very process of the pod; only the folder in which Secrets are mounted is another.
_PROGRAM = (
    "import runpy, sys; import chandlery.core.feed_kafka as mounts; mounts.SECRETS_FOLDER = sys.argv.pop(1); "
    "runpy.run_module('chandlery.console', run_name='__main__', alter_sys=True)"
)


class Console:
    """One console: its answers, and what it has logged."""

    def __init__(self, address: str, log: Path) -> None:
        self.address, self.log = address, log

    async def ask(self, path: str) -> Any:
        """The answer to a GET; None: it isn't up yet."""
        try:
            async with aiohttp.ClientSession() as session, session.get(f"{self.address}/api/v1/{path}") as answer:
                assert answer.status == 200, await answer.text()
                return await answer.json()
        except aiohttp.ClientConnectionError:
            return None

    async def prices(self, feed: str) -> list[str]:
        """Of the feed's signals that it has read, oldest first."""
        page = await self.ask(f"signals?feed={feed}")
        return [one["price"] for one in reversed(page["items"])] if page else []

    async def lacks(self) -> str:
        """What it can't ask, or wasn't given."""
        overview = await self.ask("overview")
        return "\n".join([*overview["attention"], *overview["away"]]) if overview else ""


@asynccontextmanager
async def console(
    folder: Path, mounts: Path, server: ApiServer, kafka: dict[str, KafkaSettings]
) -> AsyncIterator[Console]:
    """The process, with its API server behind it; ended in order."""
    folder.mkdir()
    address, config, log = f"127.0.0.1:{free_ports(1)}", folder / "console.json", folder / "log"
    async with serving(server) as credentials:
        here = {"cluster": "here", "user": "me"}
        file = folder / "kubeconfig"
        kubeconfig = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": here}],
            "clusters": [{"name": "here", "cluster": {"server": credentials.server}}],
            "users": [{"name": "me", "user": {"token": "t"}}],
        }
        file.write_text(yaml.safe_dump(kubeconfig))
        behind = ClusterSettings(kubeconfig=str(file), kafka=kafka)
        settings = ConsoleSettings(listen=address, backend="cluster", cluster=behind, log_level="debug")
        config.write_bytes(msgspec.json.encode(settings))
        command = [sys.executable, "-c", _PROGRAM, str(mounts), "--config", str(config)]
        with log.open("wb") as file_of_log:
            process = await asyncio.create_subprocess_exec(*command, stdout=file_of_log, stderr=file_of_log)
        try:
            yield Console(f"http://{address}", log)
            process.terminate()
            assert await process.wait() == 0, log.read_text()[-3000:]
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


def a_feed(name: str, kafka: dict[str, Any], namespace: str = "desk") -> dict[str, Any]:
    spec = {"source": {"synthetic": {"seed": 1}}, "symbols": "auto", "kafka": {**kafka, "partitions": 1}}
    return an_object("MarketFeed", name, spec, namespace=namespace)


async def test_the_consoles_process_reads_signals_by_password_and_by_certificate_and_needs_no_restart_for_a_secret(
    secured: SecuredBroker, feed: str, tmp_path: Path
) -> None:
    by_password, by_certificate = f"{feed}-password", f"{feed}-certificate"
    mounts = tmp_path / "mounts"
    secured.certificate_secret("console-user", secured.clients.issue("console-user"))
    # As `console.kafkaSecrets` mounts them: NAMESPACE/SECRET/KEY. The password's Secret isn't there yet: an empty folder.
    (mounts / "desk" / USER).mkdir(parents=True)
    for name in ("my-cluster-cluster-ca-cert", "console-user"):
        (mounts / "desk" / name).symlink_to(secured.secrets / name)
    server = ApiServer()
    strimzi = {"bootstrapServers": secured.address("SASL_SSL"), "strimzi": {"cluster": "my-cluster", "user": USER}}
    server.put("marketfeeds", a_feed(by_password, strimzi))
    # The same Secrets, named by a feed of a namespace for which nobody gave them.
    server.put("marketfeeds", a_feed("stranger", strimzi, namespace="evil"))
    pair = {"secretName": "console-user", "certificate": "user.crt", "key": "user.key"}
    certified = {
        "bootstrapServers": secured.address("SSL"),
        "tls": {"trustedCertificates": [{"secretName": "my-cluster-cluster-ca-cert", "certificate": "ca.crt"}]},
        "authentication": {"type": "tls", "certificateAndKey": pair},
    }
    server.put("marketfeeds", a_feed(by_certificate, certified))
    # `console.kafka` of the chart: what a feed's MarketFeed says doesn't count.
    server.put("marketfeeds", a_feed(f"{feed}-own", {"bootstrapServers": "nowhere.invalid:9093"}))
    own = secured.scram(f"desk.{feed}-own")
    topics = [f"desk.{name}" for name in (by_password, by_certificate, f"{feed}-own")]
    for number, topic in enumerate(topics):
        plain = KafkaSettings(secured.broker.bootstrap, topic, partitions=1)
        await ensure_topics(plain)
        async with signal_writer(plain) as writer:
            await writer.numbers(10 * number, 3)
    async with console(tmp_path / "console", mounts, server, {f"desk/{feed}-own": own}) as made:
        await until_late("signals by certificate", lambda: _are(made, f"desk/{by_certificate}", ["10", "11", "12"]))
        await until_late(
            "signals by the console's own settings", lambda: _are(made, f"desk/{feed}-own", ["20", "21", "22"])
        )
        assert await made.prices(f"desk/{by_password}") == []
        await until_late("what it lacks", lambda: _lacks(made, f"desk/{USER}"))
        lacking = await made.lacks()
        assert f"evil/{USER}" in lacking, "and the other namespace's feed gets none of the desk's"
        for key in ("password", "sasl.jaas.config"):
            (mounts / "desk" / USER / key).write_bytes((secured.secrets / USER / key).read_bytes())
        await until_late("signals by password", lambda: _are(made, f"desk/{by_password}", ["0", "1", "2"]))
        plain = KafkaSettings(secured.broker.bootstrap, topics[0], partitions=1)
        async with signal_writer(plain) as writer:
            await writer.numbers(3, 1)
        await until_late("what comes", lambda: _are(made, f"desk/{by_password}", ["0", "1", "2", "3"]))
        assert await made.prices("evil/stranger") == []
        said = json.dumps([await made.ask(path) for path in ("overview", "feeds", "config")])
    assert PASSWORD not in said
    assert PASSWORD not in made.log.read_text()


async def until_late(what: str, condition: Callable[[], Awaitable[bool]]) -> None:
    """Another process starts first, imports and all: on a busy machine that takes half a minute."""
    await until(what, condition, 120.0)


async def _are(made: Console, feed: str, prices: list[str]) -> bool:
    return await made.prices(feed) == prices


async def _lacks(made: Console, what: str) -> bool:
    return what in await made.lacks()
