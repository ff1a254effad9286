"""Which Chandlery this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """Version of the installed distribution; ``0+source`` when it runs from source without being installed."""
    try:
        return version("chandlery")
    except PackageNotFoundError:
        return "0+source"
