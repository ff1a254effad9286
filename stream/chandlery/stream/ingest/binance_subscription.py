"""Which streams a connection to Binance asks for, in its address and by messages, and what the exchange says to that."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

#: Streams named in the connection's address (a longer one is refused by proxies) and in one SUBSCRIBE.
STREAMS_PER_REQUEST: Final = 200
#: The exchange's code for a symbol that it doesn't have.
INVALID_SYMBOL: Final = -1_121
#: An exchange that has too much to do, say, isn't asked for the same again at once. The others' trades flow meanwhile.
ASK_AGAIN_NS: Final = 10_000_000_000
_WORD: Final = re.compile(r"[\w@]+")


class _Request(msgspec.Struct):
    """A message that isn't answered yet.

    Attributes:
        streams: those that it asked for and that are still wanted; none where it leaves some.
        size: of how many streams it speaks. sent_ns: when it was made, monotonic.
    """

    streams: list[str]
    size: int
    sent_ns: int


class Subscription:
    """Which streams are asked for, and what the exchange said to that. Pure.

    Args:
        streams: what to ask for. doubtful: what the exchange refused before; asked for by messages of their own, so that
            another refusal is about them alone.
    """

    def __init__(self, streams: Sequence[str], doubtful: Sequence[str] = ()) -> None:
        self.in_address = list(streams[:STREAMS_PER_REQUEST])
        self._waiting = deque([*_in_requests(streams[STREAMS_PER_REQUEST:]), *_in_requests(doubtful)])
        #: What is asked for again, and from when on.
        self._later: deque[tuple[int, str]] = deque()
        self._leaving: deque[list[str]] = deque()
        self._refused: set[str] = set()
        self._requests: dict[int | str, _Request] = {}
        self._numbers = 0

    def change(self, added: Sequence[str], left: Collection[str]) -> None:
        """Ask for more streams, and for others no longer."""
        unasked = {stream for request in self._waiting for stream in request}
        unasked.update((stream for _, stream in self._later), self._refused)
        self._waiting = deque(kept for request in self._waiting if (kept := _without(request, left)))
        self._later = deque((due_ns, stream) for due_ns, stream in self._later if stream not in left)
        for asked in self._requests.values():
            asked.streams = _without(asked.streams, left)
        self._leaving.extend(_in_requests([stream for stream in left if stream not in unasked]))
        self._waiting.extend(_in_requests(added))
        self._refused.difference_update(left)

    def next_request(self, now_ns: int) -> bytes | None:
        """The next message, or None when all has been asked for. One that comes back is left before it is asked for."""
        while self._later and self._later[0][0] <= now_ns:
            self._waiting.append([self._later.popleft()[1]])
        if not self._leaving and not self._waiting:
            return None
        self._numbers += 1
        if self._leaving:
            streams = self._leaving.popleft()
            self._requests[self._numbers] = _Request([], len(streams), now_ns)
            return _message("UNSUBSCRIBE", streams, self._numbers)
        streams = self._waiting.popleft()
        self._requests[self._numbers] = _Request(streams, len(streams), now_ns)
        return _message("SUBSCRIBE", streams, self._numbers)

    @property
    def unanswered_since_ns(self) -> int | None:
        """When the oldest message was made that the exchange hasn't answered; None: it has answered all."""
        return next((request.sent_ns for request in self._requests.values()), None)

    def answered(self, request: int | str | None) -> list[str]:
        """Which streams an answer grants."""
        asked = self._requests.pop(request, None) if request is not None else None
        return asked.streams if asked is not None else []

    def refused(self, request: int | str | None, code: int | None, message: str, now_ns: int) -> list[str]:
        """Which streams the exchange doesn't have, by an error message; without a request it is about the address.

        What else was asked for with them is asked for again. So is, one by one and later, all that was asked for by a
        message that is refused for another reason.
        """
        if request is None:
            refused = _named(self.in_address, message)
            self._refused.update(refused)
            return refused
        asked = self._requests.pop(request, None)
        if asked is None:
            return []
        refused = _named(asked.streams, message)
        if not refused and code == INVALID_SYMBOL and asked.size == 1:
            refused = asked.streams
        self._refused.update(refused)
        if refused:
            self._waiting.extend(_in_requests(_without(asked.streams, refused)))
        else:
            self._later.extend((now_ns + ASK_AGAIN_NS, stream) for stream in asked.streams)
        return refused


def _named(streams: Sequence[str], message: str) -> list[str]:
    """Those that a message names, by themselves or by their symbol."""
    words = set(_WORD.findall(message.lower()))
    return [stream for stream in streams if stream in words or stream.partition("@")[0] in words]


def _without(streams: Sequence[str], left: Collection[str]) -> list[str]:
    return [stream for stream in streams if stream not in left]


def _in_requests(streams: Sequence[str]) -> list[list[str]]:
    return [list(streams[at : at + STREAMS_PER_REQUEST]) for at in range(0, len(streams), STREAMS_PER_REQUEST)]


def _message(method: str, streams: list[str], number: int) -> bytes:
    return msgspec.json.encode({"method": method, "params": streams, "id": number})
