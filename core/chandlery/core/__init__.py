"""The words of Chandlery as types: resources, candles, signals, intervals, symbols, errors, clocks.

Nothing here does network I/O. Every other package may import this one; it imports none of them.
"""
