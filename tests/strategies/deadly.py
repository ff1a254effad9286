"""Strategies that end the process that imports them, or never return."""

from __future__ import annotations

from typing import Final

#: How long an import may take in tests that let one hang, seconds: that of all others takes one.
HANG_S: Final = 8.0

#: What they do at import, and what is said of it.
DEADLY: Final = {
    "aborts": ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "was killed by SIGSEGV"),
    "quits": ("import os\nos._exit(3)\n", "ended with exit code 3"),
    "waits": ("import threading\nthreading.Event().wait()\n", f"took more than {HANG_S:g} s"),
}
