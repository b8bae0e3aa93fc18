"""Nothing that a server delivers wrongly is counted as delivered."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.bench.clients import CountedStream, Expected, Noise, Stream, Wrong, payloads

PIECES = [b"MSG a %d x\n" % number for number in range(1, 30)]
MARKED = [b"<%b>" % payload for payload in payloads(30, 20)]
PING = Noise(b"PING\r\n", b"PONG\r\n")

cuts = st.lists(st.integers(1, 40), max_size=40)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [chunk for chunk in [*chunks, data] if chunk]


@given(cuts)
def test_foretold_bytes_are_taken_at_any_cut(sizes: list[int]) -> None:
    stream = Stream(None, Expected(PIECES, foretold=True), "reader", None)  # type: ignore[arg-type]
    arrived: list[int] = []
    for chunk in cut(b"".join(PIECES), sizes):
        assert not stream.is_complete
        stream.take(chunk)
        arrived += stream.arrived()
    assert stream.is_complete
    assert arrived == list(range(len(PIECES)))


@given(cuts, st.integers(0, 250))
def test_one_wrong_byte_is_found_at_any_cut(sizes: list[int], place: int) -> None:
    data = bytearray(b"".join(PIECES))
    data[place] ^= 1
    stream = Stream(None, Expected(PIECES, foretold=True), "reader", None)  # type: ignore[arg-type]
    with pytest.raises(Wrong, match="reader: after .* came"):
        for chunk in cut(bytes(data), sizes):
            stream.take(chunk)


def test_more_than_foretold_is_wrong() -> None:
    stream = Stream(None, Expected(PIECES, foretold=True), "reader", None)  # type: ignore[arg-type]
    stream.take(b"".join(PIECES))
    with pytest.raises(Wrong, match="100.0%"):
        stream.take(PIECES[-1])


@given(cuts, st.integers(0, 30))
def test_noise_is_answered_and_passed_over_at_any_cut(sizes: list[int], place: int) -> None:
    data = b"".join([*PIECES[:place], PING.said, *PIECES[place:]])
    answers: list[bytes] = []
    connection: Any = type("Connection", (), {"send": lambda self, data: answers.append(data)})()
    stream = Stream(connection, Expected(PIECES, foretold=True), "reader", PING)
    for chunk in cut(data, sizes):
        stream.take(chunk)
    assert stream.is_complete
    assert answers == [PING.answer]


@given(cuts, st.booleans())
def test_marks_are_counted_once_at_any_cut(sizes: list[int], closely: bool) -> None:
    stream = CountedStream(None, Expected(MARKED, False), "reader", None, closely)  # type: ignore[arg-type]
    for chunk in cut(b"".join(MARKED), sizes):
        stream.take(chunk)
    assert stream.is_complete


@given(cuts, st.booleans())
def test_one_delivery_too_many_is_wrong(sizes: list[int], closely: bool) -> None:
    stream = CountedStream(None, Expected(MARKED, False), "reader", None, closely)  # type: ignore[arg-type]
    with pytest.raises(Wrong):
        for chunk in cut(b"".join([*MARKED, MARKED[-1]]), sizes):
            stream.take(chunk)


@given(cuts, st.integers(0, 28))
def test_who_looks_closely_finds_a_loss_and_a_changed_order(sizes: list[int], place: int) -> None:
    for wrong in (
        [*MARKED[:place], *MARKED[place + 1 :]],
        [*MARKED[:place], MARKED[place + 1], MARKED[place], *MARKED[place + 2 :]],
    ):
        stream = CountedStream(None, Expected(MARKED, False), "reader", None, closely=True)  # type: ignore[arg-type]
        with pytest.raises(Wrong, match="where .* was expected"):
            for chunk in cut(b"".join(wrong), sizes):
                stream.take(chunk)


def test_the_order_is_that_within_each_channel() -> None:
    """Three channels in turn; the reader has the first and the third."""
    mine = [MARKED[number] for number in (0, 3, 2, 6, 5, 8)]
    stream = CountedStream(None, Expected(mine, False), "reader", None, True, channels=3)  # type: ignore[arg-type]
    stream.take(b"".join(mine))
    assert stream.is_complete
    stream = CountedStream(None, Expected(mine, False), "reader", None, True, channels=3)  # type: ignore[arg-type]
    with pytest.raises(Wrong, match="number 6 came where 3 was expected"):
        stream.take(b"".join([MARKED[0], MARKED[6]]))


@given(cuts)
def test_replies_are_counted_by_another_mark(sizes: list[int]) -> None:
    replies = b"".join(b"OK %d\n" % number for number in range(1, 200, 7))
    count = replies.count(b"OK ")
    stream = CountedStream(None, Expected([b""] * count, False), "publisher", None, mark=b"OK ")  # type: ignore[arg-type]
    for chunk in cut(replies, sizes):
        stream.take(chunk)
    assert stream.is_complete


def test_a_server_that_closes_is_wrong(wire: Any) -> None:
    stream = Stream(wire(PIECES[0], b""), Expected(PIECES, foretold=True), "reader", None)
    stream.receive()
    with pytest.raises(Wrong, match="the server closed after 3.* of 29"):
        stream.receive()


def test_nothing_to_read_is_not_wrong(wire: Any) -> None:
    stream = Stream(wire(), Expected(PIECES, foretold=True), "reader", None)
    stream.receive()
    assert stream.part() == 0
