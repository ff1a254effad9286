"""Make images as archives, without Docker or a registry.

    python -m images [ROLE…] [--out FOLDER]

Prints one line an image: its name and its archive. Run it with the checkout's virtual environment (``make images``).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from images.making import ImageError, make_images
from images.roles import ROLES, ROOT


def main() -> int:
    """Make the images named on the command line, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m images", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("roles", nargs="*", metavar="ROLE", help=f"of {', '.join(ROLES)}; all when none is named")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "images", help="folder of the archives")
    parser.add_argument("--extras", action="store_true", help="only print each role's extras, as uv takes them")
    arguments = parser.parse_args()
    if arguments.extras:
        for role in ROLES.values():
            print(role.name, *(f"--extra={extra}" for extra in role.extras))
        return 0
    if unknown := set(arguments.roles) - set(ROLES):
        parser.error(f"no such role: {', '.join(sorted(unknown))}")
    try:
        for made in make_images(
            arguments.roles or list(ROLES), arguments.out, lambda line: print(line, file=sys.stderr)
        ):
            print(f"{made.name} {made.archive}")
    except ImageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
