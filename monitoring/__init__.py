"""Dashboards and alert rules, generated: ``python -m monitoring`` writes them into the chart."""
