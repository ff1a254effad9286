"""Manifest folders over time: deletions told apart from accidents."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chandlery.cli.runtime import watch
from chandlery.cli.runtime.folder import GRACE_S, Folder, Snapshot, scan
from chandlery.cli.runtime.watch import changes

ROOT = "traders"


def disk(*names: str, version: bytes = b"1") -> Snapshot:
    return Snapshot({f"{ROOT}/{name}": version for name in names})


def gone() -> Snapshot:
    return Snapshot({}, frozenset({ROOT}))


def folder_with(*names: str) -> Folder:
    folder = Folder((ROOT,))
    folder.advance(disk(*names), 0.0)
    return folder


def test_new_changed_and_unchanged_files_are_told_apart() -> None:
    folder = Folder((ROOT,))
    assert folder.advance(disk("a.yaml"), 0.0)
    assert not folder.advance(disk("a.yaml"), 1.0)
    assert folder.advance(disk("a.yaml", version=b"2"), 2.0)
    assert folder.notices == []


def test_a_deleted_file_counts_until_its_grace_has_passed() -> None:
    folder = folder_with("a.yaml", "b.yaml")
    assert not folder.advance(disk("a.yaml"), 10.0)
    assert folder.unsettled
    assert folder.kept == {f"{ROOT}/b.yaml"}
    assert folder.advance(disk("a.yaml"), 10.0 + GRACE_S)
    assert set(folder.files) == {f"{ROOT}/a.yaml"}


def test_a_file_deleted_and_written_anew_within_the_grace_never_left() -> None:
    folder = folder_with("a.yaml", "b.yaml")
    folder.advance(disk("a.yaml"), 10.0)
    assert not folder.advance(disk("a.yaml", "b.yaml"), 10.0 + GRACE_S / 2)
    assert not folder.unsettled
    folder.advance(disk("a.yaml"), 20.0)
    assert len(folder.files) == 2, "the second deletion has a grace of its own"


def test_a_missing_folder_keeps_everything_and_says_so() -> None:
    folder = folder_with("a.yaml", "b.yaml")
    for now_s in (1.0, 100.0):
        assert not folder.advance(gone(), now_s)
        assert "is missing" in folder.notices[0]
    assert len(folder.files) == 2


def test_a_folder_emptied_at_once_keeps_everything_until_files_return() -> None:
    folder = folder_with("a.yaml", "b.yaml")
    for now_s in (1.0, 100.0):
        assert not folder.advance(disk(), now_s)
        assert "emptied at once" in folder.notices[0]
    folder.advance(disk("a.yaml"), 200.0)
    folder.advance(disk("a.yaml"), 200.0 + GRACE_S)
    assert set(folder.files) == {f"{ROOT}/a.yaml"}
    assert folder.notices == []


def test_the_last_file_can_be_deleted() -> None:
    folder = folder_with("a.yaml")
    folder.advance(disk(), 1.0)
    assert folder.advance(disk(), 1.0 + GRACE_S)
    assert folder.files == {}


def test_a_folder_that_comes_back_empty_keeps_everything() -> None:
    folder = folder_with("a.yaml")
    folder.advance(gone(), 1.0)
    for now_s in (2.0, 100.0):
        folder.advance(disk(), now_s)
    assert set(folder.files) == {f"{ROOT}/a.yaml"}
    assert "emptied at once" in folder.notices[0]


def test_one_folders_accident_leaves_the_others_alone() -> None:
    folder = Folder((ROOT, "more"))
    folder.advance(Snapshot({f"{ROOT}/a.yaml": b"1", "more/b.yaml": b"1"}), 0.0)
    missing = Snapshot({"more/b.yaml": b"2"}, frozenset({ROOT}))
    assert folder.advance(missing, 1.0)
    assert folder.files == {f"{ROOT}/a.yaml": b"1", "more/b.yaml": b"2"}


@given(st.lists(st.one_of(st.just(None), st.sets(st.sampled_from(["a.yaml", "b.yaml", "c.yaml"]))), max_size=20))
def test_what_lies_on_disk_always_counts_and_nothing_is_invented(looks: list[set[str] | None]) -> None:
    folder = Folder((ROOT,))
    seen: set[str] = set()
    for second, names in enumerate(looks):
        folder.advance(gone() if names is None else disk(*names), float(second))
        present = {f"{ROOT}/{name}" for name in names or ()}
        seen |= present
        assert present <= set(folder.files) <= seen
        assert folder.kept == set(folder.files) - present


def test_scan_reads_manifests_only_and_names_missing_roots(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yml", "c.json", "notes.txt", ".hidden.yaml"):
        (tmp_path / name).write_text("x")
    snapshot = scan([str(tmp_path), str(tmp_path / "nowhere"), str(tmp_path / "notes.txt")])
    assert {Path(name).name for name in snapshot.files} == {"a.yaml", "b.yml", "c.json", "notes.txt"}
    assert snapshot.missing == {str(tmp_path / "nowhere")}


async def test_changes_are_seen_also_in_a_folder_made_anew(tmp_path: Path) -> None:
    root = tmp_path / "traders"
    root.mkdir()
    (root / "a.yaml").write_text("1")
    folder = Folder((str(root),))
    watching = changes(folder)

    async def next_files() -> set[str]:
        await asyncio.wait_for(anext(watching), 20)
        return {Path(name).name for name in folder.files}

    assert await next_files() == {"a.yaml"}
    (root / "b.yaml").write_text("1")
    assert await next_files() == {"a.yaml", "b.yaml"}
    root.rename(tmp_path / "moved")
    assert await next_files() == {"a.yaml", "b.yaml"}
    assert "is missing" in folder.notices[0]
    root.mkdir()
    (root / "c.yaml").write_text("1")
    while await next_files() != {"c.yaml"}:
        pass
    await watching.aclose()


@pytest.mark.parametrize("edit", ["in place", "by rename"])
async def test_a_single_file_is_watched_through_edits(tmp_path: Path, edit: str) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("1")
    folder = Folder((str(path),))
    watching = changes(folder)
    await asyncio.wait_for(anext(watching), 20)
    before = dict(folder.files)
    if edit == "in place":
        path.write_text("2")
    else:
        (tmp_path / "new").write_text("2")
        (tmp_path / "new").replace(path)
    await asyncio.wait_for(anext(watching), 20)
    assert folder.files.keys() == before.keys()
    assert folder.files != before
    await watching.aclose()


async def test_who_follows_a_folder_ends_also_while_its_listening_is_ending(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation in that moment would otherwise be taken for the listening's own, and following go on for ever."""
    ending, gone = asyncio.Event(), asyncio.Event()

    async def listen(folders: set[str], dirty: asyncio.Event) -> None:
        dirty.set()
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await gone.wait()

    monkeypatch.setattr(watch, "_listen", listen)
    root = tmp_path / "traders"
    root.mkdir()
    (root / "a.yaml").write_text("1")

    async def follow() -> None:
        async for _ in changes(Folder((str(root),))):
            root.rename(tmp_path / "moved")  # another folder to listen to: the old listening ends

    following = asyncio.create_task(follow())
    await asyncio.wait_for(ending.wait(), 20)
    following.cancel()
    asyncio.get_running_loop().call_soon(gone.set)
    done, _ = await asyncio.wait([following], timeout=20)
    assert done
    assert following.cancelled()


async def test_where_the_kernel_tells_no_changes_they_are_seen_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def listen(folders: set[str], dirty: asyncio.Event) -> None:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watch, "_listen", listen)
    monkeypatch.setattr(watch, "LOOK_S", 0.01)
    folder = Folder((str(tmp_path),))
    (tmp_path / "a.yaml").write_text("1")
    watching = changes(folder)
    await asyncio.wait_for(anext(watching), 20)
    (tmp_path / "b.yaml").write_text("1")
    await asyncio.wait_for(anext(watching), 20)
    assert {Path(name).name for name in folder.files} == {"a.yaml", "b.yaml"}
    await watching.aclose()
    told = [record for record in caplog.records if "watch limit" in str(getattr(record, "problem", ""))]
    assert len(told) == 1, "said once, not at each look"
