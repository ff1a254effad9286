"""The worker's name in the consumer group, kept in its data folder so that a restart is the same member.

Kafka gives a static member its partitions back at once; without it a killed worker's partitions would rest
until its session ends.
"""

from __future__ import annotations

import fcntl
import uuid
from pathlib import Path
from typing import IO

from chandlery.core.errors import MachineError


class Instance:
    """Holds the data folder's lock as long as the process lives.

    Attributes:
        name: the member's ``group.instance.id``.
    """

    def __init__(self, data_dir: str) -> None:
        """Take the folder.

        Raises:
            MachineError: not writable, or another aggregator uses it.
        """
        folder = Path(data_dir)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock: IO[str] = (folder / "instance").open("a+", encoding="ascii")
        except OSError as error:
            raise MachineError(f"{folder}: can't be used as data_dir: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise MachineError(f"{folder} is in use by another aggregator: give each a data_dir of its own") from error
        self._lock.seek(0)
        self.name = self._lock.read().strip()
        if not self.name:
            self.name = f"aggregator-{uuid.uuid4().hex}"
            self._lock.write(self.name)
            self._lock.flush()

    def release(self) -> None:
        """Give the folder up; the process's end does it too."""
        self._lock.close()
