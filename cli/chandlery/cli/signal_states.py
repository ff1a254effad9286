"""The states of the signals that the instance lists: it knows what feeds published, the topic what became of it."""

from __future__ import annotations

import time
from typing import Final

import msgspec

from chandlery.cli.signal_topic import SignalTopic
from chandlery.console.model import SignalRow, View
from chandlery.core.errors import InputError, UnavailableError

#: The broker's clock, which records are found by, may be behind the traders' by as much as anybody would bear.
_CLOCKS_APART_MS: Final = 60_000


async def with_states(view: View) -> tuple[list[SignalRow], list[str]]:
    """The view's signals, each with the state of its life; empty where the topic no longer has it, or can't be read.

    Returns:
        Beside them one sentence for each feed whose topic can't be read: it may be starting, or have a Kafka of its own.
    """
    since_ms = min((row.emitted_wall_ms for row in view.signals), default=0) - _CLOCKS_APART_MS
    states: dict[str, str] = {}
    problems: list[str] = []
    for feed in view.feeds if view.signals else ():
        if not feed.signals_topic:
            continue
        try:
            async with SignalTopic(feed.kafka(), feed.signals_topic) as topic:
                collected = await topic.collect(await topic.offsets_at(since_ms))
        except (InputError, UnavailableError) as error:
            problems.append(f"{feed.feed}: {error}")
            continue
        now_ms = time.time_ns() // 1_000_000
        lives = ((row.id, collected.lives.of(row.id, now_ms)) for row in view.signals)
        states.update((identity, life.state) for identity, life in lives if life is not None)
    return [msgspec.structs.replace(row, state=states.get(row.id, row.state)) for row in view.signals], problems
