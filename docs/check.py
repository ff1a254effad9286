"""Checks on the docs: links lead somewhere, the component table is true, changelog fragments are well-formed.

Run as ``make docs``. Prints one line a problem and exits 1 if there is any.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
TABLE_PATH = re.compile(r"`((?:core|stream|workers|operator|console|cli|tests|benchmarks|examples|docs)/[\w./-]*)`")
COMPONENT_ROW = re.compile(
    r"^\| .+ \| (`(?:core|stream|workers|operator|console|cli)/chandlery/[\w./-]+`)[^|]*\|$", re.MULTILINE
)
FRAGMENT = re.compile(r"[a-z0-9-]+\.(added|changed|fixed|removed)\.md")


def pages() -> list[Path]:
    """Every page of the project's documentation."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


def broken_links(page: Path) -> Iterator[str]:
    """Relative links of a page that lead nowhere."""
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target or target.startswith("mailto:"):
            continue
        if not (page.parent / target).exists():
            yield f"{page.relative_to(ROOT)}: link to {target} leads nowhere"


def missing_paths(page: Path) -> Iterator[str]:
    """Files and folders a page names in code style that don't exist."""
    for target in TABLE_PATH.findall(page.read_text(encoding="utf-8")):
        if not (ROOT / target).exists():
            yield f"{page.relative_to(ROOT)}: names {target}, which doesn't exist"


def bad_fragments() -> Iterator[str]:
    """Changelog fragments with another name than ``what-changed.added.md`` or without a sentence."""
    for fragment in sorted((ROOT / "changelog.d").glob("*")):
        if fragment.name == "README.md":
            continue
        if not FRAGMENT.fullmatch(fragment.name):
            yield f"changelog.d/{fragment.name}: name it WHAT.added.md, .changed.md, .fixed.md or .removed.md"
        elif not fragment.read_text(encoding="utf-8").strip().endswith("."):
            yield f"changelog.d/{fragment.name}: write a whole sentence for users"


def unlisted_modules() -> Iterator[str]:
    """Packages that the component table of docs/architecture.md doesn't mention."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for root in ("core", "stream", "workers", "operator", "console", "cli"):
        for module in sorted((ROOT / root / "chandlery" / root).glob("*")):
            if module.name.startswith("_") or module.name == "py.typed" or module.suffix not in ("", ".py"):
                continue
            if module.is_dir() and not any(module.glob("*.py")):
                continue
            name = f"{root}/chandlery/{root}/{module.name}" + ("/" if module.is_dir() else "")
            if f"`{name}`" not in text:
                yield f"docs/architecture.md: the component table lacks {name}"


def doubled_rows(text: str) -> Iterator[str]:
    """What two rows of the component table are about: one of them says less, or is forgotten at the next change."""
    listed = COMPONENT_ROW.findall(text)
    for name in sorted({name for name in listed if listed.count(name) > 1}):
        yield f"docs/architecture.md: the component table has {name} {listed.count(name)} times"


def main() -> int:
    """Print every problem; 1 if there is any."""
    problems = [line for page in pages() for check in (broken_links, missing_paths) for line in check(page)]
    architecture = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    problems += [*bad_fragments(), *unlisted_modules(), *doubled_rows(architecture)]
    for line in problems:
        print(line)
    print(f"docs: {len(problems)} problem{'s' if len(problems) != 1 else ''} in {len(pages())} pages")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
