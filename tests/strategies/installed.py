"""Packages with strategies, as pip leaves them."""

from __future__ import annotations

import os
from pathlib import Path


def install(folder: Path, **modules: str) -> str:
    """Write modules, each with an entry point of its own name for its class ``Twice``.

    Returns:
        The PYTHONPATH that has them.
    """
    described = folder / "strategies_of_a_test-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: strategies-of-a-test\nVersion: 1.0\n")
    points = "".join(f"{name} = installed_{name}:Twice\n" for name in modules)
    (described / "entry_points.txt").write_text(f"[chandlery.strategies]\n{points}")
    for name, text in modules.items():
        (folder / f"installed_{name}.py").write_text(text)
    return os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
