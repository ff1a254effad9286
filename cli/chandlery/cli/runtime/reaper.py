"""The last one to leave: ends what is left of a run whose ``chandlery up`` was killed.

Run as a file by a bare interpreter (``python -I -S reaper.py RUN SHM_FOLDER RUN_FILE``), with a pipe from
``chandlery up`` as standard input: a byte there says that everything ended in order; its end without one
that ``up`` was killed. Every process of the run then has SIGTERM from the kernel (PR_SET_PDEATHSIG) and ends
by itself; what doesn't within the grace is killed, and the run's shared memory is removed.
Only the standard library, and little of it: it waits for as long as the run lasts (9 MB, most of it shared).
"""

import os
import signal
import sys
import time

# The longest orderly end of a single process: the broker's controlled shutdown, measured 3 s, doubled for a
# machine under load, and the feed's 10 s for a broker that no longer answers.
_GRACE_S = 16.0
_POLL_S = 0.1


def members(run: str) -> list[int]:
    """Pids of the run's processes, this one left out."""
    wanted = b"CHANDLERY_RUN=" + run.encode()
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as environment:
                if wanted not in environment.read().split(b"\0"):
                    continue
            with open(f"/proc/{entry}/stat", "rb") as stat:
                if stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X"):
                    found.append(int(entry))
        except (OSError, IndexError):
            continue  # gone meanwhile, or another user's
    return found


def end(run: str, number: int) -> None:
    """Send a signal to each of the run's processes."""
    for pid in members(run):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def remove_folder(folder: str) -> None:
    """Remove a folder and all in it; nothing is followed."""
    for path, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(os.path.join(path, name))
        for name in folders:
            os.rmdir(os.path.join(path, name))
    if os.path.isdir(folder):
        os.rmdir(folder)


def main() -> None:
    """Wait for the parent's end, then clean up if it was not in order."""
    run, shm_folder, run_file = sys.argv[1:4]
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.read(0, 1):
        return
    deadline = time.monotonic() + _GRACE_S
    while members(run) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    # Killed processes take a moment to go: until then their files may still be written. One that the kernel
    # can't end (stuck in a device) must not keep this process for ever. On a busy machine one look may take longer than
    # the grace: what is found is killed all the same.
    deadline = time.monotonic() + _GRACE_S
    while members(run):
        end(run, signal.SIGKILL)
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    remove_folder(shm_folder)
    if os.path.exists(run_file):
        os.unlink(run_file)


if __name__ == "__main__":
    main()
