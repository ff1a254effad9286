"""Market symbols: ccxt's unified names, with the exchange's own spelling accepted as an alias."""

from __future__ import annotations

import re
from typing import Final

from chandlery.core.errors import InputError

_UNIFIED_PATTERN: Final = "[A-Z0-9]{1,20}/[A-Z0-9]{1,20}(:[A-Z0-9]{1,20}(-[A-Z0-9-]{1,20})?)?"
_UNIFIED: Final = re.compile(_UNIFIED_PATTERN)
_EXCHANGE: Final = re.compile(r"[A-Za-z0-9]{2,40}")
# Longest first, so that BTCFDUSD splits as BTC/FDUSD and not as BTCFD/USD.
_QUOTES: Final = (
    "FDUSD", "USDT", "USDC", "TUSD", "BUSD", "BTC", "ETH", "BNB", "EUR", "TRY", "BRL", "GBP", "JPY", "USD",
)  # fmt: skip
#: Pattern of the resources' schema: unified, or an exchange's spelling that ends in a known quote; any case.
PATTERN: Final = f"(?i)^({_UNIFIED_PATTERN}|[A-Z0-9]{{1,37}}({'|'.join(_QUOTES)}))$"


def parse_symbol(text: str) -> str:
    """Return the unified spelling (``BTC/USDT``, ``BTC/USDT:USDT``) of a symbol.

    Args:
        text: unified, or as the exchange writes it (``BTCUSDT``, ``btcusdt``).

    Raises:
        InputError: neither; the message gives an example.
    """
    upper = text.upper()
    if _UNIFIED.fullmatch(upper):
        return upper
    if _EXCHANGE.fullmatch(text):
        for quote in _QUOTES:
            if upper.endswith(quote) and len(upper) > len(quote):
                return f"{upper[: -len(quote)]}/{quote}"
    raise InputError(f"{text!r} is no symbol: write base/quote, such as BTC/USDT (BTC/USDT:USDT for the perpetual)")


def exchange_symbol(symbol: str) -> str:
    """Binance's spelling of a unified symbol: ``BTC/USDT`` and ``BTC/USDT:USDT`` give ``BTCUSDT``."""
    return symbol.partition(":")[0].replace("/", "")
