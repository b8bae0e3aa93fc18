"""`sockbridge serve`: starts the server in the foreground."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

SUMMARY = "start the server in the foreground"


def run(options: Sequence[str]) -> int:
    """Replace this process with the server. All arguments are those of ``twistd sockbridge``. Returns only if that is
    impossible."""
    twistd = Path(sys.executable).with_name("twistd")
    os.execv(twistd, [str(twistd), "-n", "--pidfile=", "sockbridge", *options])
    return 1
