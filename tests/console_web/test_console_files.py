"""The console's files: shipped whole, loaded from nowhere else, and never turning data into HTML."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "console" / "chandlery" / "console" / "static"
MODULES = sorted(STATIC.glob("js/**/*.js"))
IMPORT = re.compile(r"""(?:from|import)\s+"([^"]+)";""")


def test_every_file_is_in_the_package() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    files = [path for path in STATIC.rglob("*") if path.is_file()]
    assert len(files) > 30
    assert [path.name for path in files if not any(fnmatch.fnmatch(path.name, one) for one in patterns)] == []


def test_the_page_has_no_script_style_or_handler_inside() -> None:
    page = (STATIC / "index.html").read_text()
    assert re.findall(r"<script(?![^>]*\bsrc=)", page) == []
    assert "<style" not in page
    assert re.findall(r"""\s(?:on\w+|style)=""", page) == []
    assert re.findall(r"""(?:src|href)="(?:https?:)?//""", page) == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(STATIC)))
def test_a_module_imports_only_files_that_are_here_and_makes_no_html(module: Path) -> None:
    code = module.read_text()
    for target in IMPORT.findall(code):
        assert target.startswith("."), target
        assert (module.parent / target).is_file(), target
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "srcdoc"):
        assert word not in code, word
    assert len(code.splitlines()) < 500


def test_the_vendored_charts_come_with_their_licence_and_notice() -> None:
    vendored = (STATIC / "vendor" / "lightweight-charts.standalone.production.mjs").read_text()
    version = re.search(r"Lightweight Charts™ v([\d.]+)", vendored)
    assert version is not None
    assert "Apache License" in (STATIC / "vendor" / "lightweight-charts.LICENSE.txt").read_text()
    assert (
        "TradingView, Inc. https://www.tradingview.com/"
        in (STATIC / "vendor" / "lightweight-charts.NOTICE.txt").read_text()
    )
    for page in ("docs/licences.md", "NOTICE"):
        assert f"Lightweight Charts {version[1]}" in re.sub(r"\s+", " ", (ROOT / page).read_text()), page
