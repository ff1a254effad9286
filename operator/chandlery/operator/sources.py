"""ConfigMaps that hold strategies: watched by their metadata alone, read when a Trader names them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from chandlery.core.manifests import Key
from chandlery.core.resources import Trader
from chandlery.operator.children.naming import Object
from chandlery.operator.kubernetes.api import GoneError, Kind
from chandlery.operator.kubernetes.follow import Followed
from chandlery.operator.kubernetes.kinds import CONFIG_MAP


class Reader(Protocol):
    """What of the API server is needed."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Object: ...


class Sources:
    """Texts of strategies in ConfigMaps.

    Args:
        followed: the ConfigMaps that there are, metadata only.
    """

    def __init__(self, api: Reader, followed: Sequence[Followed]) -> None:
        self._api = api
        self._followed = followed
        self._data: dict[Key, tuple[str, dict[str, str]]] = {}

    async def of(self, traders: Iterable[Trader]) -> dict[Key, dict[str, str]]:
        """Data of every ConfigMap that these Traders name and that is there.

        Raises:
            ChandleryError: one can't be read now.
        """
        found: dict[Key, dict[str, str]] = {}
        for key in {key for trader in traders for key in named_by(trader)}:
            version = self._version(key)
            if not version:
                self._data.pop(key, None)
                continue
            known = self._data.get(key)
            if known is None or known[0] != version:
                known = await self._read(key)
            if known is not None:
                found[key] = known[1]
        return found

    async def _read(self, key: Key) -> tuple[str, dict[str, str]] | None:
        try:
            item = await self._api.get(CONFIG_MAP, *key)
        except GoneError:
            return None
        read = self._data[key] = (item["metadata"]["resourceVersion"], item.get("data") or {})
        return read

    def _version(self, key: Key) -> str:
        for followed in self._followed:
            item = followed.objects.get(key)
            if item is not None:
                return str(item["metadata"]["resourceVersion"])
        return ""


def named_by(trader: Trader) -> Iterator[Key]:
    """The ConfigMap that a Trader's strategy comes from, if it does."""
    source = trader.spec.strategy.source
    if source is not None:
        yield trader.namespace, source.config_map_ref.name
