"""``python -m chandlery.cli``: the same as ``chandlery``."""

from chandlery.cli.main import main

main()
