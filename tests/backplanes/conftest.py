"""Rewrite assertions of the contract, so that failures show values, and close the stores of tests."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.backplanes.contract")


@pytest.fixture
def disk_stage() -> Iterator[Callable[..., Any]]:
    """Start a backplane on a directory: ``disk_stage(directory, epochs, **limits)``. The test need not stop it."""
    from tests.backplanes.disk_stage import DiskStage  # not before the contract is registered

    with ExitStack() as stack:
        yield lambda *arguments, **limits: stack.enter_context(DiskStage(*arguments, **limits))
