"""TA-Lib, loaded without the data-frame libraries that it would pull in where they happen to be installed.

``talib`` wraps its functions for pandas and polars if it can import them: 80 MB and 0.4 s that no trader
needs. Here it is told that they aren't there, unless the process has them loaded already.
"""

from __future__ import annotations

import sys
from types import ModuleType

_FRAME_LIBRARIES = ("pandas", "polars")


def _load() -> ModuleType:
    hidden = [name for name in _FRAME_LIBRARIES if name not in sys.modules]
    # None in sys.modules makes an import fail as if the library weren't installed.
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        import talib as loaded
    finally:
        for name in hidden:
            del sys.modules[name]
    module: ModuleType = loaded
    return module


talib = _load()
