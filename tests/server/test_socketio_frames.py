"""Frames of Socket.IO clients that the server decodes by itself have the same result as those that Autobahn decodes."""

from unittest.mock import patch

from hypothesis import example
from hypothesis import strategies as st

from tests.fakes import FakeReactor, autobahn_loop
from tests.fuzz.grammars import CUTS, MASKS, frame
from tests.fuzz.properties import cut, holds
from tests.server.clients import BINARY, CLOSE, PONG, TEXT, split_frames
from tests.server.engineio_clients import EnginePort
from twistedsock.codecs.websocket import PlainFrames
from twistedsock.server.socketio import BrokerApplication
from twistedsock.testing import FakeServer

EVENT = b'42/kitchen,["message","x"]'

MESSAGES = st.sampled_from(
    [
        *[EVENT] * 6,
        b'42/kitchen,7["message","y"]',
        '42/kitchen,["message","é"]'.encode(),
        b'42/kitchen,["message",{"a":1}]',
        b'42/kitchen,["message","%b"]' % (b"x" * 300),
        b'42/kitchen,["message","%b"]' % (b"x" * 2_000),
        b'451-/kitchen,["message",{"_placeholder":true,"num":0}]',
        b"3",
    ]
)
ODD = st.sampled_from(
    [b"", b"2", b"4", b"4x", b"1", b"7", b"\x004", b"\x01", b"6", b"41/kitchen,", b"40/other,", b"\xff"]
)
FRAMES = (
    st.builds(frame, st.just(TEXT), MESSAGES, MASKS)
    | st.builds(frame, st.just(TEXT), MESSAGES | ODD, MASKS)
    | st.builds(frame, st.just(BINARY), st.sampled_from([b"", b"\x01\x02", b"4"]), MASKS)
    | st.builds(frame, st.sampled_from([0x89, 0x8A, 0x88, 0x01, 0x80, 0xC1]), st.sampled_from([b"", b"4"]), MASKS)
)

Result = tuple[list[bytes], list[bytes], list[bytes], bytes, int]
"""The acks, the other messages, and the close frames that the client receives, what another client receives, and the
number of sessions at the end."""


def result(pieces: list[bytes], is_plain: bool) -> Result:
    reactor, server = FakeReactor(), FakeServer(max_message_bytes=1_000)
    with autobahn_loop(reactor):
        application = BrokerApplication(server.context, reactor)
        port = EnginePort(reactor, application, application.engine_settings, server)
        socket, reader = port.websocket(), server.line_client()
        socket.send("40/kitchen,")
        reader.send("SUB kitchen")
        feed = PlainFrames.feed if is_plain else lambda frames, data: ([], data)
        with patch.object(PlainFrames, "feed", feed):
            for piece in pieces:
                if not socket.client.transport.is_closed:
                    socket.client.send_bytes(piece)
            port.wait(0)
        sessions = len(server.context.sessions)
        frames = split_frames(socket.client.transport.output())
    kinds: tuple[list[bytes], list[bytes], list[bytes]] = [], [], []
    for first, payload in frames:
        if first != PONG:
            kinds[2 if first == CLOSE else 0 if payload.startswith(b"43") else 1].append(payload)
    return *kinds, reader.received_bytes(), sessions


@holds(
    examples=40,
    found=[
        example([frame(TEXT, EVENT)] * 40, [*range(2_000)]),
        example([frame(TEXT, EVENT), frame(TEXT, b"3"), frame(TEXT, EVENT)], []),
        example([frame(TEXT, b'451-/kitchen,["a",{"_placeholder":true,"num":0}]'), frame(BINARY, b"4")], []),
        example([frame(TEXT, EVENT), frame(BINARY, b"4"), frame(TEXT, EVENT)], []),
        example([frame(TEXT, EVENT), frame(0x89, b""), frame(TEXT, EVENT)], []),
    ],
    frames=st.lists(FRAMES, max_size=8),
    cuts=CUTS,
)
def test_frames(frames: list[bytes], cuts: list[int]) -> None:
    """Frames of a Socket.IO client, cut anywhere, have the same result whether the server decodes plain ones or
    Autobahn decodes all; a client whose session has ended can miss its last messages."""
    pieces = cut(b"".join(frames), cuts)
    ours, stock = result(pieces, True), result(pieces, False)
    has_ended = ours[-1] == 1
    for mine, other in zip(ours[:2], stock[:2], strict=True):
        shorter = min(len(mine), len(other)) if has_ended else None
        assert mine[:shorter] == other[:shorter]
    assert ours[2:] == stock[2:]
