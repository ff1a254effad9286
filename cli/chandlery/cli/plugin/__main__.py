"""``python -m chandlery.cli.plugin`` is ``kubectl chandlery``."""

from chandlery.cli.plugin.app import main

main()
