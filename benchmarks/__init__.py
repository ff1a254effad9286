"""Benchmarks: each a module that runs alone (``python -m benchmarks.NAME [--quick] [--json]``), peers and floor included.

``python -m benchmarks`` (or ``make bench``) runs all and prints one table. A row is
``{name, value, unit, peer, floor, goal, holds}``; figures are for comparing within one run, machines differ.
A ``value`` that a run had nothing to measure for is null.
"""
