"""What this process costs, as its machine accounts for it."""

import os
import resource
import sys
import time

_PAGE = os.sysconf("SC_PAGE_SIZE")
_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which getrusage(2) counts memory."""


def memory_bytes(statm: str = "/proc/self/statm") -> int:
    """Resident bytes (proc(5)); where that is not told, the most that they have been."""
    try:
        with open(statm, "rb", buffering=0) as told:
            return int(told.read().split()[1]) * _PAGE
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def cpu_seconds() -> float:
    """Seconds of CPU since the start, the kernel's part included."""
    return time.process_time()
