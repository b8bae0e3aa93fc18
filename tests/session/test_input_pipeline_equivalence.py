"""Messages and events that are handled together have the same result as those that are handled one by one."""

from typing import Any
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.grammars import CUTS, LINES, MESSAGES, RUN
from tests.fuzz.properties import cut
from tests.session.clients import settle
from tests.socketio_clients import SocketIOClient
from twistedsock.codecs import json_decoder, line_decoder
from twistedsock.codecs.line_decoder import LINE_DECODER, Line, LineSplitter
from twistedsock.pubsub.values import Publication
from twistedsock.session.commands import Publish
from twistedsock.session.input_pipeline import Decoder
from twistedsock.testing import FakeServer

MAX_LINE_BYTES = 512
"""The smallest maximum that ``--max-line-bytes`` accepts."""


class OneByOne:
    """A decoder whose publications are not joined."""

    def __init__(self, decoder: Decoder) -> None:
        self.decode = decoder.decode
        self.find_tag = decoder.find_tag

    def decode_alike(self, first: Publish, messages: object, position: int) -> None:
        return None


class Spoken:
    """All bytes that the server sends to one publisher and to subscribers of every protocol."""

    def __init__(self, json_publisher: bool, codec: Decoder, late: bool, room: int | None) -> None:
        self.server = FakeServer(late, max_line_bytes=MAX_LINE_BYTES)
        self.readers = [self.server.line_client(), self.server.message_client(), self.server.json_client()]
        subscribe: list[Any] = ["SUB a", "SUB a", {"type": "subscribe", "channel": "a"}]
        for reader, command in zip(self.readers, subscribe, strict=True):
            reader.send(command)
        settle(self.server)
        self.publisher = self.server.json_client() if json_publisher else self.server.line_client()
        self.publisher.pipeline.decoder = codec
        if room is not None:
            self.publisher.outlet.room = room

    def receive(self, items: list[Line]) -> None:
        self.publisher.pipeline.submit(items)

    def said(self) -> list[bytes]:
        for _ in range(50):
            self.publisher.outlet.drain()
            settle(self.server)
        assert self.publisher.exceptions == 0 and not self.publisher.paused
        return [self.publisher.received_bytes(), *(reader.received_bytes() for reader in self.readers)]


RUNS = st.lists(RUN.map(lambda run: run + b"\n"), max_size=3).map(b"".join)


@settings(deadline=None, max_examples=2 * settings().max_examples)
@given(stream=LINES | RUNS, cuts=CUTS, late=st.booleans(), room=st.sampled_from([None, None, 0, 30]))
@example(b"PUB \xff x\nPUB \xff y\n", [], False, None)
@example(b"PUB a \nPUB a \nPUB a \n\x04\n", [7], False, 0)
@example(b"PUB a \xc3\nPUB a \xa9\n", [], False, None)
@example(b"PUB a [1,\nPUB a 2]\n", [], False, None)
@example(b"PUB a x\r\nPUB a y\r\n", [], False, None)
@example(b"PUB a x\nPUB a " + b"y" * MAX_LINE_BYTES + b"\n", [], False, None)
@example(b"PUB a %b\nPUB a %b\n" % (b"x" * (MAX_LINE_BYTES - 6), b"y" * (MAX_LINE_BYTES - 5)), [], False, None)
@example(b'PUB a x\nPUB a "\\ud83d"\nPUB a y\nPUB a {}\nPUB a ["\\ud83d"]\nPUB a {}\n', [], False, None)
@example(b'PUB a {"a":\n1}\nPUB a {}\n', [], False, None)
@example(b"PING\nPUB a x\nPUB a y\nPING\nPUB a z\nPUB a z\nQUIT\n", [5, 21, 26], False, 0)
@example(b"PING\nPUB a 1\nPUB a 2\nPUB a 3\nPUB a 4\nPING\n", [5, 21], False, 0)
def test_lines_in_one_read_have_the_same_result_as_one_by_one(
    stream: bytes, cuts: list[int], late: bool, room: int | None
) -> None:
    def result(decoder: Decoder) -> list[bytes]:
        spoken, lines = Spoken(False, decoder, late, room), LineSplitter(MAX_LINE_BYTES)
        for piece in cut(stream, cuts):
            spoken.receive(lines.feed(piece))
        return spoken.said()

    as_blocks = result(LINE_DECODER)
    with patch.object(line_decoder, "decode_block", return_value=None):
        joined = result(LINE_DECODER)
        with patch.object(Publication, "can_join", return_value=False):
            alone = result(OneByOne(LINE_DECODER))
    assert as_blocks == alone
    assert joined == alone


PLAIN = b'{"type":"publish","channel":"a","data":"%b"}'
ODD = [
    b'{"type":"ping"}',
    b"{",
    b"",
    PLAIN % b"\x01",
    PLAIN % b"\\q",
    PLAIN % b"\\u0041",
    PLAIN % b'x","data":"y',
    PLAIN % b'x","channel":"b',
    PLAIN % b'x"}{"',
    PLAIN % b"x" + b" ",
    (PLAIN % b"")[:-2] + b"}",
    PLAIN % b"x" + b"\n" + PLAIN % b"y",
    b'{"type":"publish","channel":"a","data":[1]}',
    b'{"type":"publish","channel":"a","data":"x"\n}',
    b'{"type":"publish","channel":"a","data":"x"\n}\n{"type":"publish","channel":"a","data":"y"',
    b"}",
]


@settings(deadline=None, max_examples=2 * settings().max_examples)
@given(MESSAGES | st.lists(st.sampled_from(ODD) | st.sampled_from([b"1", b"22"]).map(lambda text: PLAIN % text)))
@example([ODD[-3], *ODD[-2:]])
@example([PLAIN % b"x", (PLAIN % b"")[:-2] + b"}"])
@example([PLAIN % b"x", PLAIN % b'y","channel":"b'])
@example([PLAIN % b'x\\"y', PLAIN % b'z"y'])
@example([PLAIN.replace(b"}", b',"id":1}') % b"x"] * 3)
@example([PLAIN % b"%d" % number for number in range(100)])
@example([PLAIN % b"1", *[PLAIN % b"2"] * 31, PLAIN % b"3"])
@example([PLAIN % b"1", *[PLAIN % b"2"] * 32])
def test_messages_in_one_read_have_the_same_result_as_one_by_one(messages: list[bytes]) -> None:
    """The decoder skips the parsing of messages that differ from the first in their text only."""
    together = Spoken(True, json_decoder, False, None)
    together.receive([*messages])
    alone = Spoken(True, OneByOne(json_decoder), False, None)
    with patch.object(Publication, "can_join", return_value=False):
        alone.receive([*messages])
        expected = alone.said()
    assert together.said() == expected


TEXT_EVENT = '2/a,["message","%s"]'
ODD_PACKETS = [
    "2/a,[]",
    "2/a,7" + TEXT_EVENT[4:] % "x",
    "2/a,8" + TEXT_EVENT[4:] % "x",
    "2/a,009" + TEXT_EVENT[4:] % "x",
    "2/a,7" + TEXT_EVENT[4:] % ("x" * (MAX_LINE_BYTES + 1)),
    "2/a?b,7" + TEXT_EVENT[4:] % "x",
    "2/b,7" + TEXT_EVENT[4:] % "x",
    "2/a,1234567890123456" + TEXT_EVENT[4:] % "x",
    "2/b," + TEXT_EVENT[4:] % "x",
    '27["publish","a","x"]',
    '28["publish","a","y"]',
    TEXT_EVENT % "",
    TEXT_EVENT % "\\u0041",
    TEXT_EVENT % "é",
    TEXT_EVENT % 'x","y',
    TEXT_EVENT % 'x"]["y',
    TEXT_EVENT % "\x01",
    TEXT_EVENT % ("x" * MAX_LINE_BYTES),
    TEXT_EVENT % ("x" * (MAX_LINE_BYTES + 1)),
    TEXT_EVENT % "x" + "\n" + TEXT_EVENT % "y",
    '2/a,["message"]',
    '2/a,["message","x" ]',
    '2/a,["message",["x"]',
    '2/a,["message","x","y"]',
    '2/a,["other","x"]',
    '2["publish","a","x"]',
    '2["publish","a","y"]',
    '2["publish","a","x",{"key":"1"}]',
    '2["publish","b","x"]',
    '2["x"]',
    "1/a,",
    "3/a,1[]",
    "\x00",
]
PACKETS = st.sampled_from(ODD_PACKETS) | st.sampled_from(["1", "22"]).map(lambda text: TEXT_EVENT % text)


@settings(deadline=None, max_examples=2 * settings().max_examples)
@given(packets=st.lists(PACKETS), late=st.booleans())
@example([TEXT_EVENT % number for number in range(100)], False)
@example(
    [TEXT_EVENT % "1", *[TEXT_EVENT % "2"] * 31, TEXT_EVENT % ("3" * (MAX_LINE_BYTES + 1)), TEXT_EVENT % "4"], True
)
@example([TEXT_EVENT % "1", *[TEXT_EVENT % "2"] * 32, "1/a,", TEXT_EVENT % "3"], False)
@example(['2["publish","a","x"]'] * 3, False)
@example(['2/a,["x","y"]', '2/a,["x","y","z"]'], False)
@example(['2/a,["message","x" ]'] * 2, False)
@example([f"2/a,{number}{TEXT_EVENT[4:] % number}" for number in range(100)], False)
@example([f'2{number}["publish","a","{number}"]' for number in range(40)], True)
@example([*[ODD_PACKETS[1]] * 33, *ODD_PACKETS[3:8], ODD_PACKETS[2], ODD_PACKETS[5]], False)
@example([ODD_PACKETS[1], *[ODD_PACKETS[2]] * 31, ODD_PACKETS[4], ODD_PACKETS[1]], True)
@example([ODD_PACKETS[1], ODD_PACKETS[6]], False)
@example([ODD_PACKETS[1], ODD_PACKETS[7]], False)
@example([ODD_PACKETS[1], ODD_PACKETS[2], '2/a,["message","z"]'], False)
@example(["2/a,8" + TEXT_EVENT[4:] % "x"] * 3, False)
def test_socketio_packets_in_one_read_have_the_same_result_as_one_by_one(packets: list[str], late: bool) -> None:
    def result(joins: bool) -> list[bytes]:
        server = FakeServer(late, max_message_bytes=MAX_LINE_BYTES)
        reader, publisher = server.line_client(), SocketIOClient(server)
        reader.send("SUB a")
        publisher.send("0/a,", "0")
        settle(server)
        if not joins:
            publisher.pipeline.decoder = OneByOne(publisher.decoder)
        publisher.send(*packets)
        settle(server)
        assert publisher.exceptions == 0
        return [publisher.received_bytes(), reader.received_bytes()]

    together = result(True)
    with patch.object(Publication, "can_join", return_value=False):
        assert together == result(False)
