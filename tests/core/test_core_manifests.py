"""Manifests from files, folders and stdin: every mistake in one line that names file, place, resource and field."""

from __future__ import annotations

import io
import json
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chandlery.core.errors import ManifestError
from chandlery.core.manifests import ManifestSet, parse_manifests, read_manifests

TRADER = """\
apiVersion: chandlery.dev/v1alpha1
kind: Trader
metadata:
  name: {name}
spec:
  pool: {{name: p}}
  strategy: {{name: sma-cross}}
  market:
    symbols: [BTC/USDT]
    interval: 1m
"""


def trader(name: str = "a", **changes: str) -> str:
    text = TRADER.format(name=name)
    for old, new in changes.items():
        text = text.replace(old.replace("__", ": "), new)
    return text


def messages(manifests: ManifestSet) -> list[str]:
    return [str(problem) for problem in manifests.problems]


def only_message(text: str) -> str:
    found = messages(parse_manifests(text, file="t.yaml"))
    assert len(found) == 1, found
    return found[0]


def test_resources_are_known_by_namespace_and_name() -> None:
    text = "---\n".join(
        [
            trader("a"),
            trader("b")
            .replace("name: b", "name: b, namespace: x")
            .replace("metadata:\n  name: b, namespace: x", "metadata: {name: b, namespace: x}"),
        ]
    )
    manifests = parse_manifests(text)
    assert messages(manifests) == []
    assert set(manifests.traders) == {("default", "a"), ("x", "b")}
    manifests.raise_if_problems()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            trader().replace("interval: 1m", "interval: 1x"),
            "t.yaml (document 1, line 10) Trader/default/a: spec.market.interval: '1x' is no interval: ",
        ),
        (trader().replace("interval: 1m", "intervall: 1m\n    interval: 1m"), 't.yaml (document 1, line 10) Trader/default/a: spec.market.intervall: unknown field; did you mean "interval"?'),
        (trader() + "  interval: 1s\n", "spec.interval: unknown field here; it belongs to spec.market"),
        (trader() + "  colour: red\n", "spec.colour: unknown field; known here: pool, strategy, market"),
        (trader() + "  trades_per_worker: 3\n", "spec.trades_per_worker: unknown field"),
        (trader().replace("    interval: 1m\n", ""), "(document 1, line 8) Trader/default/a: spec.market.interval: is missing: Interval of the candles"),
        (trader() + "  trigger: candleclose\n", 'spec.trigger: must be CandleClose or EveryUpdate, got "candleclose"; did you mean "CandleClose"?'),
        (trader() + "  suspend: maybe\n", 'spec.suspend: needs true or false, got "maybe"'),
        (trader() + "  signals: {cooldown: 5}\n", "spec.signals.cooldown: needs a duration as text, such as 5s or 1m30s, got 5"),
        (trader() + "  resources: {memory: 256MB}\n", "spec.resources.memory: '256MB' is no amount of memory: units have no B; write 256Mi"),
        (trader().replace("[BTC/USDT]", "[BTC/USDT, 5]"), "spec.market.symbols[1]: needs a symbol as text, such as BTC/USDT, got 5"),
        (trader().replace("[BTC/USDT]", "BTC/USDT"), 'spec.market.symbols: needs a list, got "BTC/USDT"'),
        (trader().replace("[BTC/USDT]", "[]"), "spec.market.symbols: needs at least one entry, got a list of 0"),
        (trader().replace("{name: p}", "p"), 'spec.pool: needs an object with the fields name, namespace, got "p"'),
        (trader("5"), "metadata.name: needs text, got 5: put it in quotes"),
        (trader("Big_Name"), "metadata.name: \"Big_Name\" won't do: lower-case letters"),
        (trader().replace("kind: Trader", "kind: Treder"), 'kind: "Treder" is none of MarketFeed, TraderPool, Trader; did you mean "Trader"?'),
        (trader().replace("v1alpha1", "v1"), 'apiVersion: must be chandlery.dev/v1alpha1, got "chandlery.dev/v1"'),
        (trader().replace("apiVersion: chandlery.dev/v1alpha1\n", ""), "apiVersion: is missing: chandlery.dev/v1alpha1"),
        (trader().replace("kind: Trader\n", ""), "kind: is missing: one of MarketFeed, TraderPool, Trader"),
        ("- a\n- b\n", "a manifest is an object with apiVersion, kind, metadata and spec, got a list of 2"),
        (trader().replace("  name: a", "  name: a\n  name: b"), "'name' is given twice, first on line 4"),
        (trader() + "  bad: [1\n", "t.yaml (document 1, line 12) Trader/default/a: column 1: not YAML: "),
        (trader() + "  tier: [a]\n", "spec.tier: needs text, got a list of 1"),
        (trader() + "  market:\n    x: 1\n", "'market' is given twice"),
        (trader().replace("{name: sma-cross}", "{name: x, parameters: {a: {b: 1}}}"), "spec.strategy.parameters.a: needs a number, true, false or text, got an object"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_names_the_place(text: str, line: str) -> None:
    message = only_message(text)
    assert line in message
    assert "\n" not in message


def test_all_mistakes_come_at_once() -> None:
    text = trader("a", interval__1m="interval: 1x") + "---\n" + trader("b", interval__1m="interval: 2x") + "  tier: 5\n"
    manifests = parse_manifests(text, file="t.yaml")
    assert len(manifests.problems) == 3
    with pytest.raises(ManifestError) as caught:
        manifests.raise_if_problems()
    assert str(caught.value).splitlines() == messages(manifests)
    assert [problem.field for problem in manifests.problems_of("Trader", ("default", "b"))] == [
        "spec.market.interval",
        "spec.tier",
    ]


def test_a_name_given_twice_names_both_places(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# x\n" + trader("same"))
    (tmp_path / "b.yaml").write_text(trader("other") + "---\n" + trader("same"))
    manifests = read_manifests([tmp_path])
    (message,) = messages(manifests)
    assert f"{tmp_path}/b.yaml (document 2, line 15)" in message
    assert f"taken by {tmp_path}/a.yaml (document 1, line 2)" in message
    assert set(manifests.traders) == {("default", "same"), ("default", "other")}


def test_a_folder_gives_its_visible_manifests_in_order(tmp_path: Path) -> None:
    for name in ("b.yml", "a.yaml", ".hidden.yaml", "notes.txt"):
        (tmp_path / name).write_text(trader(name.strip(".").partition(".")[0]))
    (tmp_path / "c.json").write_text(
        '{\n\t"apiVersion": "chandlery.dev/v1alpha1", "kind": "Trader",\n\t"metadata": {"name": "c"},'
        '\n\t"spec": {"pool": {"name": "p"}, "strategy": {"name": "s"}, "market": {"symbols": ["A/B"], "interval": "1s"}}}'
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.yaml").write_text(trader("d"))
    manifests = read_manifests(tmp_path)
    assert messages(manifests) == []
    assert [name for _, name in manifests.traders] == ["a", "b", "c"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(trader())
    assert messages(read_manifests([tmp_path, file, str(file)])) == []


def test_stdin_is_read_where_a_dash_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(trader().encode())))
    assert set(read_manifests("-").traders) == {("default", "a")}


def test_a_pipe_is_read_like_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(trader(),), daemon=True)
    writer.start()
    assert set(read_manifests([pipe]).traders) == {("default", "a")}
    writer.join(10)


def test_files_that_can_not_be_read_are_named(tmp_path: Path) -> None:
    missing, binary, dangling = tmp_path / "no.yaml", tmp_path / "m" / "b.yaml", tmp_path / "m" / "c.yaml"
    binary.parent.mkdir()
    binary.write_bytes(b"a: 1\nb: \xff\n")
    dangling.symlink_to("nowhere")
    found = messages(read_manifests([missing, binary.parent]))
    assert f"{missing}: no such file or folder" in found
    assert f"{binary}: not UTF-8 text: byte 0xff on line 2" in found
    assert f"{dangling}: no such file or folder" in found


def test_an_empty_folder_and_an_empty_file_are_noticed_not_refused(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    file = tmp_path / "empty.yaml"
    file.write_text("# nothing yet\n")
    manifests = read_manifests([tmp_path / "m", file])
    assert messages(manifests) == []
    assert manifests.notices == [
        f"{tmp_path / 'm'}: no manifest in this folder (*.yaml, *.yml, *.json)",
        f"{file}: no document in it",
    ]


def test_kinds_of_others_are_left_out_with_a_notice() -> None:
    text = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\n" + trader()
    manifests = parse_manifests(text, file="t.yaml")
    assert messages(manifests) == []
    assert manifests.notices == ["t.yaml (document 1): Deployment/default/web is none of Chandlery's kinds, left out"]


def test_config_maps_keep_their_data_and_namespaces_their_labels() -> None:
    manifests = parse_manifests(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: code, namespace: x}\ndata:\n  s.py: |\n    a = 1\n---\n"
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: x, labels: {team: quant}}\n---\n"
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndata: {n: 5}\n"
    )
    assert manifests.configmaps["x", "code"] == {"s.py": "a = 1\n"}
    assert manifests.namespaces == {"x": {"team": "quant"}}
    assert ["data.n: needs text, got 5" in message for message in messages(manifests)] == [True]


def test_a_list_as_kubectl_prints_it_is_unpacked() -> None:
    items = "".join("- " + trader(name).replace("\n", "\n  ").rstrip() + "\n" for name in ("a", "b"))
    manifests = parse_manifests(
        "apiVersion: v1\nkind: List\nitems:\n" + items.replace("interval: 1m", "interval: 1x", 1), file="t.yaml"
    )
    assert set(manifests.traders) == {("default", "b")}
    (message,) = messages(manifests)
    assert message.startswith("t.yaml (document 1, line 13) Trader/default/a: spec.market.interval: ")


def test_files_that_a_feed_names_must_be_there_beside_the_manifest(tmp_path: Path) -> None:
    text = (
        "apiVersion: chandlery.dev/v1alpha1\nkind: MarketFeed\nmetadata: {name: f}\nspec:\n  source:\n    replay:\n"
        "      files:\n        - here.frames.gz\n        - gone.csv\n"
    )
    (tmp_path / "here.frames.gz").touch()
    (tmp_path / "f.yaml").write_text(text)
    (message,) = messages(read_manifests(tmp_path))
    assert 'line 9) MarketFeed/default/f: spec.source.replay.files[1]: "gone.csv" is no file in ' in message


def test_files_to_play_back_must_be_of_a_known_kind(tmp_path: Path) -> None:
    for name in ("a.frames", "b.arrow", "c.txt", "d.csv.zip"):
        (tmp_path / name).touch()
    feed = {
        "apiVersion": "chandlery.dev/v1alpha1",
        "kind": "MarketFeed",
        "metadata": {"name": "f"},
        "spec": {"source": {"replay": {"files": ["a.frames", "b.arrow", "c.txt", {"path": "d.csv.zip"}]}}},
    }
    (tmp_path / "f.json").write_text(json.dumps(feed))
    text, archive = messages(read_manifests(tmp_path))
    words = "replays are .frames, .frames.gz, .csv, .csv.gz, .parquet, .feather or .arrow"
    assert f'spec.source.replay.files[2]: "c.txt": {words}' in text
    assert f'spec.source.replay.files[3]: "d.csv.zip": {words}' in archive


def feed_with_history(*paths: str) -> str:
    files = [{"symbol": "BTC/USDT", "interval": "1m", "path": path} for path in paths]
    spec = {"source": {"synthetic": {}}, "history": {"files": files}}
    feed = {"apiVersion": "chandlery.dev/v1alpha1", "kind": "MarketFeed", "metadata": {"name": "f"}, "spec": spec}
    return json.dumps(feed)


def test_files_of_history_must_be_of_a_known_kind(tmp_path: Path) -> None:
    names = ("a.csv", "b.csv.gz", "c.parquet", "d.feather", "e.arrow", "f.frames.gz", "g.xlsx")
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / "f.json").write_text(feed_with_history(*names))
    frames, sheet = messages(read_manifests(tmp_path))
    words = "files of history are .csv, .csv.gz, .parquet, .feather or .arrow"
    assert frames.startswith(f"{tmp_path / 'f.json'} (document 1, line 1) MarketFeed/default/f: ")
    assert frames.endswith(f'spec.history.files[5].path: "f.frames.gz": {words}')
    assert sheet.endswith(f'spec.history.files[6].path: "g.xlsx": {words}')


def test_an_edit_to_a_file_that_cannot_be_history_keeps_the_feed_as_it_was(tmp_path: Path) -> None:
    for name in ("good.csv", "bad.xlsx"):
        (tmp_path / name).touch()
    before, edited = feed_with_history("good.csv"), feed_with_history("bad.xlsx")
    first, after = read_then(tmp_path, {"f.json": before, "t.yaml": trader("a")}, {"f.json": edited})
    assert after.feeds == first.feeds
    assert after.traders == first.traders
    assert [problem.identity for problem in after.problems] == [("MarketFeed", "default", "f")]


def test_a_digest_changes_with_content_and_with_nothing_else() -> None:
    plain = parse_manifests(trader()).digests["Trader", "default", "a"]
    moved = parse_manifests("# comment\n\n" + trader() + "  tier: standard\n").digests["Trader", "default", "a"]
    alias = parse_manifests(trader().replace("BTC/USDT", "BTCUSDT")).digests["Trader", "default", "a"]
    changed = parse_manifests(trader() + "  suspend: true\n").digests["Trader", "default", "a"]
    assert plain == moved == alias
    assert plain != changed


def read_then(folder: Path, before: dict[str, str], after: dict[str, str | None]) -> tuple[ManifestSet, ManifestSet]:
    for name, text in before.items():
        (folder / name).write_text(text)
    first = read_manifests([folder])
    assert messages(first) == []
    for name, later in after.items():
        if later is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(later)
    return first, read_manifests([folder]).carry_over(first)


def names(manifests: ManifestSet) -> set[str]:
    return {name for _, name in manifests.traders}


def test_a_bad_edit_keeps_what_was_and_leaves_the_others(tmp_path: Path) -> None:
    text = trader("a") + "---\n" + trader("b")
    first, after = read_then(tmp_path, {"t.yaml": text}, {"t.yaml": text.replace("interval: 1m", "interval: 1x", 1)})
    assert after.traders == first.traders
    assert after.digests == first.digests
    assert [problem.identity for problem in after.problems] == [("Trader", "default", "a")]


def test_a_half_written_file_loses_nothing_that_stood_in_it(tmp_path: Path) -> None:
    text = trader("a") + "---\n" + trader("b")
    cut = text[: text.index("name: b")]
    _, after = read_then(tmp_path, {"t.yaml": text, "u.yaml": trader("c")}, {"t.yaml": cut})
    assert names(after) == {"a", "b", "c"}
    assert after.problems


def test_a_misspelt_kind_loses_nothing_of_its_file(tmp_path: Path) -> None:
    text = trader("a") + "---\n" + trader("b")
    _, after = read_then(
        tmp_path, {"t.yaml": text, "u.yaml": trader("c")}, {"t.yaml": text.replace("kind: Trader", "kind: Tradr", 1)}
    )
    assert names(after) == {"a", "b", "c"}
    assert any("Tradr" in message for message in messages(after))


def test_what_is_plainly_gone_is_gone(tmp_path: Path) -> None:
    text = trader("a") + "---\n" + trader("b")
    _, after = read_then(tmp_path, {"t.yaml": text, "u.yaml": trader("c")}, {"t.yaml": trader("b"), "u.yaml": None})
    assert names(after) == {"b"}


def test_a_folder_that_is_gone_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "t.yaml").write_text(trader("a"))
    first = read_manifests([folder])
    (folder / "t.yaml").unlink()
    folder.rmdir()
    after = read_manifests([folder]).carry_over(first)
    assert names(after) == {"a"}
    assert messages(after) == [f"{folder}: no such file or folder"]


@given(st.data())
def test_any_cut_of_a_file_is_read_without_an_exception_and_loses_nothing(data: st.DataObject) -> None:
    text = trader("a") + "---\n" + trader("b") + "---\n" + trader("c")
    first = parse_manifests(text)
    cut = data.draw(st.integers(0, len(text)))
    half = parse_manifests(text[:cut])
    after = half.carry_over(first)
    assert names(after) >= {"a", "b", "c"} - _not_begun(text, cut)


def _not_begun(text: str, cut: int) -> set[str]:
    """Names of documents of which no content is left: a file that ends between documents is a sound file."""
    parts, begin, gone = text.split("---\n"), 0, set()
    for name, part in zip("abc", parts, strict=True):
        if cut <= begin:
            gone.add(name)
        begin += len(part) + len("---\n")
    return gone
