"""The ``chandlery`` command's entry point."""

from __future__ import annotations

import sys

from chandlery.core.errors import MachineError


def main() -> None:
    """Entry point of ``chandlery``; see ``endings`` for the exit codes."""
    try:
        from chandlery.cli.endings import run
        from chandlery.cli.verbs import app
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "chandlery":
            raise
        # Installed with another extra, such as the kubectl plugin's alone.
        sys.stderr.write(f"chandlery: the package {error.name} is missing: pip install 'chandlery[all]' brings it\n")
        raise SystemExit(MachineError.exit_code) from None
    run(app, "chandlery")
