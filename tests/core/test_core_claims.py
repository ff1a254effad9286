"""Names that several documents give: who has one keeps it, whatever the others' files are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from chandlery.core.manifests import ManifestSet, Standing, parse_manifests, read_manifests

KEEP = """\
apiVersion: chandlery.dev/v1alpha1
kind: Trader
metadata: {name: keep}
spec:
  pool: {name: p}
  strategy: {name: sma-cross, parameters: {fast: 2, slow: 5}}
  market: {symbols: [BTC/USDT], interval: 1m}
"""
FEED = """\
apiVersion: chandlery.dev/v1alpha1
kind: MarketFeed
metadata: {name: keep}
spec: {source: {synthetic: {seed: 1}}}
"""
POOL = """\
apiVersion: chandlery.dev/v1alpha1
kind: TraderPool
metadata: {name: keep}
spec: {feed: {name: keep}}
"""
CONFIG_MAP = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: keep}
data: {text: one}
"""
INTRUDER = KEEP.replace("fast: 2, slow: 5", "fast: 9, slow: 77")


def began(folder: Path, text: str = KEEP) -> ManifestSet:
    (folder / "keep.yaml").write_text(text)
    first = read_manifests([folder])
    assert first.problems == []
    return first


def again(folder: Path, before: ManifestSet, *absent: Path) -> ManifestSet:
    return read_manifests([folder], Standing(before.origins, {str(file) for file in absent})).carry_over(before)


def told(manifests: ManifestSet) -> list[str]:
    return [str(problem) for problem in manifests.problems]


@pytest.mark.parametrize(
    ("text", "intruder"),
    [
        (KEEP, INTRUDER),
        (FEED, FEED.replace("seed: 1", "seed: 2")),
        (POOL, POOL.replace("{feed: {name: keep}}", "{feed: {name: other}}")),
        (CONFIG_MAP, CONFIG_MAP.replace("one", "two")),
    ],
    ids=["Trader", "MarketFeed", "TraderPool", "ConfigMap"],
)
def test_a_newcomer_does_not_take_a_running_resources_name_though_its_file_sorts_before(
    tmp_path: Path, text: str, intruder: str
) -> None:
    first = began(tmp_path, text)
    (tmp_path / "a0.yaml").write_text(intruder)
    after = first
    for _ in range(2):
        after = again(tmp_path, after)
        assert after.digests == first.digests
        (message,) = told(after)
        assert message.startswith(f"{tmp_path}/a0.yaml (document 1, line 3) ")
        assert f"metadata.name: this name is taken by {tmp_path}/keep.yaml (document 1, line 1)" in message


def test_the_one_that_has_the_name_may_be_edited_beside_a_newcomer(tmp_path: Path) -> None:
    first = began(tmp_path)
    (tmp_path / "a0.yaml").write_text(INTRUDER)
    (tmp_path / "keep.yaml").write_text(KEEP.replace("slow: 5", "slow: 6"))
    after = again(tmp_path, first)
    assert after.traders["default", "keep"].spec.strategy.parameters == {"fast": 2, "slow": 6}


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace("interval: 1m", "interval: 1x"),
        lambda text: text[: text.index("kind")],
        lambda text: text.replace("kind: Trader", "kind: Tradr"),
        lambda text: text[: text.index("market") + 12],
        lambda text: "",
    ],
    ids=["bad field", "no kind", "misspelt kind", "half written", "empty"],
)
def test_the_one_that_has_the_name_keeps_it_while_its_file_can_not_be_read(tmp_path: Path, damage: object) -> None:
    first = began(tmp_path)
    (tmp_path / "a0.yaml").write_text(INTRUDER)
    (tmp_path / "keep.yaml").write_text(damage(KEEP))  # type: ignore[operator]
    after = again(tmp_path, again(tmp_path, first))
    assert after.traders == first.traders
    assert any("a0.yaml" in message and "taken by" in message for message in told(after))
    (tmp_path / "keep.yaml").write_text(KEEP)
    assert again(tmp_path, after).digests == first.digests


def test_the_one_that_has_the_name_keeps_it_while_its_file_is_gone_for_a_moment(tmp_path: Path) -> None:
    """Editors and git delete a file and write it anew."""
    first = began(tmp_path)
    (tmp_path / "a0.yaml").write_text(INTRUDER)
    (tmp_path / "keep.yaml").unlink()
    assert again(tmp_path, first, tmp_path / "keep.yaml").traders == first.traders
    assert again(tmp_path, first).traders["default", "keep"].spec.strategy.parameters == {"fast": 9, "slow": 77}


def test_what_is_moved_to_another_file_stands_there_at_once(tmp_path: Path) -> None:
    first = began(tmp_path)
    (tmp_path / "keep.yaml").rename(tmp_path / "moved.yaml")
    after = again(tmp_path, first, tmp_path / "keep.yaml")
    assert told(after) == []
    assert after.origins["Trader", "default", "keep"].file == str(tmp_path / "moved.yaml")


@pytest.mark.parametrize("text", [INTRUDER + "---\n" + KEEP, KEEP + "---\n" + INTRUDER], ids=["before", "after"])
def test_of_two_in_one_file_the_one_that_was_there_keeps_the_name(tmp_path: Path, text: str) -> None:
    first = began(tmp_path)
    (tmp_path / "keep.yaml").write_text(text)
    after = again(tmp_path, first)
    assert after.digests == first.digests
    assert len(told(after)) == 1


def test_a_name_given_twice_is_told_beside_whatever_else_is_wrong_in_a_document() -> None:
    found = parse_manifests(KEEP.replace("interval: 1m", "interval: 1x") + "---\n" + INTRUDER + "  tier: 5\n", file="t")
    assert [(problem.document, problem.field) for problem in found.problems] == [
        (1, "spec.market.interval"),
        (2, "metadata.name"),
        (2, "spec.tier"),
    ]
    assert found.traders == {}


@pytest.mark.parametrize("text", [KEEP, FEED, POOL, CONFIG_MAP])
def test_a_namespace_that_is_left_empty_is_the_default_one_and_takes_nothing_away(tmp_path: Path, text: str) -> None:
    before = began(tmp_path, text)
    (tmp_path / "keep.yaml").write_text(text.replace("{name: keep}", "{name: keep, namespace: }", 1))
    now = again(tmp_path, before)
    assert (told(now), [*now.origins]) == ([], [*before.origins])
