"""Saving states: outputs first, then states, then the position. Nothing earlier waits for anything later.

1. Under the apply lock, take the bytes of every changed state and of the manifest, and the list of outputs
   that aren't acknowledged. Records are applied again from here on.
2. Wait until those outputs are acknowledged: no state is saved whose outputs could still be lost.
3. Append the states to the changelog, wait for their acknowledgement.
4. Append the manifest, which has the next input offset; wait. Only now a restart begins after this point.
5. Commit the offsets to the group, for people's tools.

A crash between 3 and 4 leaves states newer than the manifest: their symbols skip what they have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from chandlery.stream.aggregator.outputs import Outputs
from chandlery.stream.aggregator.partition import PartitionState, Snapshot


class Checkpoints:
    """Takes checkpoints, one at a time.

    Attributes:
        taken: how many were written.
        committed: next input offset of the last checkpoint, by partition.
    """

    def __init__(
        self,
        outputs: Outputs,
        changelog: str,
        applying: asyncio.Lock,
        commit: Callable[[dict[int, int]], Awaitable[object]],
    ) -> None:
        self.taken = 0
        self.committed: dict[int, int] = {}
        self._outputs = outputs
        self._changelog = changelog
        self._applying = applying
        self._commit = commit
        self._one_at_a_time = asyncio.Lock()

    async def take(self, partitions: Mapping[int, PartitionState], *, commit: bool = True) -> None:
        """Save what changed in ``partitions``; returns when it is safe.

        Args:
            commit: False while a rebalance is under way: the group's coordinator is busy then.

        Raises:
            UnavailableError: Kafka didn't take an output or a state. The process must end: only a restart
                from the last checkpoint makes the lost outputs again.
        """
        # Cut short it is finished all the same: what it has taken as saved, a later one doesn't save again.
        await asyncio.shield(self._take(partitions, commit=commit))

    async def _take(self, partitions: Mapping[int, PartitionState], *, commit: bool) -> None:
        async with self._one_at_a_time:
            async with self._applying:
                snapshots = [(state.partition, state.snapshot()) for state in partitions.values() if state.is_dirty]
                outputs = self._outputs.pending()
            if not snapshots:
                return
            await self._outputs.acknowledged(outputs)
            await self._append([(number, pair) for number, snapshot in snapshots for pair in snapshot.states])
            await self._append([(number, _manifest(snapshot)) for number, snapshot in snapshots])
            self.taken += 1
            offsets = {number: snapshot.next_offset for number, snapshot in snapshots}
            self.committed.update(offsets)
        if commit:
            # Outside the lock: at a rebalance a commit waits for the coordinator, which waits for the last
            # checkpoint of what is revoked.
            await self._commit(offsets)

    async def _append(self, records: list[tuple[int, tuple[bytes, bytes]]]) -> None:
        futures = [await self._outputs.append(self._changelog, number, key, value) for number, (key, value) in records]
        await self._outputs.acknowledged(futures)


def _manifest(snapshot: Snapshot) -> tuple[bytes, bytes]:
    return snapshot.manifest_key, snapshot.manifest
