"""The supervisor: one process per Trader, kept as the assignment says."""
