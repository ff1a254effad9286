"""``chandlery perf compare``: shared memory and pipes over the same feed, measured."""
