"""Which streams a connection to Binance asks for, in its address and by messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

#: Streams named in the connection's address (a longer one is refused by proxies) and in one SUBSCRIBE.
STREAMS_PER_REQUEST: Final = 200


class Subscription:
    """Which streams are asked for, and what the exchange said to that. Pure."""

    def __init__(self, streams: Sequence[str]) -> None:
        self.in_address = list(streams[:STREAMS_PER_REQUEST])
        self._waiting = deque(_in_requests(streams[STREAMS_PER_REQUEST:]))
        self._leaving: deque[list[str]] = deque()
        self._requests: dict[int, list[str]] = {}
        self._numbers = 0

    def change(self, added: Sequence[str], left: Collection[str]) -> None:
        """Ask for more streams, and for others no longer."""
        unasked = {stream for request in self._waiting for stream in request}
        self._waiting = deque(
            kept for request in self._waiting if (kept := [stream for stream in request if stream not in left])
        )
        self._leaving.extend(_in_requests([stream for stream in left if stream not in unasked]))
        self._waiting.extend(_in_requests(added))

    def next_request(self) -> bytes | None:
        """The next message, or None when all has been asked for. One that comes back is left before it is asked for."""
        if not self._leaving and not self._waiting:
            return None
        self._numbers += 1
        if self._leaving:
            return _message("UNSUBSCRIBE", self._leaving.popleft(), self._numbers)
        streams = self._requests[self._numbers] = self._waiting.popleft()
        return _message("SUBSCRIBE", streams, self._numbers)

    def refused(self, request: int | str | None, message: str) -> list[str]:
        """Which streams an error message is about.

        A message that names none, about a request for several, has them asked for one by one.
        """
        asked = self._requests.get(request, []) if isinstance(request, int) else []
        text = message.lower()
        named = [stream for stream in asked or self.in_address if stream in text or stream.partition("@")[0] in text]
        if named or len(asked) <= 1:
            return named or asked
        self._waiting.extend([stream] for stream in asked)
        return []


def _in_requests(streams: Sequence[str]) -> list[list[str]]:
    return [list(streams[at : at + STREAMS_PER_REQUEST]) for at in range(0, len(streams), STREAMS_PER_REQUEST)]


def _message(method: str, streams: list[str], number: int) -> bytes:
    return msgspec.json.encode({"method": method, "params": streams, "id": number})
