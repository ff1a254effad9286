"""The ``chandlery`` command, and the local runtime behind ``chandlery up``."""
