"""YAML (and so JSON) text to plain values that know their line: several documents, one broken one spoils no other.

Unlike a stock loader this one: says where every field stands; refuses a key given twice; keeps what looks like
a time (``1m``, ``12:30:00``, ``2024-08-08``) as text; bounds size, depth and what anchors may unfold to;
never builds anything but dict, list, str, int, float, bool and None; and gives what it could read before an error,
so that a half-written document can still be told by its kind and name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Protocol

import yaml


class _Mark(Protocol):
    """A place in the parsed text, from 0."""

    line: int
    column: int


Value = dict[str, "Value"] | list["Value"] | str | int | float | bool | None
Path = tuple[str | int, ...]

MAX_DOCUMENT_BYTES: Final = 1024 * 1024
MAX_DEPTH: Final = 64
#: Most values of a document, those that anchors unfold to included.
MAX_VALUES: Final = 50_000

# libyaml is ten times as fast; the pure parser is the same machine in Python.
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SEPARATOR: Final = re.compile(r"^---(?=\s|$)", re.MULTILINE)
# JSON's spelling of characters beyond 16 bits; YAML has \U0001f600 instead. An even number of backslashes before it.
_JSON_PAIR: Final = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_INT: Final = re.compile(r"[-+]?(0|[1-9][0-9]*)|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+")
_FLOAT: Final = re.compile(r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+")
_SPECIAL_FLOATS: Final = {".inf": "inf", "+.inf": "inf", "-.inf": "-inf", ".nan": "nan"}
# YAML 1.1's words, because kubectl reads them so.
_BOOLS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULLS: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TAG: Final = "tag:yaml.org,2002:"
_SCALAR_TAGS: Final = frozenset({"!", *(_TAG + name for name in ("str", "int", "float", "bool", "null"))})
_COLLECTION_TAGS: Final = frozenset({"!", _TAG + "map", _TAG + "seq"})


@dataclass(frozen=True, slots=True)
class Mistake:
    """What is wrong with a document's text, and where (line and column from 1; 0: unknown)."""

    message: str
    line: int
    column: int = 0


@dataclass(slots=True)
class Document:
    """One document of a file.

    Attributes:
        number: its place in the file, from 1. line: the file's line on which it begins.
        value: what it holds, or what could be read of it before the first mistake that stopped reading.
        lines: path of keys and indices → line in the file (of the key, for a mapping's field).
        mistakes: empty for a sound document.
    """

    number: int
    line: int
    value: Value = None
    lines: dict[Path, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)

    def line_of(self, path: Path) -> int:
        """Line of the field at ``path``, or of the nearest field around it that is there."""
        return line_at(self.lines, path, self.line)


def line_at(lines: Mapping[Path, int], path: Path, otherwise: int) -> int:
    """Line of ``path``, or of the nearest field around it, or ``otherwise``."""
    for end in range(len(path), 0, -1):
        line = lines.get(path[:end])
        if line is not None:
            return line
    return otherwise


def read_documents(text: str, *, is_json: bool = False) -> list[Document]:
    """Split a file's text into documents and read each by itself; empty documents are left out.

    Args:
        text: the file's text.
        is_json: the text is JSON, in which a tab is mere space.
    """
    if is_json:
        text = _JSON_PAIR.sub(_join_pair, text.replace("\t", " "))
    documents: list[Document] = []
    for line, part in parts_of(text):
        if _says_nothing(part):
            continue
        documents.append(_read(part, Document(number=len(documents) + 1, line=line)))
    return documents


def _join_pair(match: re.Match[str]) -> str:
    high, low = int(match[2], 16), int(match[3], 16)
    return match[1] + chr(0x10000 + (high - 0xD800) * 0x400 + low - 0xDC00)


def parts_of(text: str) -> Iterator[tuple[int, str]]:
    """The file's line on which each part begins, and its text; each but the first begins with ``---``.

    Put together again they are the text. A part may hold no document but comments.
    """
    # A line that begins with --- always ends a document, in a block of text too: so one broken document
    # can't swallow the next.
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text)), len(text)]
    line = 1
    for begin, end in pairwise(starts):
        part = text[begin:end]
        yield line, part
        line += part.count("\n")


def _says_nothing(part: str) -> bool:
    lines = (line.strip() for line in part.removeprefix("---").splitlines())
    return all(not line or line.startswith(("#", "%YAML", "%TAG", "...")) for line in lines)


class _Stop(Exception):
    """Reading of this document ends here."""

    def __init__(self, message: str, mark: _Mark | None = None) -> None:
        super().__init__(message)
        self.mark = mark


def _read(part: str, document: Document) -> Document:
    size = len(part.encode("utf-8", "surrogatepass"))
    if size > MAX_DOCUMENT_BYTES:
        document.mistakes.append(
            Mistake(f"the document has {size} bytes; {MAX_DOCUMENT_BYTES} (1Mi) are the most", document.line)
        )
        return document
    builder = _Builder(document)
    try:
        for event in yaml.parse(part, Loader=_Loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        problem = error.problem or "not readable"
        context = f" {error.context}" if error.context else ""
        builder.mistake(f"not YAML: {problem}{context}", error.problem_mark or error.context_mark)
    except yaml.YAMLError as error:
        builder.mistake(f"not YAML: {str(error).splitlines()[0]}", None)
    except _Stop as stop:
        builder.mistake(str(stop), stop.mark)
    return document


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet."""

    value: dict[str, Value] | list[Value]
    path: Path
    anchor: str | None
    key: str | None = None
    wants_key: bool = True
    merges: list[Value] = field(default_factory=list)


class _Builder:
    """Builds a document's value from parser events; without recursion, so that depth can't exhaust a stack."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._stack: list[_Open] = []
        self._anchors: dict[str, Value] = {}
        self._values = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event.

        Raises:
            _Stop: a bound is passed, or a construct that manifests don't have.
        """
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._open({}, event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._open([], event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        elif isinstance(event, yaml.DocumentStartEvent) and self._values:
            raise _Stop("two documents without --- between them", event.start_mark)

    def mistake(self, message: str, mark: _Mark | None) -> None:
        self._document.mistakes.append(Mistake(message, self._line(mark), mark.column + 1 if mark else 0))

    def _line(self, mark: _Mark | None) -> int:
        return self._document.line + (mark.line if mark else 0)

    def _count(self, values: int, mark: _Mark | None) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _Stop(f"more than {MAX_VALUES} values (anchors unfolded)", mark)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        text = _whole_text(event)
        top = self._stack[-1] if self._stack else None
        if top is not None and isinstance(top.value, dict) and top.wants_key:
            self._key(top, text, event)
            return
        self._place(_plain_value(text, event), event)

    def _key(self, top: _Open, text: str, event: yaml.ScalarEvent) -> None:
        assert isinstance(top.value, dict)
        if text in top.value:
            first = self._document.lines.get((*top.path, text))
            self.mistake(f"{text!r} is given twice, first on line {first}", event.start_mark)
        top.key, top.wants_key = text, False
        self._document.lines[(*top.path, text)] = self._line(event.start_mark)

    def _path(self, event: yaml.Event) -> Path:
        """Path of the value that comes next."""
        if not self._stack:
            return ()
        top = self._stack[-1]
        if isinstance(top.value, list):
            path = (*top.path, len(top.value))
            self._document.lines[path] = self._line(event.start_mark)
            return path
        if top.wants_key:
            raise _Stop("a key must be plain text", event.start_mark)
        return (*top.path, str(top.key))

    def _place(self, value: Value, event: yaml.Event) -> Path:
        self._count(1, event.start_mark)
        path = self._path(event)
        anchor = getattr(event, "anchor", None)
        if anchor and not isinstance(event, yaml.AliasEvent):
            self._anchors[anchor] = value
        if not self._stack:
            self._document.value = value
            return path
        top = self._stack[-1]
        if isinstance(top.value, list):
            top.value.append(value)
        else:
            if top.key == "<<":
                top.merges.extend(value if isinstance(value, list) else [value])
            else:
                top.value[str(top.key)] = value
            top.wants_key = True
        return path

    def _open(self, value: dict[str, Value] | list[Value], event: yaml.CollectionStartEvent) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise _Stop(f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        _refuse_tag(event, _COLLECTION_TAGS)
        path = self._place(value, event)
        self._stack.append(_Open(value, path, event.anchor))

    def _close(self) -> None:
        top = self._stack.pop()
        if isinstance(top.value, dict):
            for merged in top.merges:
                if isinstance(merged, dict):
                    top.value.update({key: value for key, value in merged.items() if key not in top.value})

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchors:
            raise _Stop(f"the anchor *{event.anchor} is defined nowhere above", event.start_mark)
        if any(opened.anchor == event.anchor for opened in self._stack):
            raise _Stop(f"the anchor *{event.anchor} contains itself", event.start_mark)
        value = self._anchors[event.anchor]
        self._count(_size(value), event.start_mark)
        self._place(value, event)


def _size(value: Value) -> int:
    """Number of values in a value. Bounded: what an anchor holds has been counted against MAX_VALUES already."""
    total, pending = 0, [value]
    while pending:
        one = pending.pop()
        total += 1
        if isinstance(one, dict):
            pending.extend(one.values())
        elif isinstance(one, list):
            pending.extend(one)
    return total


def _whole_text(event: yaml.ScalarEvent) -> str:
    text = str(event.value)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise _Stop("half of a surrogate pair in the text", event.start_mark)
    return text


def _refuse_tag(event: yaml.NodeEvent, known: frozenset[str]) -> None:
    tag = getattr(event, "tag", None)
    if tag and tag not in known:
        raise _Stop(f"the tag {str(tag).replace(_TAG, '!!')} is not known here", event.start_mark)


def _plain_value(text: str, event: yaml.ScalarEvent) -> Value:
    tag = event.tag
    _refuse_tag(event, _SCALAR_TAGS)
    if event.style or tag in {"!", _TAG + "str"}:
        return text
    if text in _NULLS:
        return None
    if text in {text.lower(), text.upper(), text.capitalize()} and text.lower() in _BOOLS:
        return _BOOLS[text.lower()]
    return _number(text)


def _number(text: str) -> int | float | str:
    # 20 digits hold every 64-bit number; a longer one stays text and is refused where a number is needed.
    if len(text) <= 20 and _INT.fullmatch(text):
        return int(text, 0) if text.startswith(("0x", "0o", "0b")) else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if text.lower() in _SPECIAL_FLOATS:
        return float(_SPECIAL_FLOATS[text.lower()])
    return text
