"""The signals and candles of all feeds, read from their topics and kept in memory for the API.

``open_readers`` makes what the API asks (:mod:`chandlery.console.market`); everything else here is its parts.
"""

from chandlery.console.reading.readers import Readers, open_readers

__all__ = ["Readers", "open_readers"]
