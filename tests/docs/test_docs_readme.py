"""What the README tells a newcomer to type works as it stands there."""

import re
from pathlib import Path

from chandlery.cli.runtime.desired import read_first

ROOT = Path(__file__).parents[2]


async def test_the_readmes_own_strategy_runs_in_the_quickstart(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:python|yaml)\n# ((?:strategies|traders)/\S+)\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in blocks] == ["strategies/breakout.py", "traders/breakout.yaml"]
    for name, content in blocks:
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(content)
    manifests = [str(ROOT / "examples" / "quickstart"), str(tmp_path / "traders")]
    wanted, _ = await read_first(manifests, tmp_path / "strategies", print)
    assert ("default", "breakout-btc") in wanted.manifests.traders
