"""The trader process: one Trader's strategy on its series, single-threaded, with nothing but its files."""
