"""Replies and events as lines, and the texts of HELP."""

import pytest
from msgspec.structs import replace

from twistedsock.codecs.line_decoder import LINE_DECODER, USAGE
from twistedsock.codecs.line_encoder import HELP_LINES, LINE_ENCODER, LINE_MESSAGE_ENCODER
from twistedsock.codecs.payload import build_payloads
from twistedsock.errors import Error, ErrorCode
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import (
    BYTES,
    JSON,
    TEXT,
    Batch,
    ChannelInfo,
    Event,
    Lost,
    Member,
    Page,
    Position,
    PresenceChange,
    Reset,
    Tag,
)
from twistedsock.session import commands
from twistedsock.session.encoder import Endpoints, SessionInfo
from twistedsock.testing import read_frames

ENDS = Endpoints(b"127.0.0.1:53122", b"127.0.0.1:8081")
AT = Position(b"5f2c1a", 17)
ANN = Member(b"k3x9", b"ann")
FACTS = SessionInfo(ANN, ENDS, 2, 61, b"0.1.0")


def event(offset: int = 1, payload: bytes = b"21.5", name: bytes = b"message", json: bool = False) -> Event:
    return Event(offset, b"k3x9", b"ann", name, payload, JSON if json else TEXT)


def alone(event: Event) -> Batch:
    """A batch of one event."""
    content = build_payloads((event.payload,), event.kind)
    return Batch(event.offset, event.offset + 1, event.publisher, event.sender, event.name, content)


def test_events_have_times_where_requested() -> None:
    timed = LINE_ENCODER.with_time()
    content = build_payloads((b"21.5", b"21.6"), TEXT)
    batch = Batch(18, 20, b"k3x9", b"ann", b"message", content, 1_795_930_200_123)
    lines = b"MSG a 18 2026-11-29T05:30:00.123Z ann 21.5\nMSG a 19 2026-11-29T05:30:00.123Z ann 21.6\n"
    assert timed.batch(b"a", batch) == lines
    assert b"".join(timed.history(None, b"a", batch.events(), AT)) == lines + b"OK 2\n"
    alarm = Batch(20, 21, b"k3x9", b"ann", b"alarm", build_payloads((b"{",), TEXT), 1_795_930_200_124)
    assert timed.batch(b"a", alarm) == b'EVENT a 20 2026-11-29T05:30:00.124Z ann alarm "{"\n'
    assert timed.with_time() is timed is LINE_ENCODER.with_time()
    assert LINE_ENCODER.batch(b"a", batch) == b"MSG a 18 ann 21.5\nMSG a 19 ann 21.6\n"


REPLIES = {
    "reset": (LINE_ENCODER.reset(b"a", Reset(b"e2", 7, 3, None)), b"RESET a epoch=e2 good=7 offset=3\n"),
    "lost joins and leaves": (
        LINE_ENCODER.presence_lost(b"a"),
        b"NOTICE joins and leaves on a were dropped because you read too slowly: send WHO a\n",
    ),
    "welcome": (
        LINE_ENCODER.welcome(b"k3x9", ENDS),
        b"WELCOME sockbridge/1 id=k3x9 from=127.0.0.1:53122 to=127.0.0.1:8081\n",
    ),
    "welcome by IPv6 and a Unix socket": (
        LINE_ENCODER.welcome(b"k3x9", Endpoints(b"unix:-", b"[::1]:8081")),
        b"WELCOME sockbridge/1 id=k3x9 from=unix:- to=[::1]:8081\n",
    ),
    "PUB": (LINE_ENCODER.published((None,), 18), b"OK 18\n"),
    "several PUB": (LINE_ENCODER.published([None, None, b"x"], 18), b"OK 18\nOK 19\nOK 20\n"),
    "SUB": (LINE_ENCODER.subscribed(None, b"kitchen", AT, None), b"OK kitchen offset=17 epoch=5f2c1a\n"),
    "SUB recovered": (
        LINE_ENCODER.subscribed(None, b"kitchen", AT, True),
        b"OK kitchen offset=17 epoch=5f2c1a recovered=yes\n",
    ),
    "SUB with a position of the former epoch": (
        LINE_ENCODER.subscribed(None, b"kitchen", AT, True, 3, 2),
        b"OK kitchen offset=17 epoch=5f2c1a recovered=yes since=2\n",
    ),
    "SUB not recovered": (
        LINE_ENCODER.subscribed(None, b"kitchen", AT, False),
        b"OK kitchen offset=17 epoch=5f2c1a recovered=no\n",
    ),
    "UNSUB": (LINE_ENCODER.unsubscribed(None, b"kitchen"), b"OK kitchen\n"),
    "AUTH": (LINE_ENCODER.authenticated(None, b"ann", 60), b"OK ann expires=60\n"),
    "AUTH without expiry": (LINE_ENCODER.authenticated(None, b"ann", None), b"OK ann\n"),
    "NICK": (LINE_ENCODER.nicked(None, b"ann"), b"OK ann\n"),
    "PING": (LINE_ENCODER.pong(None, b""), b"PONG\n"),
    "PING with a text": (LINE_ENCODER.pong(None, b" hello\tyou "), b"PONG  hello\tyou \n"),
    "PING with a terminal escape": (LINE_ENCODER.pong(None, "a\x1b[2J\r\x85é".encode()), "PONG a?[2J??é\n".encode()),
    "INFO": (
        LINE_ENCODER.facts(None, FACTS),
        b"OK id=k3x9 nick=ann from=127.0.0.1:53122 to=127.0.0.1:8081 channels=2 uptime=61 version=0.1.0\n",
    ),
    "QUIET": (LINE_ENCODER.done(), b"OK\n"),
    "an error": (
        LINE_ENCODER.refused(None, Error(ErrorCode.BAD_CHANNEL, "no such name")),
        b"ERR bad-channel no such name\n",
    ),
    "an error about what a terminal obeys": (
        LINE_ENCODER.refused(None, Error(ErrorCode.BAD_ARGUMENT, "'a\x1b\x9b\x7f\n'")),
        b"ERR bad-argument 'a????'\n",
    ),
    "LOST": (LINE_ENCODER.lost(b"kitchen", 3, 9), b"LOST kitchen 3 9\n"),
    "NOTICE to a program": (LINE_ENCODER.notice(b"gone", b"forbidden", b"a"), b"NOTICE gone\n"),
    "NOTICE": (LINE_ENCODER.notice(b"going down"), b"NOTICE going down\n"),
    "NOTICE with a line break": (LINE_ENCODER.notice(b"a\nBYE"), b"NOTICE a?BYE\n"),
    "BYE": (LINE_ENCODER.bye(b""), b"BYE\n"),
    "BYE with a text": (LINE_ENCODER.bye(b"see you"), b"BYE see you\n"),
    "JOIN and LEAVE": (
        LINE_ENCODER.presence(b"kitchen", [PresenceChange(ANN, True), PresenceChange(Member(b"p2", b"p2"), False)]),
        b"JOIN kitchen k3x9 ann\nLEAVE kitchen p2 p2\n",
    ),
    "WHO": (b"".join(LINE_ENCODER.members(None, b"kitchen", [ANN])), b"MEMBER kitchen k3x9 ann\nOK 1\n"),
    "LIST": (
        b"".join(LINE_ENCODER.channels(None, Page([ChannelInfo(b"kitchen", 2, Position(b"e1", 17), 3, 100)], 1, None))),
        b"CHANNEL kitchen 2 17\nOK 1 total=1\n",
    ),
    "LIST with more": (b"".join(LINE_ENCODER.channels(None, Page([], 7, b"a"))), b"OK 0 total=7 next=a\n"),
    "WHO without subscribers": (b"".join(LINE_ENCODER.members(None, b"kitchen", [])), b"OK 0\n"),
    "HIST": (
        b"".join(LINE_ENCODER.history(None, b"kitchen", [event(1), event(2, b"smoke", b"alarm")], AT)),
        b"MSG kitchen 1 ann 21.5\nEVENT kitchen 2 ann alarm smoke\nOK 2\n",
    ),
    "HIST of what is partly gone": (
        b"".join(LINE_ENCODER.history(None, b"kitchen", [event(5), Lost(6, 8), event(9)], AT, Lost(2, 4))),
        b"LOST kitchen 2 4\nMSG kitchen 5 ann 21.5\nLOST kitchen 6 8\nMSG kitchen 9 ann 21.5\nOK 2\n",
    ),
    "HIST of nothing": (b"".join(LINE_ENCODER.history(None, b"kitchen", [], AT)), b"OK 0\n"),
}


@pytest.mark.parametrize(("written", "expected"), REPLIES.values(), ids=REPLIES.keys())
def test_encodes_reply(written: bytes, expected: bytes) -> None:
    assert written == expected


EVENTS = {
    "a text": (event(), b"MSG kitchen 1 ann 21.5\n"),
    "a large offset": (event(9007199254740991), b"MSG kitchen 9007199254740991 ann 21.5\n"),
    "an empty text": (event(payload=b""), b"MSG kitchen 1 ann \n"),
    "JSON": (event(payload=b'{"celsius": 21.5}', json=True), b'MSG kitchen 1 ann {"celsius": 21.5}\n'),
    "JSON with line breaks": (event(payload=b'{\r\n"a": 1}', json=True), b'MSG kitchen 1 ann {  "a": 1}\n'),
    "a text that looks like JSON": (event(payload=b"[1]"), b'MSG kitchen 1 ann "[1]"\n'),
    "a text that would be a command": (event(payload=b"x\nQUIT"), b'MSG kitchen 1 ann "x\\nQUIT"\n'),
    "a name of its own": (event(name=b"alarm"), b"EVENT kitchen 1 ann alarm 21.5\n"),
    "a name and JSON": (event(payload=b"[1]", name=b"alarm", json=True), b"EVENT kitchen 1 ann alarm [1]\n"),
}


PHOTO = Event(1, b"k3x9", b"ann", b"message", b"\xff\xd8", BYTES, 1_500)
EVENTS |= {
    "bytes": (PHOTO, b"BIN kitchen 1 ann message /9g=\n"),
    "no bytes": (replace(PHOTO, payload=b""), b"BIN kitchen 1 ann message \n"),
    "a name and bytes": (replace(PHOTO, name=b"photo"), b"BIN kitchen 1 ann photo /9g=\n"),
}


@pytest.mark.parametrize(("event", "line"), EVENTS.values(), ids=EVENTS.keys())
def test_encodes_event(event: Event, line: bytes) -> None:
    """The same line live, in the history and in a message."""
    assert LINE_ENCODER.batch(b"kitchen", alone(event)) == line
    assert b"".join(LINE_ENCODER.history(None, b"kitchen", [event], AT)) == line + b"OK 1\n"
    assert read_frames(LINE_MESSAGE_ENCODER.batch(b"kitchen", alone(event))) == [line.decode().removesuffix("\n")]


def test_bytes_have_times_where_requested() -> None:
    batch = replace(alone(PHOTO), time=PHOTO.time)
    assert LINE_ENCODER.with_time().batch(b"a", batch) == b"BIN a 1 1970-01-01T00:00:01.500Z ann message /9g=\n"


def test_encodes_help() -> None:
    """INFO lines, then the reply."""
    help_text = LINE_ENCODER.help(b"SUB")
    *lines, reply = help_text.decode().splitlines()
    assert lines and reply == "OK"
    assert all(line.startswith("INFO SUB ") for line in lines)


@pytest.mark.parametrize("tag", [b"1", b'"x"'])
def test_ignores_tags(tag: Tag) -> None:
    assert LINE_ENCODER.published((tag,), 1) == LINE_ENCODER.published((None,), 1)
    assert LINE_ENCODER.refused(tag, Error(ErrorCode.LIMIT, "x")) == b"ERR limit x\n"


def test_writes_each_line_as_websocket_message() -> None:
    """Without the line end."""
    assert LINE_MESSAGE_ENCODER.published((None,), 1) == b"\x81\x04OK 1"
    assert read_frames(b"".join(LINE_MESSAGE_ENCODER.history(None, b"a", [event(1), event(2)], AT))) == [
        "MSG a 1 ann 21.5",
        "MSG a 2 ann 21.5",
        "OK 2",
    ]
    help_text = LINE_MESSAGE_ENCODER.help(b"SUB")
    assert all(message.startswith(("INFO ", "OK")) for message in read_frames(help_text))
    changes = [PresenceChange(ANN, True), PresenceChange(ANN, False)]
    assert read_frames(LINE_MESSAGE_ENCODER.presence(b"a", changes)) == ["JOIN a k3x9 ann", "LEAVE a k3x9 ann"]


def test_wait_within_a_history_is_a_piece() -> None:
    wait = Future[int]()
    pieces = LINE_ENCODER.history(None, b"a", [event(1), wait, event(2)], AT)
    assert list(pieces) == [wait, b"MSG a 1 ann 21.5\nMSG a 2 ann 21.5\n", b"OK 2\n"]


def test_long_reply_comes_in_pieces_of_one_chunk() -> None:
    events = [event(offset, b"x" * 1000) for offset in range(1, 301)]
    pieces = list(LINE_ENCODER.history(None, b"a", events, AT))
    assert len(pieces) > 4
    assert all(CHUNK_BYTES <= len(piece) < CHUNK_BYTES + 2000 for piece in pieces[:-2])
    assert b"".join(pieces).count(b"\n") == 301
    members = [Member(b"p%d" % number, b"x" * 30) for number in range(5000)]
    pieces = list(LINE_ENCODER.members(None, b"a", members))
    assert len(pieces) > 3
    assert b"".join(pieces).endswith(b"OK 5000\n")


def test_reply_follows_a_line_that_fills_a_chunk() -> None:
    pieces = list(LINE_ENCODER.history(None, b"a", [event(1, b"x" * CHUNK_BYTES)], AT))
    assert pieces == [b"MSG a 1 ann " + b"x" * CHUNK_BYTES + b"\n", b"OK 1\n"]


def test_help_describes_every_verb() -> None:
    assert set(HELP_LINES) == {b"", *USAGE}


@pytest.mark.parametrize("verb", HELP_LINES, ids=lambda verb: verb.decode() or "all")
def test_each_help_line_begins_with_a_valid_command(verb: bytes) -> None:
    for line in HELP_LINES[verb]:
        example, gap, text = line.partition(b"   ")
        assert gap and text.strip(), line
        command = LINE_DECODER.decode(example)
        assert command is not None and not isinstance(command, commands.InvalidCommand), line
        assert example.split()[0] == verb or not verb


def test_help_lines_fit_a_terminal() -> None:
    """At most 110 columns with INFO in front, ASCII only."""
    for lines in HELP_LINES.values():
        for line in lines:
            assert len(line) <= 105 and line.isascii() and line.decode().isprintable(), line
