"""What a message in fragments may cost, and how many fragments it may have."""

import tracemalloc

import pytest

from tests.server.clients import PING, TEXT, pass_time
from tests.server.websocket_streams import frame

BEGINNING, CONTINUATION, END = 0x01, 0x00, 0x80
MAX_OFFSET = 65_536


@pytest.fixture
def memory():
    """``memory()``: bytes that are kept since the test began."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    yield lambda: tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()


def test_joins_fragments_to_one_message(port):
    client = port.open()
    client.send_bytes(frame(BEGINNING, b'{"type":"pi') + frame(CONTINUATION, b"") + frame(CONTINUATION, b'ng",'))
    client.send_bytes(frame(PING, b"between") + frame(END, b'"id":1}'))
    pong, answer = client.frames()
    assert pong[1] == b"between"
    assert answer == (TEXT, b'{"type":"pong","id":1}')
    client.send({"type": "ping", "id": 2})
    assert client.received() == [{"type": "pong", "id": 2}]
    assert not {"_joined", "_fragments"} & client.server.__dict__.keys()


def test_empty_fragments_take_no_memory(port, memory):
    client = port.open()
    client.send_bytes(frame(BEGINNING, b""))
    before = memory()
    for _ in range(60):
        client.send_bytes(frame(CONTINUATION, b"") * 1_000)
    assert memory() - before < 5_000
    client.send_bytes(frame(END, b'{"type":"ping","id":1}'))
    assert client.received() == [{"type": "pong", "id": 1}]


def test_closes_with_1009_after_too_many_fragments(port):
    client = port.open()
    client.send_bytes(frame(BEGINNING, b""))
    for _ in range(65):
        client.send_bytes(frame(CONTINUATION, b"") * 1_000)
    assert client.frames() == []
    client.send_bytes(frame(CONTINUATION, b"") * 1_000)
    client.is_closed_with(1009)
    client.send_bytes(frame(CONTINUATION, b"") * 1_000)
    assert client.frames() == []


@pytest.mark.parametrize("head", [frame(BEGINNING, b""), b"\x82\xff" + (65_536).to_bytes(8) + bytes(4)])
def test_message_in_tiny_pieces_takes_the_memory_of_its_length(port, memory, head):
    """In fragments, or as one frame in small segments."""
    client = port.open()
    client.send_bytes(head)
    before = memory()
    for _ in range(10_000):
        client.send_bytes(frame(CONTINUATION, b"ab") if head[0] == BEGINNING else b"ab")
    assert memory() - before < 30_000


def test_closes_with_1009_if_fragments_exceed_the_message_limit(port):
    client = port.open()
    client.send_bytes(frame(BEGINNING, b"x" * MAX_OFFSET))
    assert client.frames() == []
    client.send_bytes(frame(CONTINUATION, b"x"))
    client.is_closed_with(1009)


def test_drops_client_that_does_not_answer_the_close_frame(port, clock):
    client = port.open()
    client.send_bytes(frame(BEGINNING, b"x" * MAX_OFFSET) + frame(CONTINUATION, b"x"))
    client.is_closed_with(1009)
    pass_time(clock, 20)
    assert client.transport.is_closed
