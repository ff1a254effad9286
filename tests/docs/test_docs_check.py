"""What ``make docs`` finds in the pages."""

from __future__ import annotations

from docs.check import doubled_rows

TABLE = """
| What it does | where |
|---|---|
| Reads | `core/chandlery/core/reading.py` |
| Stands behind it | `console/chandlery/console/backends/`, see [console.md](console.md) |
| Draws what `core/chandlery/core/reading.py` read | `cli/chandlery/cli/drawing.py` |
"""


def test_a_component_that_has_two_rows_is_named() -> None:
    assert list(doubled_rows(TABLE)) == []
    assert list(doubled_rows(TABLE + "| The same again | `console/chandlery/console/backends/` |\n")) == [
        "docs/architecture.md: the component table has `console/chandlery/console/backends/` 2 times"
    ]
