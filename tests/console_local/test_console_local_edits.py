"""Changing one document of a file: it says what was asked for, and every other byte stays."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from chandlery.console.backends.document_edit import dumped, find_trader, removed, replaced, says_nothing
from chandlery.core.documents import parts_of, read_documents

FILE = """\
# The desk's traders. Ask Ada before you change them.
apiVersion: chandlery.dev/v1alpha1
kind: Trader
metadata: {name: one}
spec:
  pool: {name: demo} # the small one
  strategy:
    name: sma-cross
    parameters:
      fast: 4 # tried 3: too nervous
      slow: 12
  market:
    symbols: [BTC/USDT, ETH/USDT]
    interval: 1s # as quick as it goes
---
# The second.
apiVersion: chandlery.dev/v1alpha1
kind: Trader
metadata:
  name: two
  namespace: desk
spec: {pool: {name: demo}, strategy: {name: macd}, market: {symbols: [BTC/USDT], interval: 1s}}
# after the second
---
kind: ConfigMap # not ours
apiVersion: v1
metadata: {name: code}
data:
  strategy.py: |
    # no comment of YAML
    def f(): ...
"""


def change(text: str, namespace: str, name: str, wanted: dict[str, Any], *, is_json: bool = False) -> str:
    found = find_trader(text, namespace, name, is_json=is_json)
    assert found is not None
    return replaced(text, found, wanted, is_json=is_json)


def value_of(text: str, namespace: str, name: str, *, is_json: bool = False) -> dict[str, Any]:
    found = find_trader(text, namespace, name, is_json=is_json)
    assert found is not None
    return copy.deepcopy(found.value)


def test_a_trader_that_is_suspended_gets_one_line_and_keeps_every_comment() -> None:
    wanted = value_of(FILE, "default", "one")
    wanted["spec"]["suspend"] = True
    new = change(FILE, "default", "one", wanted)
    assert new == FILE.replace("# as quick as it goes\n", "# as quick as it goes\n  suspend: true\n")
    back = value_of(new, "default", "one")
    back["spec"]["suspend"] = False
    assert change(new, "default", "one", back) == new.replace("suspend: true", "suspend: false")


def test_changed_values_are_exchanged_where_they_stand() -> None:
    wanted = value_of(FILE, "default", "one")
    wanted["spec"]["strategy"]["parameters"] = {"fast": 5, "slow": 12.5}
    wanted["spec"]["market"]["symbols"] = ["SOL/USDT", "BTC/USDT:USDT"]
    new = change(FILE, "default", "one", wanted)
    expected = FILE.replace("fast: 4 #", "fast: 5 #").replace("slow: 12", "slow: 12.5")
    assert new == expected.replace("[BTC/USDT, ETH/USDT]", '[SOL/USDT, "BTC/USDT:USDT"]')


def test_fields_come_and_go_as_lines() -> None:
    wanted = value_of(FILE, "default", "one")
    wanted["spec"]["strategy"]["parameters"] = {"fast": 4, "window": "5m"}
    wanted["spec"]["signals"] = {"ttl": "5s"}
    new = change(FILE, "default", "one", wanted)
    assert new == FILE.replace("      slow: 12\n", "      window: 5m\n").replace(
        "# as quick as it goes\n", "# as quick as it goes\n  signals:\n    ttl: 5s\n"
    )


def test_items_of_a_list_come_and_go_as_lines() -> None:
    text = """\
kind: Trader
metadata: {name: a}
spec:
  market:
    informative:
      # the day
      - symbol: BTC/USDT # the leader
        interval: 1d
      - interval: 1h # each its own
      # the last
      - interval: 5m
    interval: 1m
"""
    wanted = value_of(text, "default", "a")
    day, hour, five = wanted["spec"]["market"]["informative"]
    wanted["spec"]["market"]["informative"] = [day, {"symbol": "ETH/USDT", "interval": "4h"}, five, {"interval": "1m"}]
    new = change(text, "default", "a", wanted)
    assert "# the leader\n        interval: 1d\n      - interval: 4h # each its own\n        symbol: ETH/USDT\n" in new
    assert "# the last\n      - interval: 5m\n      - interval: 1m\n    interval: 1m\n" in new
    wanted["spec"]["market"]["informative"] = [five, hour, day]
    again = change(new, "default", "a", wanted)
    assert value_of(again, "default", "a") == wanted
    wanted["spec"]["market"]["informative"] = [hour]
    assert change(text, "default", "a", wanted) == text.replace(
        "      - symbol: BTC/USDT # the leader\n        interval: 1d\n", ""
    ).replace("      - interval: 5m\n", "")


def test_a_document_in_brackets_is_changed_in_place_too() -> None:
    wanted = value_of(FILE, "desk", "two")
    wanted["spec"]["suspend"] = True
    new = change(FILE, "desk", "two", wanted)
    assert value_of(new, "desk", "two") == wanted
    assert "# The second.\n" in new
    assert "# after the second\n" in new
    assert "metadata:\n  name: two\n  namespace: desk\n" in new


def test_what_has_to_be_written_anew_keeps_the_comments_around_it() -> None:
    text = "# head\nkind: Trader\nmetadata: {name: a}\nspec:\n  list:\n  - 1 # inside\n# foot\n---\nkind: Other\n"
    wanted = {"kind": "Trader", "metadata": {"name": "a"}, "spec": {"list": []}}
    new = change(text, "default", "a", wanted)
    assert new.startswith("# head\nkind: Trader\n")
    assert new.endswith("# foot\n---\nkind: Other\n")
    assert "inside" not in new
    assert value_of(new, "default", "a") == wanted


def test_a_document_with_a_mistake_can_be_mended() -> None:
    text = FILE.replace("      slow: 12\n", "      slow: [12\n")
    found = find_trader(text, "default", "one", is_json=False)
    assert found is not None
    assert found.document.mistakes
    wanted = value_of(FILE, "default", "one")
    new = replaced(text, found, wanted, is_json=False)
    assert value_of(new, "default", "one") == wanted
    assert new.startswith("# The desk's traders")
    assert new.endswith(FILE[FILE.index("---\n# The second") :])


def test_a_trader_is_taken_out_alone() -> None:
    found = find_trader(FILE, "default", "one", is_json=False)
    assert found is not None
    assert removed(FILE, found, is_json=False) == FILE[: FILE.index("apiVersion")] + FILE[FILE.index("---") :]
    found = find_trader(FILE, "desk", "two", is_json=False)
    assert found is not None
    begin, end = FILE.index("---\n# The second"), FILE.index("# after")
    assert removed(FILE, found, is_json=False) == FILE[:begin] + FILE[end:]
    alone = "kind: Trader\nmetadata: {name: a}\n"
    found = find_trader(alone, "default", "a", is_json=False)
    assert found is not None
    assert says_nothing(removed(alone, found, is_json=False))


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_a_json_file_stays_json(indent: int | str | None) -> None:
    manifest = {"kind": "Trader", "metadata": {"name": "a"}, "spec": {"note": 'quote " and 😀', "fast": 1}}
    text = json.dumps(manifest, indent=indent)
    for spec in ({"note": "x", "fast": 2}, {"note": 'quote " and 😀', "fast": 1, "suspend": True}):
        wanted = {**manifest, "spec": spec}
        assert json.loads(change(text, "default", "a", wanted, is_json=True)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "defaults: &d {fast: 1}\nkind: Trader\nmetadata: {name: a}\nspec: *d\n",
        "kind: Trader\nmetadata: {name: a}\nspec:\n  <<: {fast: 1}\n  slow: 2\n",
        "kind: Trader\nmetadata: {name: a}\nspec:\n  code: |\n    # text\n    more\n",
        "kind: Trader\nmetadata: {name: a}\nspec:\n",
        "--- {kind: Trader, metadata: {name: a}, spec: {}} # all in a line\n",
        "kind: Trader\nmetadata: {name: a}\nspec: {}",
        "kind: Trader\r\nmetadata: {name: a}\r\nspec:\r\n  fast: 1\r\n",
    ],
)
def test_unusual_documents_end_up_saying_what_was_asked_for(text: str) -> None:
    wanted = value_of(text, "default", "a")
    wanted["spec"] = {**(wanted["spec"] or {}), "suspend": True}
    new = change(text, "default", "a", wanted)
    assert value_of(new, "default", "a") == wanted
    assert ("\r\n" in text) == ("\r\n" in new)
    assert new.count("\n") == new.count("\r\n") or "\r\n" not in text
    assert "# text" in new or "# text" not in text


words = st.one_of(
    st.sampled_from(
        ["yes", "no", "null", "1e3", "0x1F", "12:30", "1m", "5", "", " ", "# no", "a: b", "---", "- x", "~", "é😀"]
    ),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12),
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(-(10**9), 10**9), st.floats(-1e9, 1e9, width=32), words)
keys = st.one_of(st.sampled_from(["fast", "slow", "on", "1", "a-b"]), words).filter(lambda key: key not in ("<<", ""))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
specs = st.dictionaries(keys, values, max_size=4)
styles = st.sampled_from(["block", "noted", "flow", "json"])
comments = st.sampled_from(["", "# a comment\n", "\n", "# two\n# of them\n\n"])


def written(name: str, spec: dict[str, Any], style: str) -> str:
    manifest = {"kind": "Trader", "metadata": {"name": name}, "spec": spec}
    if style == "json":
        return json.dumps(manifest) + "\n"
    if style == "flow":
        return yaml.safe_dump(manifest, default_flow_style=True, allow_unicode=True)
    if style == "noted":
        return "".join(f"{line} # note {number}\n" for number, line in enumerate(dumped(manifest).splitlines()))
    return dumped(manifest)


@st.composite
def files(draw: st.DrawFn) -> tuple[str, int]:
    """A file of Traders t0, t1 … with comments between them, and how many."""
    count = draw(st.integers(1, 4))
    text = draw(comments)
    for number in range(count):
        if number or draw(st.booleans()):
            text += "---\n"
        text += draw(comments) + written(f"t{number}", draw(specs), draw(styles)) + draw(comments)
    return text, count


def sound(text: str, count: int) -> bool:
    """Whether the reader takes it as it was meant: PyYAML writes some texts in a way that isn't read back alike."""
    read = read_documents(text)
    return len(read) == count and not any(document.mistakes for document in read)


def values_but(text: str, at: int) -> list[Any]:
    return [document.value for index, document in enumerate(read_documents(text)) if index != at]


@settings(max_examples=60, deadline=None)
@given(files(), st.integers(0, 3), specs)
def test_any_change_leaves_every_other_byte(file: tuple[str, int], at: int, spec: dict[str, Any]) -> None:
    text, count = file
    at %= count
    if not sound(text, count):
        return
    found = find_trader(text, "default", f"t{at}", is_json=False)
    assert found is not None
    wanted = {**found.value, "spec": spec}
    new = replaced(text, found, wanted, is_json=False)
    assert new.startswith(text[: found.begin])
    assert new.endswith(text[found.end :])
    assert (
        json.dumps(value_of(new, "default", f"t{at}")) == json.dumps(wanted)
        or value_of(new, "default", f"t{at}") == wanted
    )
    part = text[found.begin : found.end]
    for line in part.splitlines():
        if line.startswith("#"):
            assert line in new[found.begin : len(new) - len(text[found.end :])].splitlines()


@settings(max_examples=60, deadline=None)
@given(files(), st.integers(0, 3))
def test_any_removal_leaves_the_other_documents_byte_for_byte(file: tuple[str, int], at: int) -> None:
    text, count = file
    at %= count
    if not sound(text, count):
        return
    found = find_trader(text, "default", f"t{at}", is_json=False)
    assert found is not None
    new = removed(text, found, is_json=False)
    assert new.startswith(text[: found.begin])
    assert new.endswith(text[found.end :])
    assert values_but(text, at) == [document.value for document in read_documents(new)]
    assert find_trader(new, "default", f"t{at}", is_json=False) is None


@settings(max_examples=60, deadline=None)
@given(files(), st.integers(0, 3), st.booleans())
def test_suspending_and_resuming_keeps_every_line(file: tuple[str, int], at: int, suspend: bool) -> None:
    text, count = file
    at %= count
    if not sound(text, count):
        return
    found = find_trader(text, "default", f"t{at}", is_json=False)
    assert found is not None
    wanted = copy.deepcopy(found.value)
    wanted["spec"] = {**found.value["spec"], "suspend": suspend}  # type: ignore[dict-item]
    new = replaced(text, found, wanted, is_json=False)
    for line in text[found.begin : found.end].splitlines():
        _, _, comment = line.rpartition(" # note ")
        if line.startswith("#"):
            assert line in new.splitlines()
        elif comment.isdigit():
            assert any(one.endswith(f" # note {comment}") for one in new[found.begin :].splitlines()), new


items = st.lists(
    st.one_of(scalars, st.dictionaries(keys, scalars, min_size=1, max_size=3)),
    min_size=1, max_size=5, unique_by=lambda item: json.dumps(item, sort_keys=True),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(items, st.lists(st.booleans(), min_size=5, max_size=5), items)
def test_lists_that_shrink_lose_their_items_lines_and_those_that_grow_lose_none(
    old: list[Any], kept: list[bool], more: list[Any]
) -> None:
    text = written("t", {"list": old, "after": 1}, "noted")
    less = [item for item, keep in zip(old, kept, strict=False) if keep]
    wanted = value_of(text, "default", "t")
    if less:
        wanted["spec"]["list"] = less
        left = iter(text.splitlines())
        assert all(line in left for line in change(text, "default", "t", wanted).splitlines()), "no line is another"
    wanted["spec"]["list"] = old + more
    grown = iter(change(text, "default", "t", wanted).splitlines())
    assert all(line in grown for line in text.splitlines())


@given(specs)
def test_what_is_written_is_read_back_alike(spec: dict[str, Any]) -> None:
    wanted = {"kind": "Trader", "spec": spec}
    (read,) = read_documents(dumped(wanted))
    assert not read.mistakes
    assert read.value == wanted


@given(st.text(max_size=200))
def test_parts_put_together_are_the_text(text: str) -> None:
    assert "".join(part for _, part in parts_of(text)) == text
