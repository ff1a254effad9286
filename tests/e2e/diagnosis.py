"""What to tell first after a failure: containers that ended, and what resources say of themselves. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

Resource = dict[str, Any]

# The API server allows conditions 32 KiB each, and lines this long are still read.
_MESSAGE_LENGTH: Final = 300
_STATUS_LENGTH: Final = 600


@dataclass(frozen=True)
class Ended:
    """A container that was restarted, or that ended otherwise than with its work done.

    Attributes:
        how: restarts, its last end (exit code, reason, times), and what it is now; one line.
        again: whether another runs, or waits, in its place: its log is the previous one.
    """

    pod: str
    container: str
    how: str
    again: bool


def ended_containers(pods: Sequence[Resource]) -> Iterator[Ended]:
    """Containers of these pods (as the API server has them) that ended and were not to."""
    for pod in pods:
        status = pod.get("status", {})
        for one in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
            now, last = (one.get(state, {}).get("terminated") for state in ("state", "lastState"))
            restarts = one.get("restartCount", 0)
            stays = now is not None and now.get("reason") != "Completed"
            if restarts or stays:
                how = f"{restarts} restarts; {_end(now if stays else last)}; now {_state(one)}"
                yield Ended(pod["metadata"]["name"], one["name"], how, again=not stays)


def _end(ended: Resource | None) -> str:
    if ended is None:
        return "nothing is known of its last end"
    by_signal = f" (signal {ended['signal']})" if ended.get("signal") else ""
    message = f", message {ended['message'][-_MESSAGE_LENGTH:]!r}" if ended.get("message") else ""
    return (
        f"ended with exit code {ended.get('exitCode')}{by_signal}, reason {ended.get('reason')}, "
        f"ran from {ended.get('startedAt')} to {ended.get('finishedAt')}{message}"
    )


def _state(container: Resource) -> str:
    for name, state in container.get("state", {}).items():
        return " ".join([name, *(state[key] for key in ("startedAt", "reason") if state.get(key))])
    return "unknown"


def stated(resources: Sequence[Resource]) -> Iterator[str]:
    """Status of each resource in a line, and each of its conditions in another."""
    for resource in resources:
        status, metadata = dict(resource.get("status", {})), resource["metadata"]
        conditions = status.pop("conditions", ())
        rest = json.dumps(status, separators=(",", ":"))[:_STATUS_LENGTH]
        yield f"{resource['kind']} {metadata['name']} generation {metadata.get('generation')} {rest}"
        for one in conditions:
            message = " ".join(one.get("message", "").split())[:_MESSAGE_LENGTH]
            yield f"  {one['type']}={one['status']} {one.get('reason')} since {one.get('lastTransitionTime')} {message}"
