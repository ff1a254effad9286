"""``python -m monitoring``: write dashboards and rules into the chart. A test compares, so they can't drift."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from monitoring import alerts, dashboards

CHART: Final = Path(__file__).parents[1] / "charts" / "chandlery"


def files() -> dict[Path, str]:
    """Every generated file and what it holds."""
    boards = {CHART / "dashboards" / f"{board.uid}.json": dashboards.rendered(board) for board in dashboards.BOARDS}
    rules = {"chandlery.yaml": alerts.EVERYWHERE, "cluster.yaml": alerts.CLUSTER}
    return {**boards, **{CHART / "rules" / name: alerts.rendered(group) for name, group in rules.items()}}


def main() -> None:
    """Write them."""
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
