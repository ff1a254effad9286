"""Rules in CEL: what the validators of the resources say, in the form in which the API server says it too.

Each stands beside the Python validator whose twin it is, so that one is never changed without the other. The
schema of a type carries them as ``x-kubernetes-validations``; :mod:`chandlery.core.crds` puts them into the CRDs.
Where a text has a rule, the rule's sentence takes the place of ``pattern``'s bare regular expression.
"""

from __future__ import annotations

from typing import Any, Final

from chandlery.core import durations, intervals, quantities, symbols

DNS_LABEL_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
#: Key under which Kubernetes looks for rules in a schema.
RULES: Final = "x-kubernetes-validations"


def rule(expression: str, message: str, *, field: str = "") -> dict[str, str]:
    """One rule.

    Args:
        expression: CEL over ``self``, true where all is well.
        message: what is wrong and what would be right; the API server puts the field's path before it.
        field: name of the field within ``self`` that is to be named; empty: ``self``.
    """
    found = {"rule": expression, "message": message}
    return {**found, "fieldPath": f".{field}"} if field else found


def rules(*given: dict[str, str]) -> dict[str, Any]:
    """Rules as a part of a JSON schema, for ``json_schema_extra`` and ``WithJsonSchema``."""
    return {RULES: list(given)}


def _quoted(pattern: str) -> str:
    """A regular expression as a CEL string."""
    return "'" + pattern.replace("\\", "\\\\").replace("'", "\\'") + "'"


# No unit alone may exceed the longest duration: a coarse bound that keeps the sum inside CEL's 64 bits.
_BOUNDED: Final = (
    "^"
    + "".join(f"([0-9]{{1,{len(str(durations.MOST_MS // unit_ms))}}}{unit})?" for unit, unit_ms in durations.UNITS)
    + "$"
)

DURATION: Final = rules(
    rule(
        f"self.size() > 0 && self.matches({_quoted(durations.PATTERN)})",
        "is no duration: write whole numbers with units w, d, h, m, s or ms, such as 1m30s",
    ),
    rule(
        f"!self.matches({_quoted(durations.PATTERN)}) || self.matches({_quoted(_BOUNDED)})",
        "is too long: a hundred years at most",
    ),
)


def at_least_ms(field: str, least_ms: int) -> str:
    """CEL: the duration in ``field`` is at least so long. One that is no duration is another rule's matter.

    Each unit's digits are found by themselves; ``ms`` is written ``i`` first, so that it has no ``m``.
    """
    parts = [
        f"int('0' + {field}.replace('ms', 'i').find('[0-9]+{unit}').replace('{unit}', '')) * {unit_ms}"
        for unit, unit_ms in (("i" if unit == "ms" else unit, unit_ms) for unit, unit_ms in durations.UNITS)
    ]
    return f"!{field}.matches({_quoted(_BOUNDED)}) || {' + '.join(parts)} >= {least_ms}"


QUANTITY: Final = rules(
    rule(
        f"type(self) == string ? self.matches({_quoted(quantities.PATTERN)}) : self >= 0",
        "is no amount of memory: write a number with Ki, Mi or Gi (or k, M, G), such as 256Mi",
    )
)


def at_least_bytes(field: str, least_bytes: int) -> str:
    """CEL: the amount of memory in ``field`` is at least so much. One that is none is another rule's matter."""
    least = quantities.format_quantity(least_bytes)
    return (
        f"type({field}) == string ? (!isQuantity({field}) || quantity({field}).compareTo(quantity('{least}')) >= 0) "
        f": {field} >= {least_bytes}"
    )


SYMBOL: Final = rules(
    rule(
        f"self.matches({_quoted(symbols.PATTERN)})",
        "is no symbol: write base/quote, such as BTC/USDT (BTC/USDT:USDT for the perpetual)",
    )
)

_INTERVAL_COUNT: Final = "int(self.substring(0, self.size() - 1))"
_INTERVAL_S: Final = "(self.endsWith('s') ? 1 : self.endsWith('m') ? 60 : 3600)"
INTERVAL: Final = rules(
    rule(
        f"self.matches({_quoted(intervals.PATTERN)})",
        "is no interval: write a number and a unit (s, m, h, d, w or M; case matters: 1m is a minute, 1M a month), "
        "such as 1s, 5m, 1h or 1d",
    ),
    rule(
        f"!self.matches('^[1-9][0-9]{{0,3}}[smh]$') || 86400 % ({_INTERVAL_COUNT} * {_INTERVAL_S}) == 0",
        "doesn't divide a day evenly, so its candles would not align to UTC: write one that does, such as 1s, 5s, 10s, 30s, "
        "1m, 5m, 15m, 30m, 1h or 4h",
    ),
    rule(
        f"!self.matches('^[1-9][0-9]{{0,3}}M$') || 12 % {_INTERVAL_COUNT} == 0",
        "months must divide a year: 1M, 2M, 3M, 4M, 6M or 12M",
    ),
)

DNS_LABEL: Final = rules(
    rule(
        f"self.matches({_quoted(DNS_LABEL_PATTERN)})",
        "won't do: lower-case letters, digits and '-', with a letter or digit at both ends, at most 63",
    )
)

#: Parts of a schema without a type that no list, no object, no number, no true or false, can satisfy: a
#: bound that only this kind of value is measured by, and that can't be kept.
NO_LIST: Final = {"minItems": 1, "maxItems": 0}
NO_OBJECT: Final = {"minProperties": 1, "maxProperties": 0}
NO_NUMBER: Final = {"minimum": 1, "maximum": 0}
NO_FLAG: Final = {"not": {"enum": [True, False]}}
ANY_VALUE: Final = {"x-kubernetes-preserve-unknown-fields": True}
