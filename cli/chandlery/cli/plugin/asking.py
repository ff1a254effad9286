"""What a worker's own feed tells: asked from within its container, so that neither token nor network is needed."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from chandlery.cli.plugin.kubectl import ForbiddenError, Kubectl
from chandlery.console.cluster import TraderState
from chandlery.core.errors import ChandleryError, UnavailableError

FEED: Final = "feed"
TRADERS: Final = "traders"
_QUERY: Final = ("python", "-m", "chandlery.workers.feed.query")
#: Python starts within 0.1 s in a quiet pod, the feed answers in milliseconds, kubectl takes 0.2 s; a full node.
_ANSWER_S: Final = 20.0
#: The query itself gives up after 60 s.
_TOPIC_S: Final = 75.0


def query(*arguments: str) -> tuple[str, ...]:
    """The command that asks."""
    return (*_QUERY, *arguments)


def ask(kubectl: Kubectl, namespace: str, pod: str, *wanted: str) -> dict[str, Any]:
    """Answers of a worker's API by name, and ``now_ns``, the monotonic clock of its host.

    Raises:
        ForbiddenError: may not run programs in that pod. UnavailableError: no answer.
    """
    return _object(_executed(kubectl, namespace, pod, query("get", *wanted), _ANSWER_S))


def records_of_signal(kubectl: Kubectl, namespace: str, pod: str, prefix: str) -> list[bytes]:
    """Records of the signals topic of a worker's feed whose id begins so; raises as :func:`ask`."""
    text = _executed(kubectl, namespace, pod, query("signal", prefix), _TOPIC_S)
    return [line.encode() for line in text.splitlines() if line]


def pod_of(trader: TraderState) -> tuple[str, str]:
    """(namespace, name) of the pod that runs a Trader.

    Raises:
        UnavailableError: none does.
    """
    if not trader.pod:
        why = ": ".join(part for part in (trader.reason, trader.message) if part)
        raise UnavailableError(f"{trader.trader} runs in no pod ({why or 'nothing is known of it yet'})")
    return trader.pod_namespace, trader.pod


def _executed(kubectl: Kubectl, namespace: str, pod: str, command: tuple[str, ...], timeout_s: float) -> str:
    try:
        return kubectl.execute(namespace, pod, FEED, command, timeout_s)
    except ChandleryError as error:
        raise explained(error, namespace, pod) from error


def explained(error: ChandleryError, namespace: str, pod: str) -> ChandleryError:
    """The same error, with what it means here."""
    said = str(error)
    if isinstance(error, ForbiddenError):
        return ForbiddenError(
            f"looking into {namespace}/{pod} takes the right to get pods and create pods/exec in namespace {namespace} "
            f"(edit has both): {said}"
        )
    if "No module named" in said:
        return UnavailableError(f"{namespace}/{pod}: its image is older than this command and can't be asked")
    if isinstance(error, UnavailableError):
        return UnavailableError(f"{namespace}/{pod}: {said}")
    return UnavailableError(f"{namespace}/{pod} gives no answer: {said}")


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise UnavailableError(f"a worker's answer can't be read: {error}") from error
