"""Streams that verify what a server delivers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.bench.clients import (
    CountedStream,
    DeliveryError,
    ExpectedData,
    ServerPing,
    SizedStream,
    Stream,
    payloads,
)

PIECES = [b"MSG a %d x\n" % number for number in range(1, 30)]
MARKED = [b"<%b>" % payload for payload in payloads(30, 20)]
PING = ServerPing(b"PING\r\n", b"PONG\r\n")

cuts = st.lists(st.integers(1, 40), max_size=40)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [chunk for chunk in [*chunks, data] if chunk]


@given(cuts)
def test_accepts_predicted_bytes_in_any_chunks(sizes: list[int]) -> None:
    stream = Stream(None, ExpectedData(PIECES, is_predictable=True), "reader", None)  # type: ignore[arg-type]
    arrived: list[int] = []
    for chunk in cut(b"".join(PIECES), sizes):
        assert not stream.is_complete
        stream.feed(chunk)
        arrived += stream.arrived()
    assert stream.is_complete
    assert arrived == list(range(len(PIECES)))


@given(cuts, st.integers(0, 250))
def test_detects_one_wrong_byte_in_any_chunks(sizes: list[int], place: int) -> None:
    data = bytearray(b"".join(PIECES))
    data[place] ^= 1
    stream = Stream(None, ExpectedData(PIECES, is_predictable=True), "reader", None)  # type: ignore[arg-type]
    with pytest.raises(DeliveryError, match="reader: after .*, received"):
        for chunk in cut(bytes(data), sizes):
            stream.feed(chunk)


def test_detects_surplus_bytes() -> None:
    stream = Stream(None, ExpectedData(PIECES, is_predictable=True), "reader", None)  # type: ignore[arg-type]
    stream.feed(b"".join(PIECES))
    with pytest.raises(DeliveryError, match="100.0%"):
        stream.feed(PIECES[-1])


@given(cuts, st.integers(0, 30))
def test_replies_to_keep_alive_in_any_chunks(sizes: list[int], place: int) -> None:
    data = b"".join([*PIECES[:place], PING.message, *PIECES[place:]])
    answers: list[bytes] = []
    connection: Any = type("Connection", (), {"send": lambda self, data: answers.append(data)})()
    stream = Stream(connection, ExpectedData(PIECES, is_predictable=True), "reader", PING)
    for chunk in cut(data, sizes):
        stream.feed(chunk)
    assert stream.is_complete
    assert answers == [PING.reply]


@given(cuts, st.booleans())
def test_counts_each_mark_once_in_any_chunks(sizes: list[int], verifies_order: bool) -> None:
    stream = CountedStream(None, ExpectedData(MARKED, False), "reader", None, verifies_order)  # type: ignore[arg-type]
    for chunk in cut(b"".join(MARKED), sizes):
        stream.feed(chunk)
    assert stream.is_complete


@given(cuts, st.booleans())
def test_detects_surplus_delivery(sizes: list[int], verifies_order: bool) -> None:
    stream = CountedStream(None, ExpectedData(MARKED, False), "reader", None, verifies_order)  # type: ignore[arg-type]
    with pytest.raises(DeliveryError):
        for chunk in cut(b"".join([*MARKED, MARKED[-1]]), sizes):
            stream.feed(chunk)


@given(cuts, st.integers(0, 28))
def test_detects_loss_and_changed_order(sizes: list[int], place: int) -> None:
    for wrong in (
        [*MARKED[:place], *MARKED[place + 1 :]],
        [*MARKED[:place], MARKED[place + 1], MARKED[place], *MARKED[place + 2 :]],
    ):
        stream = CountedStream(None, ExpectedData(MARKED, False), "reader", None, verifies_order=True)  # type: ignore[arg-type]
        with pytest.raises(DeliveryError, match="expected event number .*, received"):
            for chunk in cut(b"".join(wrong), sizes):
                stream.feed(chunk)


def test_verifies_order_within_each_channel() -> None:
    """Of three channels, the subscriber has the first and the third."""
    mine = [MARKED[number] for number in (0, 3, 2, 6, 5, 8)]
    stream = CountedStream(None, ExpectedData(mine, False), "reader", None, True, channels=3)  # type: ignore[arg-type]
    stream.feed(b"".join(mine))
    assert stream.is_complete
    stream = CountedStream(None, ExpectedData(mine, False), "reader", None, True, channels=3)  # type: ignore[arg-type]
    with pytest.raises(DeliveryError, match="expected event number 3, received 6"):
        stream.feed(b"".join([MARKED[0], MARKED[6]]))


@given(cuts)
def test_counts_replies_by_their_mark(sizes: list[int]) -> None:
    replies = b"".join(b"OK %d\n" % number for number in range(1, 200, 7))
    count = replies.count(b"OK ")
    stream = CountedStream(None, ExpectedData([b""] * count, False), "publisher", None, mark=b"OK ")  # type: ignore[arg-type]
    for chunk in cut(replies, sizes):
        stream.feed(chunk)
    assert stream.is_complete


def test_closed_connection_is_an_error(wire: Any) -> None:
    stream = Stream(wire(PIECES[0], b""), ExpectedData(PIECES, is_predictable=True), "reader", None)
    stream.receive()
    with pytest.raises(DeliveryError, match="the server closed after 3.* of 29"):
        stream.receive()


def test_empty_socket_is_not_an_error(wire: Any) -> None:
    stream = Stream(wire(), ExpectedData(PIECES, is_predictable=True), "reader", None)
    stream.receive()
    assert stream.part() == 0


def test_sized_stream_counts_bytes_only() -> None:
    stream = SizedStream(None, ExpectedData(PIECES, is_predictable=True), "reader", None)  # type: ignore[arg-type]
    size = sum(map(len, PIECES))
    stream.feed(b"?" * (size - 1))
    assert not stream.is_complete
    stream.feed(b"?")
    assert stream.is_complete and stream.part() == 1.0
    with pytest.raises(DeliveryError, match=f"reader: expected {size:,} bytes, received {size + 1:,}"):
        stream.feed(b"?")
