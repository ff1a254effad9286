"""Processes that follow their settings file, and the session that ingest goes on with."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import msgspec
import pytest

from chandlery.core import following
from chandlery.core.errors import InputError
from chandlery.core.following import stop_when_changed, until_changed
from chandlery.core.settings import IngestSettings, KafkaSettings, read_settings
from chandlery.stream.ingest.positions import in_session, write_positions

SETTINGS = IngestSettings(KafkaSettings("none:1", "f"), "synthetic", ["BTC/USDT"], ["1s"], "127.0.0.1:0")


def replace(path: Path, content: bytes) -> None:
    """As the kubelet does: another file takes the place."""
    draft = path.with_suffix(".new")
    draft.write_bytes(content)
    os.replace(draft, path)


async def test_only_other_settings_count_as_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: asyncio.Queue[bytes] = asyncio.Queue()

    def read_and_note(path: str, kind: type[IngestSettings]) -> IngestSettings:
        content = Path(path).read_bytes()
        try:
            return read_settings(path, kind)
        finally:
            read.put_nowait(content)

    monkeypatch.setattr(following, "read_settings", read_and_note)
    path = tmp_path / "ingest.json"
    replace(path, msgspec.json.encode(SETTINGS))
    watching = asyncio.create_task(until_changed(str(path), SETTINGS, 0.01))
    spelled_out = json.dumps(json.loads(msgspec.json.encode(SETTINGS)), indent=4)
    for content in (spelled_out.encode(), b"{half", msgspec.json.encode(SETTINGS)):
        replace(path, content)
        async with asyncio.timeout(30):
            while await read.get() != content:
                continue
        assert not watching.done()
    replace(path, msgspec.json.encode(msgspec.structs.replace(SETTINGS, symbols=["ETH/USDT"])))
    async with asyncio.timeout(30):
        await watching


async def test_settings_that_are_taken_in_need_no_other_beginning_and_those_that_are_not_do(tmp_path: Path) -> None:
    path = tmp_path / "ingest.json"
    replace(path, msgspec.json.encode(SETTINGS))
    told: asyncio.Queue[list[str]] = asyncio.Queue()
    stop = asyncio.Event()

    async def adopt(settings: IngestSettings) -> bool:
        told.put_nowait(settings.symbols)
        return "BTC/USDT" in settings.symbols

    watching = asyncio.create_task(stop_when_changed(str(path), SETTINGS, stop, adopt, 0.01))
    for symbols in (["BTC/USDT", "ETH/USDT"], ["BTC/USDT"], ["ETH/USDT"]):
        assert not stop.is_set()
        replace(path, msgspec.json.encode(msgspec.structs.replace(SETTINGS, symbols=symbols)))
        async with asyncio.timeout(30):
            assert await told.get() == symbols
    async with asyncio.timeout(30):
        await watching
    assert stop.is_set()


@pytest.mark.parametrize("fails", [False, True])
async def test_settings_that_cannot_be_taken_in_quickly_or_at_all_want_another_beginning_and_it_is_said(
    tmp_path: Path, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ingest.json"
    replace(path, msgspec.json.encode(SETTINGS))
    stop = asyncio.Event()

    async def adopt(settings: IngestSettings) -> bool:
        if fails:
            raise RuntimeError("no room for it")
        await asyncio.Event().wait()  # the broker is away
        return True

    watching = asyncio.create_task(stop_when_changed(str(path), SETTINGS, stop, adopt, 0.01, adopt_timeout_s=0.05))
    replace(path, msgspec.json.encode(msgspec.structs.replace(SETTINGS, symbols=["ETH/USDT"])))
    async with asyncio.timeout(20):
        await watching
    assert stop.is_set()
    assert ("no room for it" if fails else "can't be taken in quickly") in caplog.text


def test_a_session_of_ones_own_is_that_of_the_positions_or_else_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "position.json"
    asking = msgspec.structs.replace(SETTINGS, session=-1, position_file=str(path))
    fresh = in_session(asking).session
    assert fresh > 1_700_000_000_000
    write_positions(str(path), 1234, {})
    assert in_session(asking).session == 1234
    assert in_session(msgspec.structs.replace(asking, session=0)).session == 0, "an exchange has none"
    path.write_text("{half")
    with pytest.raises(InputError, match="remove it"):
        in_session(asking)
