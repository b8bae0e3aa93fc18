"""Counts what work costs, which does not depend on the speed of the machine."""

import sys
from collections.abc import Callable
from types import FrameType


def python_calls(work: Callable[[], object]) -> int:
    """The number of calls of the server's own functions, with each value of a generator."""
    calls, before = 0, sys.getprofile()

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        module = frame.f_globals["__name__"]
        calls += event == "call" and module.startswith("twistedsock.") and not module.startswith("twistedsock.testing")

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(before)
    return calls
