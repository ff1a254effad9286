"""The images there are, and what is in each.

All have Python and Chandlery with its C extension; they differ in the packages beside it. ``images/Dockerfile`` has a
stage of the same name for each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
ROOT: Final = FOLDER.parent


@dataclass(frozen=True)
class Role:
    """One image.

    Attributes:
        name: last part of the image's name, ``chandlery-NAME``.
        extras: extras of the distribution whose packages it has; ``requirements/NAME.lock`` locks them.
        entrypoint: what runs when a container names no command. Workloads of the operator name theirs.
        has_kafka: whether Apache Kafka's jars are in it.
    """

    name: str
    extras: tuple[str, ...]
    entrypoint: tuple[str, ...]
    has_kafka: bool = False

    @property
    def lock_file(self) -> Path:
        """The locked packages: each with version and sha256."""
        return FOLDER / "requirements" / f"{self.name}.lock"


ROLES: Final = {
    role.name: role
    for role in (
        Role("operator", ("operator",), ("python", "-m", "chandlery.operator")),
        Role("stream", ("stream",), ("python",)),
        Role("workers", ("workers",), ("python",)),
        Role("console", ("console",), ("python", "-m", "chandlery.console")),
        Role("cli", ("cli", "console", "operator", "stream", "workers"), ("chandlery",)),
        # For trying out: one node, nothing replicated.
        Role("kafka", ("broker",), ("python", "-m", "chandlery.stream.broker_pod"), has_kafka=True),
    )
}
