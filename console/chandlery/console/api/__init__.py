"""The REST API and the console that it serves."""
