"""The shipped strategies, on TA-Lib. Each works on closed and on forming candles and keeps no state."""
