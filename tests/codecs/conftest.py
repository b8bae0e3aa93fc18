"""What the codec tests share: the same bytes, cut in every way that a network may cut them."""

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
    """Whole, byte by byte, and split in two at each place."""
    return _cuts
