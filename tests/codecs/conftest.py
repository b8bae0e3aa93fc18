"""Bytes cut in all ways in which a network can deliver them."""

from collections.abc import Callable, Iterator

import pytest

Cuts = Callable[[bytes], Iterator[list[bytes]]]


def _cuts(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    yield [data[index : index + 1] for index in range(len(data))]
    for index in range(1, len(data)):
        yield [data[:index], data[index:]]


@pytest.fixture(scope="session")
def cuts() -> Cuts:
    """In one piece, byte by byte, and in two pieces at each position."""
    return _cuts
