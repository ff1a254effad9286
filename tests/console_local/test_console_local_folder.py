"""Traders as files: made, changed and taken away inside their folder, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chandlery.console.backend import ConflictError, NotFoundError, RefusedError
from chandlery.console.backends import local_folder
from chandlery.console.backends.local_folder import ManifestFolders
from chandlery.core.errors import InputError, UnavailableError
from chandlery.core.manifests import read_manifests


def manifest(name: str, namespace: str = "desk", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "chandlery.dev/v1alpha1",
        "kind": "Trader",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "pool": {"name": "demo"},
            "strategy": {"name": "sma-cross", "parameters": {"fast": 2}},
            "market": {"symbols": ["BTC/USDT"], "interval": "1s"},
            **spec,
        },
    }


TWO = """\
# of the desk
apiVersion: chandlery.dev/v1alpha1
kind: Trader
metadata: {name: one}
spec:
  pool: {name: demo}
  strategy: {name: sma-cross} # the usual
  market: {symbols: [BTC/USDT], interval: 1s}
---
apiVersion: chandlery.dev/v1alpha1
kind: Trader
metadata: {name: two}
spec:
  pool: {name: demo}
  strategy: {name: macd}
  market: {symbols: [BTC/USDT], interval: 1s}
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "m"
    home.mkdir()
    (home / "two.yaml").write_text(TWO)
    return home


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


def test_a_new_trader_is_a_file_that_reads_back_as_it_was_given(home: Path) -> None:
    folders = ManifestFolders([str(home)])
    made = folders.create(manifest("new", suspend=True))
    assert made.manifest == manifest("new", suspend=True)
    assert made.kept_by == str(home / "desk.new.trader.yaml")
    assert made == folders.manifest("desk", "new")
    assert names(home) == {"two.yaml", "desk.new.trader.yaml"}, "no temporary file is left"
    read = read_manifests(home)
    assert read.problems == []
    assert read.traders["desk", "new"].spec.suspend is True


def test_what_manifests_would_refuse_is_refused_before_anything_is_written(home: Path) -> None:
    folders = ManifestFolders([str(home)])
    with pytest.raises(InputError, match=r"spec.market.interval: "):
        folders.create(manifest("bad", market={"symbols": ["BTC/USDT"], "interval": "7 minutes"}))
    version = folders.manifest("default", "one").resource_version
    with pytest.raises(InputError, match=r"spec.pool"):
        folders.replace(manifest("one", "default", pool={"nome": "demo"}), version)
    assert names(home) == {"two.yaml"}
    assert (home / "two.yaml").read_text() == TWO


def test_a_name_that_is_taken_is_a_conflict_wherever_it_stands(home: Path, tmp_path: Path) -> None:
    single = tmp_path / "single.yaml"
    single.write_text(TWO.replace("name: one", "name: three").replace("name: two", "name: four"))
    folders = ManifestFolders([str(home), str(single)])
    for name in ("one", "four"):
        with pytest.raises(ConflictError, match="already"):
            folders.create(manifest(name, "default"))
    (home / "desk.new.trader.yaml").write_text("# somebody's notes\n")
    with pytest.raises(ConflictError, match="is there already"):
        folders.create(manifest("new"))
    assert (home / "desk.new.trader.yaml").read_text() == "# somebody's notes\n"
    assert not [name for name in names(home) if name.startswith(".")]


def test_an_edit_changes_its_document_alone(home: Path) -> None:
    folders = ManifestFolders([str(home)])
    before = folders.manifest("default", "one")
    changed = folders.replace(
        {**before.manifest, "metadata": {"name": "one", "namespace": "default"},
         "spec": {**before.manifest["spec"], "strategy": {"name": "macd"}}},
        before.resource_version,
    )  # fmt: skip
    assert (home / "two.yaml").read_text() == TWO.replace("sma-cross} # the usual", "macd} # the usual")
    assert changed.resource_version not in ("", before.resource_version)
    with pytest.raises(ConflictError, match="has changed since"):
        folders.replace(before.manifest, before.resource_version)
    assert folders.replace(before.manifest, "") == before


def test_suspending_writes_only_when_something_changes(home: Path) -> None:
    folders = ManifestFolders([str(home)])
    before = os.stat(home / "two.yaml")
    assert folders.suspend("default", "two", False).manifest == folders.manifest("default", "two").manifest
    assert os.stat(home / "two.yaml").st_ino == before.st_ino
    os.chmod(home / "two.yaml", 0o640)
    assert folders.suspend("default", "two", True).manifest["spec"]["suspend"] is True
    assert (home / "two.yaml").read_text() == TWO + "  suspend: true\n"
    assert os.stat(home / "two.yaml").st_mode & 0o777 == 0o640


def test_deleting_takes_the_document_and_with_the_last_one_the_file(home: Path) -> None:
    folders = ManifestFolders([str(home)])
    folders.delete("default", "two")
    assert (home / "two.yaml").read_text() == TWO[: TWO.index("---")]
    folders.create(manifest("new"))
    folders.delete("desk", "new")
    assert names(home) == {"two.yaml"}
    folders.delete("default", "one")
    assert (home / "two.yaml").read_text() == "# of the desk\n", "comments are somebody's"
    with pytest.raises(NotFoundError):
        folders.delete("default", "one")


def test_a_single_file_and_standard_input_are_only_read(tmp_path: Path) -> None:
    single = tmp_path / "single.yaml"
    single.write_text(TWO)
    folders = ManifestFolders([str(single), "-"])
    assert not folders.writable
    assert folders.manifest("default", "one").manifest["spec"]["pool"] == {"name": "demo"}
    attempts: list[Callable[[], object]] = [
        lambda: folders.create(manifest("new")),
        lambda: folders.replace(manifest("one", "default"), ""),
        lambda: folders.suspend("default", "one", True),
        lambda: folders.delete("default", "one"),
    ]
    for attempt in attempts:
        with pytest.raises(RefusedError, match="-f DIR"):
            attempt()
    assert single.read_text() == TWO
    assert names(tmp_path) == {"single.yaml"}


def test_nothing_is_written_through_a_link(home: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(TWO.replace("name: one", "name: three").replace("name: two", "name: four"))
    (home / "link.yaml").symlink_to(outside)
    (home / "desk.new.trader.yaml").symlink_to(tmp_path / "nowhere.yaml")
    folders = ManifestFolders([str(home)])
    assert folders.manifest("default", "three").kept_by == str(home / "link.yaml")
    for attempt in (lambda: folders.delete("default", "three"), lambda: folders.suspend("default", "three", True)):
        with pytest.raises(RefusedError, match="is a link"):
            attempt()
    with pytest.raises(ConflictError):
        folders.create(manifest("new"))
    assert outside.read_text().count("suspend") == 0
    assert not (tmp_path / "nowhere.yaml").exists()


@pytest.mark.parametrize("name", ["../outside", "a/b", ".hidden", "", "A", "a" * 64, "a\x00b"])
def test_names_that_are_none_never_become_paths(home: Path, tmp_path: Path, name: str) -> None:
    folders = ManifestFolders([str(home)])
    for one in (manifest(name), manifest("new", namespace=name or "/")):
        with pytest.raises(InputError):
            folders.create(one)
    assert names(home) == {"two.yaml"}
    assert names(tmp_path) == {"m"}


def test_whoever_writes_between_reading_and_renaming_wins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = ManifestFolders([str(home)])
    real = local_folder._unchanged

    def edited_first(folder: int, place: Any) -> None:
        (home / "two.yaml").write_text((home / "two.yaml").read_text() + "# by hand\n")
        real(folder, place)

    monkeypatch.setattr(local_folder, "_unchanged", edited_first)
    for attempt in (lambda: folders.suspend("default", "one", True), lambda: folders.delete("default", "two")):
        with pytest.raises(ConflictError, match="meanwhile"):
            attempt()
    assert (home / "two.yaml").read_text() == TWO + "# by hand\n" * 2
    assert names(home) == {"two.yaml"}


def test_an_item_of_a_list_is_left_to_hands(home: Path) -> None:
    (home / "list.yaml").write_text(
        "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: chandlery.dev/v1alpha1, kind: Trader, metadata: {name: l}, "
        "spec: {pool: {name: demo}, strategy: {name: macd}, market: {symbols: [BTC/USDT], interval: 1s}}}\n"
    )
    folders = ManifestFolders([str(home)])
    assert folders.manifest("default", "l").manifest["metadata"] == {"name": "l"}
    with pytest.raises(RefusedError, match="List"):
        folders.delete("default", "l")


def test_a_byte_order_mark_and_windows_line_ends_stay(home: Path) -> None:
    (home / "two.yaml").write_bytes(("\ufeff" + TWO.replace("\n", "\r\n")).encode())
    ManifestFolders([str(home)]).suspend("default", "one", True)
    data = (home / "two.yaml").read_bytes().decode()
    assert data.startswith("\ufeff# of the desk\r\n")
    assert "  suspend: true\r\n---\r\n" in data
    assert data.count("\n") == data.count("\r\n")


def test_files_that_cannot_be_read_hold_nobody_up(home: Path) -> None:
    os.mkfifo(home / "a-pipe.yaml")
    (home / "bytes.yaml").write_bytes(b"\xff\xfe")
    (home / "gone.yaml").symlink_to("nowhere")
    folders = ManifestFolders([str(home)])
    assert folders.suspend("default", "one", True).manifest["spec"]["suspend"] is True


def test_a_folder_that_is_gone_is_told_and_not_made_anew(home: Path, tmp_path: Path) -> None:
    folders = ManifestFolders([str(home)])
    home.rename(tmp_path / "moved")
    with pytest.raises(UnavailableError, match="can't be opened"):
        folders.create(manifest("new"))
    assert names(tmp_path) == {"moved"}


def test_a_full_disk_is_told_and_leaves_the_old_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnavailableError, match="No space left"):
        ManifestFolders([str(home)]).suspend("default", "one", True)
    assert (home / "two.yaml").read_text() == TWO
    assert names(home) == {"two.yaml"}


def test_what_would_read_back_as_something_else_is_not_written(home: Path) -> None:
    long = manifest("long")
    long["spec"]["strategy"]["parameters"] = {"fast": 10**20}
    with pytest.raises(InputError, match="reads back"):
        ManifestFolders([str(home)]).create(long)
    assert names(home) == {"two.yaml"}
    long["spec"]["strategy"]["parameters"] = {"fast": 10**15}
    assert ManifestFolders([str(home)]).create(long).manifest == long


def test_a_trader_that_stands_in_two_files_is_not_gone_with_one(home: Path) -> None:
    (home / "zwei.yaml").write_text(TWO)
    folders = ManifestFolders([str(home)])
    with pytest.raises(ConflictError, match=r"out of .*two\.yaml.* stands in .*zwei\.yaml too"):
        folders.delete("default", "one")
    folders.delete("default", "one")
    with pytest.raises(NotFoundError):
        folders.manifest("default", "one")


def test_a_name_written_with_escapes_is_that_name(home: Path) -> None:
    (home / "two.yaml").write_text(TWO.replace("name: one", 'name: "\\x6fne"'))
    folders = ManifestFolders([str(home)])
    assert folders.manifest("default", "one").manifest["metadata"]["name"] == "one"
    with pytest.raises(ConflictError, match="already"):
        folders.create(manifest("one", "default"))
