"""Planted faults: small mistakes in the server that the simulation must find.

A fault is a function that gets ``patch``, which replaces an attribute of the product until the run ends. Its docstring
says what is wrong. ``tests.simulation.planted`` has all of them.
"""

import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

from tests.simulation.run import MakeBackplanes, Run, make_store
from tests.simulation.world import Violation

MAX_RUNS = 150
"""A fault that so many runs do not find counts as missed: they take some seconds."""

Patch = Callable[[Any, str, Any], None]

Plant = Callable[[Patch], None]


class Fault(NamedTuple):
    """``make_backplanes`` and ``steps`` are those of ``Run``."""

    plant: Plant
    make_backplanes: MakeBackplanes
    steps: int | None


PLANTED: dict[str, Fault] = {}


def plant(fault: Plant) -> Plant:
    """A fault that does not depend on the backplane."""
    return planted_in(make_store)(fault)


def planted_in(make_backplanes: MakeBackplanes, steps: int | None = None) -> Callable[[Plant], Plant]:
    """A fault of one backplane. Fewer ``steps`` find it sooner."""

    def plant(fault: Plant) -> Plant:
        PLANTED[fault.__name__.replace("_", "-")] = Fault(fault, make_backplanes, steps)
        return fault

    return plant


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The server has this fault."""
    with ExitStack() as stack:

        def patch(owner: Any, attribute: str, value: Any) -> None:
            stack.enter_context(mock.patch.object(owner, attribute, value))

        PLANTED[name].plant(patch)
        yield


def make_run(seed: int, name: str | None) -> Run:
    """A run that can find this fault."""
    fault = PLANTED[name] if name else None
    return Run(seed) if fault is None else Run(seed, fault.make_backplanes, fault.steps)


def find(name: str, seed: int) -> tuple[int, Exception] | None:
    """Search a fault in the runs with the seeds from ``seed`` on. Returns the number of runs that this took, and what
    was found: a violation, or an exception in the server."""
    for number in range(1, MAX_RUNS + 1):
        try:
            with planted(name):
                make_run(seed + number - 1, name).simulate()
        except Violation as violation:
            return number, violation
        except Exception as error:
            if "/simulation/planted" in traceback.extract_tb(error.__traceback__)[-1].filename:
                raise  # the patch does not fit the server
            return number, error
    return None


def every(count: int) -> Callable[[], bool]:
    """A function that returns True in each ``count``-th call."""
    calls = 0

    def is_due() -> bool:
        nonlocal calls
        calls += 1
        return calls % count == 0

    return is_due
