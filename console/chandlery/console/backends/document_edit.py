"""Changing one document in a file of manifests: pure text to text, every other byte as it was.

A change is made as small as can be: only the scalars that differ are exchanged, fields that come or go are lines that
come or go, and comments stay. What can't be done so (anchors, text in ``|`` style, lists that were or become empty) makes
the document's content be written anew; comments before and after it stay, those inside it are lost. Either way the
result is read again, and used only where it says exactly what was asked for.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

import yaml

from chandlery.console.backend import RefusedError
from chandlery.core.documents import Document, Value, parts_of, read_documents
from chandlery.core.resources import DEFAULT_NAMESPACE

_WORDS: Final = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
_BLOCK_STYLES: Final = ("|", ">")
#: Text that every YAML reader takes for text without quotes, in lists too.
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*|[0-9]+(?:ms|[smhdwM]|[KMG]i)")


class CannotEditError(RefusedError):
    """A document can't be changed by itself: somebody must do it by hand."""


@dataclass(frozen=True)
class Found:
    """Where a Trader stands in a file's text.

    Attributes:
        begin, end: of its part of the text, separator included.
        document: as it was read. in_list: whether it is an item of a ``kind: List``.
    """

    begin: int
    end: int
    document: Document
    value: dict[str, Value]
    in_list: bool = False


def find_trader(text: str, namespace: str, name: str, *, is_json: bool) -> Found | None:
    """The first document of a text that is the Trader of this name, also where it has mistakes."""
    begin = 0
    for _, part in parts_of(text):
        end = begin + len(part)
        # Most documents are others: those that don't even have the word, nor an escape that may be it, needn't be read.
        for document in read_documents(part, is_json=is_json) if name in part or "\\" in part else ():
            for value, in_list in _members(document.value):
                if isinstance(value, dict) and _is_trader(value, namespace, name):
                    return Found(begin, end, document, value, in_list)
        begin = end
    return None


def replaced(text: str, found: Found, wanted: dict[str, Any], *, is_json: bool) -> str:
    """The text with ``wanted`` in the place of what was found.

    Raises:
        CannotEditError: it can't be done without touching other documents.
    """
    part = text[found.begin : found.end]
    for candidate in (_edited, _written_anew):
        new = candidate(part, wanted, is_json)
        if new is not None and says(new, wanted, is_json):
            return _checked(text, text[: found.begin] + new + text[found.end :], found, is_json, gone=False)
    raise CannotEditError("this document can't be changed by itself: edit the file by hand")


def removed(text: str, found: Found, *, is_json: bool) -> str:
    """The text without the document that was found.

    A file's head (comments before the first document) stays, and so do comments that follow the document.

    Raises:
        CannotEditError: it can't be done without touching other documents.
    """
    part = text[found.begin : found.end]
    before, after = _around(part, is_json)
    kept = before if not found.begin and not part.startswith("---") and _has_comment(before) else ""
    kept += after if _has_comment(after) else ""
    return _checked(text, text[: found.begin] + kept + text[found.end :], found, is_json, gone=True)


def says_nothing(text: str) -> bool:
    """Whether there is neither a document nor a comment in it."""
    return not read_documents(text) and not _has_comment(text)


def dumped(value: dict[str, Any] | list[Any]) -> str:
    """A manifest, or part of one, as YAML that every reader reads alike."""
    return yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**20, default_flow_style=False
    )  # fmt: skip


# Reading ----------------------------------------------------------------------------------------------------


def _members(value: Value) -> list[tuple[Value, bool]]:
    if isinstance(value, dict) and value.get("kind") == "List" and isinstance(items := value.get("items"), list):
        return [(item, True) for item in items]
    return [(value, False)]


def _is_trader(value: dict[str, Value], namespace: str, name: str) -> bool:
    if value.get("kind") != "Trader":
        return False
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("name") != name:
        return False
    own = metadata.get("namespace")
    return (own if isinstance(own, str) else DEFAULT_NAMESPACE) == namespace


def _same(one: Value, other: Value) -> bool:
    """Equality that tells 1, 1.0 and true apart."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


def _key(value: Value) -> str:
    """Equal for what is the same by :func:`_same`."""
    return json.dumps(value, sort_keys=True)


def says(part: str, wanted: dict[str, Any], is_json: bool) -> bool:
    """Whether a text is one document that reads back as what is wanted, types included."""
    read = read_documents(part, is_json=is_json)
    return len(read) == 1 and not read[0].mistakes and _same(read[0].value, wanted)


def _checked(text: str, new: str, found: Found, is_json: bool, *, gone: bool) -> str:
    """The new text, if every other document still says what it said."""
    before, after = read_documents(text, is_json=is_json), read_documents(new, is_json=is_json)
    at = len(read_documents(text[: found.begin], is_json=is_json))
    others = before[:at] + before[at + 1 :]
    left = after if gone else after[:at] + after[at + 1 :]
    if len(others) != len(left) or not all(_same(one.value, two.value) for one, two in zip(others, left, strict=True)):
        raise CannotEditError("this document can't be changed without touching others of its file: edit it by hand")
    return new


def _root(part: str, is_json: bool) -> yaml.Node | None:
    """The document's nodes with their places; None where it can't be read."""
    text = part.replace("\t", " ") if is_json else part
    try:
        # The parser in Python: its places count characters, whatever the text is made of.
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        return None


def _around(part: str, is_json: bool) -> tuple[str, str]:
    """What stands in a part before and after the document's content: separator, comments, blank lines."""
    root = _root(part, is_json)
    if root is None:
        before = ""
        for line in part.splitlines(keepends=True):
            if line.strip() and not line.startswith(("---", "#")):
                break
            before += line
        return before, ""
    begin = part.rfind("\n", 0, root.start_mark.index) + 1
    if part[begin : root.start_mark.index].strip():  # `--- {kind: Trader, …`
        return "---" + _newline(part), part[_content_end(part, is_json) :]
    return part[:begin], part[_content_end(part, is_json) :]


def _content_end(part: str, is_json: bool) -> int:
    """Where the line ends on which the last thing said in a readable document ends."""
    last: yaml.Event | None = None
    in_brackets: list[bool] = []
    for event in yaml.parse(part.replace("\t", " ") if is_json else part, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            in_brackets.append(bool(event.flow_style))
        elif isinstance(event, yaml.CollectionEndEvent):
            # A collection of lines has no end of its own: the next thing's beginning is told.
            last = event if in_brackets.pop() else last
        elif isinstance(event, yaml.ScalarEvent | yaml.AliasEvent):
            last = event
    if last is None or last.end_mark is None:
        return 0
    return _line_end(part, last.end_mark.index, getattr(last, "style", None))


def _has_comment(text: str) -> bool:
    return any(line.lstrip().startswith("#") for line in text.splitlines())


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def _last_leaf(node: yaml.Node) -> yaml.Node:
    """The node at the very end of another; a collection in brackets ends itself."""
    while True:
        if not isinstance(node, yaml.CollectionNode) or node.flow_style or not node.value:
            return node
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last


def _line_end(text: str, end: int, style: str | None) -> int:
    """Where the line ends that something ends on, its line feed included. style: of a scalar."""
    if style in _BLOCK_STYLES:
        return end  # it is the beginning of the next line already
    at = text.find("\n", end)
    return len(text) if at < 0 else at + 1


def _is_block_text(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style in _BLOCK_STYLES


# Writing ----------------------------------------------------------------------------------------------------


class _Dumper(yaml.SafeDumper):
    """Quotes whatever any reader could take for something else; no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if _is_plain(text) else '"')


_Dumper.add_representer(str, _represent_text)


def _is_plain(text: str) -> bool:
    return bool(_PLAIN.fullmatch(text)) and text.lower() not in _WORDS


def _written_anew(part: str, wanted: dict[str, Any], is_json: bool) -> str | None:
    before, after = _around(part, is_json)
    body = json.dumps(wanted, indent=2, ensure_ascii=False) + "\n" if is_json else dumped(wanted)
    if not after.strip():
        after = ""
    return before + body.replace("\n", _newline(part)) + after


def _in_line(value: Value) -> str:
    """A value as it stands behind a colon: JSON, but lists and words as people write them."""
    if isinstance(value, list):
        return f"[{', '.join(map(_in_line, value))}]"
    if isinstance(value, str) and _is_plain(value):
        return value
    return json.dumps(value, ensure_ascii=False)


class _Impossible(Exception):
    """This change can't be made in place."""


def _edited(part: str, wanted: dict[str, Any], is_json: bool) -> str | None:
    """The part with as little changed as can be; None where it can't be done in place."""
    root, read = _root(part, is_json), read_documents(part, is_json=is_json)
    if root is None or len(read) != 1 or read[0].mistakes:
        return None
    edit = _Edit(part, is_json)
    try:
        edit.change(root, read[0].value, wanted)
        return edit.result()
    except _Impossible:
        return None


class _Edit:
    """Gathers what is to be exchanged in a part of a text."""

    def __init__(self, text: str, is_json: bool) -> None:
        self._text = text
        self._is_json = is_json
        self._changes: list[tuple[int, int, str]] = []

    def result(self) -> str:
        text = self._text
        upper = len(text)
        for begin, end, new in sorted(self._changes, reverse=True):
            if end > upper:
                raise _Impossible  # two changes of one place: an anchor and its aliases
            text, upper = text[:begin] + new + text[end:], begin
        return text

    def change(self, node: yaml.Node, old: Value, new: Value) -> None:
        """Make what stands at ``node`` say ``new`` instead of ``old``."""
        if _same(old, new):
            return
        done = False
        if isinstance(node, yaml.MappingNode) and isinstance(old, dict) and isinstance(new, dict):
            done = self._change_fields(node, old, new)
        elif isinstance(node, yaml.SequenceNode) and isinstance(old, list) and isinstance(new, list):
            done = self._change_items(node, old, new)
        if not done:
            self._exchange(node, new)

    def _change_items(self, node: yaml.SequenceNode, old: list[Value], new: list[Value]) -> bool:
        """Change a list item by item; False: it has to be exchanged as a whole."""
        if len(node.value) != len(old) or (len(old) != len(new) and (node.flow_style or not new)):
            return False
        alike = SequenceMatcher(None, [_key(item) for item in old], [_key(item) for item in new], autojunk=False)
        for kind, first, end, new_first, new_end in alike.get_opcodes():
            if kind == "equal":
                continue
            both = min(end - first, new_end - new_first)
            for at in range(both):
                self.change(node.value[first + at], old[first + at], new[new_first + at])
            for item in node.value[first + both : end]:
                begin, _ = self._line_of_item(item)
                self._changes.append((begin, self._end_of(item, begin), ""))
            if new_end - new_first > both:
                self._put_in_items(node, first + both, new[new_first + both : new_end])
        return True

    def _put_in_items(self, node: yaml.SequenceNode, at: int, items: list[Value]) -> None:
        """Items before the one at ``at`` of a list of lines, or at its end."""
        newline = _newline(self._text)
        _, indent = self._line_of_item(node.value[0])
        block = "".join(
            indent + line + newline for item in items for line in dumped([item]).rstrip("\n").split("\n")
        )  # fmt: skip
        if at < len(node.value):
            begin, _ = self._line_of_item(node.value[at])
        else:
            begin = self._end_of(node.value[-1], node.start_mark.index)
            if self._text[begin - 1] != "\n":
                block = newline + block.removesuffix(newline)
        self._changes.append((begin, begin, block))

    def _line_of_item(self, item: yaml.Node) -> tuple[int, str]:
        """Where the line of a list's item begins, and how far its dash is from there."""
        begin = self._text.rfind("\n", 0, item.start_mark.index) + 1
        head = self._text[begin : item.start_mark.index]
        if head.strip() != "-":
            raise _Impossible  # several dashes in a line; or an alias, which stands elsewhere
        return begin, head[: head.index("-")]

    def _end_of(self, node: yaml.Node, after: int) -> int:
        """Where the line ends on which a node ends; ``after``: where it must have begun."""
        leaf = _last_leaf(node)
        if leaf.end_mark.index < after:
            raise _Impossible  # an alias, which stands elsewhere
        return _line_end(self._text, leaf.end_mark.index, getattr(leaf, "style", None))

    def _change_fields(self, node: yaml.MappingNode, old: dict[str, Value], new: dict[str, Value]) -> bool:
        """Change a mapping field by field; False: it has to be exchanged as a whole."""
        fields = {key.value: (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
        if len(fields) != len(node.value) or fields.keys() != old.keys():
            raise _Impossible  # merged from elsewhere
        if old.keys() != new.keys() and (node.flow_style or not old.keys() & new.keys()):
            return False
        for name, (key, value) in fields.items():
            if name not in new:
                self._take_out(key, value)
            else:
                self.change(value, old[name], new[name])
        added = {name: value for name, value in new.items() if name not in old}
        if added:
            self._put_in(node, added)
        return True

    def _take_out(self, key: yaml.Node, value: yaml.Node) -> None:
        begin = self._text.rfind("\n", 0, key.start_mark.index) + 1
        if self._text[begin : key.start_mark.index].strip():
            raise _Impossible  # behind a dash
        self._changes.append((begin, self._end_of(value, key.start_mark.index), ""))

    def _put_in(self, node: yaml.MappingNode, added: dict[str, Value]) -> None:
        """Fields at the end of a mapping of lines."""
        column = " " * node.start_mark.column
        newline = _newline(self._text)
        lines = dumped(added).rstrip("\n").split("\n")
        leaf = _last_leaf(node)
        if _is_block_text(leaf) or leaf.end_mark.index < node.start_mark.index:
            # Where text in | style ends is for its reader to say: before the first field instead.
            at = node.start_mark.index
            self._changes.append((at, at, "".join(line + newline + column for line in lines)))
            return
        at = _line_end(self._text, leaf.end_mark.index, getattr(leaf, "style", None))
        block = "".join(column + line + newline for line in lines)
        if at and self._text[at - 1] != "\n":
            block = newline + block.removesuffix(newline)
        self._changes.append((at, at, block))

    def _exchange(self, node: yaml.Node, new: Value) -> None:
        begin, end = node.start_mark.index, node.end_mark.index
        if _is_block_text(node) or (isinstance(node, yaml.CollectionNode) and not node.flow_style):
            raise _Impossible
        text = json.dumps(new, ensure_ascii=False) if self._is_json else _in_line(new)
        # `parameters:` with nothing after it: the empty place is right behind the colon.
        self._changes.append((begin, end, f" {text}" if begin == end else text))
