"""Follow signals from a program, and go on where it stopped the last time.

``python follow_signals.py --address http://127.0.0.1:8420 --position position.txt``
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from chandlery.console.client import ApiClient
from chandlery.core.errors import ChandleryError


async def follow(address: str, token: str, trader: str, position_file: Path | None, count: int) -> None:
    """Print signals for ever, or ``count`` of them; keep the position of the last one printed."""
    after = position_file.read_text().strip() if position_file and position_file.exists() else ""
    async with ApiClient(address, token, on_trouble=lambda what: print(f"… {what}", file=sys.stderr)) as api:
        overview = await api.overview()
        print(
            f"{overview.traders_ready} of {overview.traders} Traders Ready, {overview.signals_per_min:.0f} signals a minute"
        )
        for sentence in [*overview.away, *overview.attention]:
            print(f"! {sentence}")
        printed = 0
        async for event in api.follow_signals(after=after, trader=trader):
            if event.lost:
                print(f"! {event.lost} records were lost: nobody read them before they were deleted")
            signal = event.signal
            # A signal comes as it is made, again once the broker's acknowledgement is known, and one that was made while
            # its candle was forming once more when the close confirms or withdraws it.
            if signal.stages:
                latency = f"{signal.frame_to_signal_us or 0:.0f} µs"
                what = f"{signal.action} {signal.symbol} at {signal.price}"
                print(f"{signal.trader}  {what}  {signal.state}  {latency}  {signal.reason}")
                printed += 1
            if position_file:
                keep(position_file, event.position)
            if count and printed >= count:
                return


def keep(file: Path, position: str) -> None:
    """Write the position so that a crash leaves the one before or the new one, never half of it."""
    new = file.with_name(file.name + ".new")
    new.write_text(position)
    os.replace(new, file)


def main() -> int:
    """Read the command line and follow."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--address", default="http://127.0.0.1:8420", help="http://host:port, https://…, unix:/path")
    parser.add_argument("--trader", default="", help="only this Trader's (namespace/name)")
    parser.add_argument("--position", type=Path, help="file that keeps where it stopped")
    parser.add_argument("--count", type=int, default=0, help="end after so many; 0: never")
    options = parser.parse_args()
    token = os.environ.get("CHANDLERY_TOKEN", "")
    try:
        asyncio.run(follow(options.address, token, options.trader, options.position, options.count))
    except KeyboardInterrupt:
        pass
    except ChandleryError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
