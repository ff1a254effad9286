"""YAML and JSON to values with lines: what is kept as text, what is refused, what a broken document leaves whole."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chandlery.core.documents import MAX_DOCUMENT_BYTES, Document, read_documents


def only(text: str, **more: Any) -> Document:
    (document,) = read_documents(text, **more)
    return document


def mistake(text: str) -> str:
    document = only(text)
    assert document.mistakes, f"read without complaint: {document.value}"
    return document.mistakes[0].message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1m", "1m"),
        ("1M", "1M"),
        ("2024-08-08", "2024-08-08"),
        ("12:30:00", "12:30:00"),
        ("BTC/USDT", "BTC/USDT"),
        ("1_000", "1_000"),
        ("0777", "0777"),
        ('"1"', "1"),
        ("'true'", "true"),
        ("!!str 5", "5"),
        ("5", 5),
        ("-5", -5),
        ("0x10", 16),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        (".inf", math.inf),
        ("true", True),
        ("yes", True),
        ("Off", False),
        ("yEs", "yEs"),
        ("null", None),
        ("~", None),
        ("", None),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
    ],
)
def test_scalars_are_what_kubectl_takes_them_for_and_times_stay_text(text: str, value: object) -> None:
    read = only(f"a: {text}").value
    assert read == {"a": value}
    assert isinstance(read, dict)
    assert type(read["a"]) is type(value)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**15), 10**15) | st.text(alphabet=st.characters(codec="utf-8"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8).filter(lambda k: k != "<<"), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.sampled_from("abc"), json_values, min_size=1), st.booleans(), st.booleans())
def test_json_is_read_as_json(value: dict[str, Any], ascii_only: bool, tabs: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent="\t" if tabs else None)
    if not ascii_only and any(not _plain(character) for character in text):
        return  # YAML allows control characters only as escapes; so does JSON as programs write it
    assert only(text, is_json=True).value == value


def _plain(character: str) -> bool:
    return character in "\t\n" or " " <= character <= "~" or ("\xa0" <= character < "\ufffe" and character not in "\u2028\u2029\ufeff") or character > "\uffff"  # fmt: skip


def test_lines_are_those_of_the_file_whatever_document_they_are_in() -> None:
    first, second = read_documents("# comment\na:\n  b: 1\n---\n\nc:\n  - x\n  - d: 2\n")
    assert first.lines == {("a",): 2, ("a", "b"): 3}
    assert (second.lines["c", 1, "d"], second.line_of(("c", 1, "missing")), second.number) == (8, 8, 2)


def test_a_broken_document_spoils_no_other() -> None:
    broken, sound = read_documents("a: [1, 2\n---\nb: 2\n")
    assert broken.mistakes[0].line in (1, 2)
    assert (sound.value, sound.mistakes) == ({"b": 2}, [])


def test_what_was_read_before_the_mistake_is_there() -> None:
    document = only("kind: Trader\nmetadata:\n  name: half\nspec:\n  market: {symbols: [BTC/U")
    assert document.mistakes
    assert isinstance(document.value, dict)
    assert document.value["metadata"] == {"name": "half"}


def test_a_key_given_twice_is_refused_with_both_lines() -> None:
    document = only("a: 1\nb: 2\na: 3\n")
    assert document.mistakes[0].line == 3
    assert "first on line 1" in document.mistakes[0].message


def test_anchors_and_merges_unfold() -> None:
    text = "base: &base {x: 1, y: 2}\nown:\n  <<: *base\n  y: 3\nsame: *base\n"
    assert only(text).value == {"base": {"x": 1, "y": 2}, "own": {"x": 1, "y": 3}, "same": {"x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &a [*a]", "contains itself"),
        ("a: *b", "b"),
        ("? [1, 2]\n: 3", "key"),
        ("a: !!python/object/apply:os.system [x]", "tag"),
        ("a: !!python/name:os.system x", "tag"),
        ("\ta: 1", "YAML"),
        ("a: b: c", "YAML"),
        ("a: \x07", "YAML"),
        ("a: 1\n...\nb: 2", "YAML|---"),
        ("[" * 5_000, "deeper"),
        ("a: " + "{b: " * 100, "deeper"),
    ],
)
def test_what_no_manifest_has_is_refused(text: str, says: str) -> None:
    message = mistake(text)
    assert any(part in message for part in says.split("|")), message


def test_an_anchor_bomb_is_stopped() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(12)]
    assert "more than 50000 values" in mistake("\n".join(lines))


def test_a_document_beyond_the_limit_is_not_parsed() -> None:
    assert str(MAX_DOCUMENT_BYTES) in mistake("a: " + "x" * MAX_DOCUMENT_BYTES)
    assert not only("a: " + "x" * (MAX_DOCUMENT_BYTES - 10)).mistakes


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n---\n# x\n", "%YAML 1.2\n---\n", "...\n"])
def test_documents_that_say_nothing_are_none(text: str) -> None:
    assert read_documents(text) == []


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"#\n\t ,?%@`0~.<=")), st.booleans())
def test_any_text_is_read_or_refused_without_an_exception(text: str, is_json: bool) -> None:
    for document in read_documents(text, is_json=is_json):
        assert all(one.line >= 1 for one in document.mistakes)
