"""Fuzzing what reads segments, rings and window messages: ``make fuzz MINUTES=10``.

Two fuzzers at once, one a core: libFuzzer with ASan and UBSan over protocol.h (``target.c``), and one in Python over
all that opens such files by way of the extension. Both find an error that isn't the one promised, a crash, a read
outside the file, an operation without end. What they find is kept as a file, with the command that shows it again.
"""
