"""One tree of errors, classed by what the caller can do next.

::

    ChandleryError
    ├── InputError            what was given is wrong: mend it, then call again      (exit code 2)
    │   ├── ManifestError     … in a manifest: names file, document, field
    │   └── StrategyError     … in a strategy: unknown name, bad parameter, broken source
    ├── MachineError          this machine lacks something: make room, install, free (exit code 3)
    │   └── SegmentError      the shared-memory segment can't be made, or can't be trusted
    ├── UnavailableError      something outside doesn't answer: retry after a delay  (exit code 4)
    │   ├── LoginError        Kafka isn't trusted or doesn't let us in: mend the Secret, it is retried
    │   └── SpoiledError      somebody changed the segment's file: the feed's next process makes a new one
    └── InvariantError        a defect of ours: stop, keep the evidence, report it   (exit code 70)

Errors of client libraries (aiokafka, aiohttp, OSError …) are translated at the boundary where they
occur, with the cause kept (``raise … from error``).
"""

from __future__ import annotations


class ChandleryError(Exception):
    """Root of every error that Chandlery raises on purpose."""

    exit_code = 1


class InputError(ChandleryError):
    """What was given is wrong. The message names field, value and what would be right."""

    exit_code = 2


class ManifestError(InputError):
    """A manifest is wrong. ``str()`` is one line: ``file (document N) kind/name: field: problem``."""


class StrategyError(InputError):
    """A strategy can't be found, loaded or configured as asked.

    Attributes:
        reason: stable word for a Trader's status, such as ``UnknownStrategy`` or ``BadParameter``.
    """

    def __init__(self, message: str, *, reason: str = "BadStrategy") -> None:
        super().__init__(message)
        self.reason = reason


class MachineError(ChandleryError):
    """This machine lacks something (room, a port, a system call). The message says what to do."""

    exit_code = 3


class SegmentError(MachineError):
    """A segment or signal ring can't be made, or what it holds can't be trusted."""


class UnavailableError(ChandleryError):
    """Something outside (broker, exchange, worker) doesn't answer. Retrying later may help."""

    exit_code = 4


class LoginError(UnavailableError):
    """Kafka can't be proven, or doesn't let us in. Retried: a Secret may come, or be mended, at any time.

    Attributes:
        reason: stable word for a status: ``SecretMissing``, ``BadSecret``, ``KafkaUntrusted`` or ``KafkaUnauthorized``.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class SpoiledError(UnavailableError):
    """The segment's file was truncated, overwritten or removed by somebody else: a feed that starts again makes a new one."""


class InvariantError(ChandleryError):
    """Something that must hold does not: a defect of Chandlery itself."""

    exit_code = 70
