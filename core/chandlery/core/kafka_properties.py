"""What people who know Kafka write: a client's ``.properties`` file, and the login line in it (JAAS). Pure."""

from __future__ import annotations

import re
from typing import Final

from chandlery.core.errors import InputError

_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_PLAIN_ESCAPES: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_SEPARATOR: Final = re.compile(r"(?<!\\)(?:\\\\)*\s*[=:]\s*|(?<!\\)\s+")
_OPTION: Final = re.compile(r'(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s";]+))')

#: Properties that concern the connection; all others are a client's own affair.
KNOWN: Final = frozenset(
    {
        "security.protocol",
        "sasl.mechanism",
        "sasl.jaas.config",
        "ssl.truststore.type",
        "ssl.truststore.location",
        "ssl.truststore.certificates",
        "ssl.keystore.type",
        "ssl.keystore.location",
        "ssl.keystore.certificate.chain",
        "ssl.keystore.key",
        "ssl.key.password",
        "ssl.endpoint.identification.algorithm",
    }
)


def parse_properties(text: str) -> dict[str, str]:
    """Names and values of a Java properties file: comments, continued lines and escapes as Java reads them."""
    found: dict[str, str] = {}
    lines = iter(text.splitlines())
    for raw in lines:
        line = raw.lstrip()
        if not line or line[0] in "#!":
            continue
        while _continues(line):
            line = line[:-1] + next(lines, "").lstrip()
        split = _SEPARATOR.search(line)
        name, value = (line[: split.start()], line[split.end() :]) if split else (line, "")
        found[_unescaped(name)] = _unescaped(value)
    return found


def parse_jaas(text: str) -> tuple[str, str]:
    """Username and password of a JAAS login line.

    Raises:
        InputError: one of them is missing; the message holds nothing of the line.
    """
    options = {
        name: _ESCAPE.sub(lambda found: found[1], quoted) or bare for name, quoted, bare in _OPTION.findall(text)
    }
    if "username" not in options or "password" not in options:
        raise InputError('sasl.jaas.config needs username="…" and password="…"')
    return options["username"], options["password"]


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _unescaped(text: str) -> str:
    def one(found: re.Match[str]) -> str:
        escape = found[1]
        if len(escape) == 5:
            return chr(int(escape[1:], 16))
        return _PLAIN_ESCAPES.get(escape, escape)

    return _ESCAPE.sub(one, text)
