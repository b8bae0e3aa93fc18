"""Lines: found in the input, and decoded to commands."""

import tracemalloc
from time import process_time

import pytest

from twistedsock.codecs.line_decoder import (
    CTRL_D,
    LINE_DECODER,
    USAGE,
    Line,
    LineSplitter,
    decode_block,
    split_messages,
)
from twistedsock.codecs.line_encoder import LINE_ENCODER
from twistedsock.codecs.payload import BAD_BASE64, UNPAIRED_SURROGATE, build_payloads
from twistedsock.errors import ErrorCode
from twistedsock.pubsub.values import BYTES, JSON, TEXT
from twistedsock.session.commands import (
    Auth,
    Command,
    Info,
    InvalidCommand,
    ListChannels,
    Nick,
    Ping,
    Publish,
    Quit,
    ReadHistory,
    Reply,
    Subscribe,
    Unsubscribe,
    Who,
)
from twistedsock.session.history_query import HistoryQuery, Moment

MAX_OFFSET = 9007199254740991
decode = LINE_DECODER.decode


def published(channel: bytes, payload: bytes, json: bool = False, name: bytes = b"message") -> Publish:
    """A publication of one payload."""
    return Publish(channel, build_payloads((payload,), JSON if json else TEXT), name)


def published_bytes(channel: bytes, payload: bytes, name: bytes = b"message") -> Publish:
    return Publish(channel, build_payloads((payload,), BYTES), name)


RIGHT = {
    b"PUB kitchen 21.5": published(b"kitchen", b"21.5", False),
    b"PUB kitchen a  b ": published(b"kitchen", b"a  b ", False),
    b"PUB kitchen  x": published(b"kitchen", b" x", False),
    b"PUB   kitchen x": published(b"kitchen", b"x", False),
    b"  PUB kitchen x": published(b"kitchen", b"x", False),
    b"pub kitchen x": published(b"kitchen", b"x", False),
    b"  pUb   kitchen  x": published(b"kitchen", b" x", False),
    b"PUB a ": published(b"a", b"", False),
    b"pub a ": published(b"a", b"", False),
    b"PUB a  ": published(b"a", b" ", False),
    b'PUB a {"celsius": 21.5}': published(b"a", b'{"celsius": 21.5}', True),
    b'pub a {"celsius": 21.5}': published(b"a", b'{"celsius": 21.5}', True),
    b"PUB a {celsius}": published(b"a", b"{celsius}", False),
    b'PUB a  {"a":1}': published(b"a", b' {"a":1}', False),
    b"PUB a b\rc\td": published(b"a", b"b\rc\td", False),
    "PUB küche 20€".encode(): published("küche".encode(), "20€".encode(), False),
    b"EMIT a alarm smoke": published(b"a", b"smoke", False, b"alarm"),
    b"emit   a   alarm  smoke ": published(b"a", b" smoke ", False, b"alarm"),
    b"EMIT a alarm ": published(b"a", b"", False, b"alarm"),
    b"EMIT a alarm [1]": published(b"a", b"[1]", True, b"alarm"),
    b"PUBBIN kitchen 3q2+7w==": published_bytes(b"kitchen", b"\xde\xad\xbe\xef"),
    b"  pubbin   kitchen /9g=": published_bytes(b"kitchen", b"\xff\xd8"),
    b"PUBBIN a ": published_bytes(b"a", b""),
    b"EMITBIN a photo /9g=": published_bytes(b"a", b"\xff\xd8", b"photo"),
    b"emitbin  a  photo ": published_bytes(b"a", b"", b"photo"),
    b"SUB a": Subscribe(b"a"),
    b"sub  a ": Subscribe(b"a"),
    b"SUB a last=5": Subscribe(b"a", last=5),
    b"SUB a  last=0  ": Subscribe(b"a", last=0),
    b"SUB a last=9007199254740991": Subscribe(b"a", last=MAX_OFFSET),
    b"SUB a last=007": Subscribe(b"a", last=7),
    b"SUB a since=12 epoch=5f2c1a": Subscribe(b"a", since=12, epoch=b"5f2c1a"),
    b"SUB a epoch=x=y since=0": Subscribe(b"a", since=0, epoch=b"x=y"),
    b"SUB a since=1": Subscribe(b"a", since=1),
    b"SUB a presence=on": Subscribe(b"a", presence=True),
    b"SUB a echo=off": Subscribe(b"a", echo=False),
    b"SUB a echo=off presence=on epoch=e since=1 last=2": Subscribe(b"a", 2, 1, b"e", True, False),
    b"UNSUB a": Unsubscribe(b"a"),
    b"unsub  a  ": Unsubscribe(b"a"),
    b"HIST a": ReadHistory(b"a"),
    b"SUB a time=on": Subscribe(b"a", with_time=True),
    b"SUB a time=off": Subscribe(b"a"),
    b"HIST a last=10": ReadHistory(b"a", HistoryQuery(last=10)),
    b"HIST a since=12 last=10": ReadHistory(b"a", HistoryQuery(last=10, since=12)),
    b"HIST a after=12 before=20": ReadHistory(b"a", HistoryQuery(after=12, before=20)),
    b"HIST a time=on after=-1h": ReadHistory(
        b"a", HistoryQuery(after=Moment(-3_600_000, is_relative=True)), with_time=True
    ),
    b"HIST a time=off before=1970-01-01T00:00:01.5Z": ReadHistory(b"a", HistoryQuery(before=Moment(1_500))),
    b"WHO a": Who(b"a"),
    b"LIST": ListChannels(),
    b"LIST  s/ ": ListChannels(b"s/"),
    b"list s/ after=s/1": ListChannels(b"s/", b"s/1"),
    b"LIST after=s/1": ListChannels(b"", b"s/1"),
    b"PUBLISH a 1": Publish(b"a", build_payloads([b"1"], TEXT)),
    b"Subscribe a last=5": Subscribe(b"a", last=5),
    b"UNSUBSCRIBE a": Unsubscribe(b"a"),
    b"HISTORY a": ReadHistory(b"a", HistoryQuery()),
    b"NICK ann": Nick(b"ann"),
    b"AUTH a.b.c": Auth(b"a.b.c"),
    b"auth  a.b.c ": Auth(b"a.b.c"),
    b"quiet  off ": Reply(b"OK\n", LINE_ENCODER),
    b"PING": Ping(b""),
    b"PING ": Ping(b""),
    b"PING hello  you ": Ping(b"hello  you "),
    b"PING  hello": Ping(b" hello"),
    b"INFO": Info(),
    b"info  ": Info(),
    b"QUIT": Quit(),
    b"quit": Quit(),
    b"exit": Quit(),
    b"EXIT ": Quit(),
    b"bye": Quit(),
    b"HELP": Reply(LINE_ENCODER.help(b"")),
    b"help ": Reply(LINE_ENCODER.help(b"")),
    b"?": Reply(LINE_ENCODER.help(b"")),
    b"? sub": Reply(LINE_ENCODER.help(b"SUB")),
    b"HELP Sub": Reply(LINE_ENCODER.help(b"SUB")),
    b"HELP bye": Reply(LINE_ENCODER.help(b"QUIT")),
    b"HELP exit": Reply(LINE_ENCODER.help(b"QUIT")),
    b"HELP ?": Reply(LINE_ENCODER.help(b"HELP")),
}


@pytest.mark.parametrize(("line", "command"), RIGHT.items(), ids=repr)
def test_decodes_valid_line(line: bytes, command: Command) -> None:
    assert decode(line) == command


def invalid(line: bytes) -> InvalidCommand:
    command = decode(line)
    assert isinstance(command, InvalidCommand), command
    return command


MISUSED = {
    "PUB": ["", " ", " a", "  a", "   "],
    "pub": ["", " ", " a", "  a", "   "],
    "PUBBIN": ["", " ", " a", "  a"],
    "EMITBIN": ["", " ", " a", " a ", " a b"],
    "EMIT": ["", " ", " a", " a ", " a b", " a  b", "  a  b", "   "],
    "SUB": ["", " ", " a b", " a last", " a last=", " a last=x", " a last=-1", " a last=+1", " a last=1.0"]
    + [" a last=1 last=1", " a since=1 since=2", " a LAST=1", " a Presence=on", " a frob=1", " a =", " a =1"]
    + [" a time=", " a time=yes", " a after=-1h"]
    + [" a presence=off", " a presence=", " a presence=ON", " a echo=on", " a echo=OFF", " a epoch=a epoch=b"]
    + [" a last=9007199254740992", f" a last={'9' * 10_000}", " a last=1_0", " a last=٣", " a last =1", " a last= 1"],
    "UNSUB": ["", " ", " a b"],
    "HIST": ["", " a b", " a epoch=e", " a presence=on", " a last=x", " a since=", " a last=1 last=2"]
    + [" a after=", " a before=yesterday", " a after=-1", " a after=9007199254740992", " a after=\xff", " a time=1"],
    "WHO": ["", " ", " a b"],
    "LIST": [" a b", " after=a b"],
    "NICK": ["", "  ", " a b"],
    "AUTH": ["", "  ", " a b"],
    "QUIET": ["", " ", " ON", " yes", " on off", " on on"],
    "INFO": [" x"],
    "QUIT": [" now"],
    "bye": [" bye"],
    "HELP": [" SUB PUB", " a b"],
    "?": [" ? ?"],
}


@pytest.mark.parametrize(
    "line", [verb + rest for verb, rests in MISUSED.items() for rest in rests], ids=lambda line: repr(line[:40])
)
def test_rejects_wrong_arguments_with_usage(line: str) -> None:
    command = invalid(line.encode())
    assert command.error.code is ErrorCode.BAD_ARGUMENT
    verb = {"BYE": "QUIT", "?": "HELP"}.get(line.split()[0].upper(), line.split()[0].upper())
    assert command.error.message.endswith(USAGE[verb.encode()])
    assert len(command.error.message) < 300


@pytest.mark.parametrize("line", [b"PUBBIN a x", b"PUBBIN a  /9g=", b"PUBBIN a /9g= ", b"EMITBIN a b {}"])
def test_rejects_invalid_base64(line: bytes) -> None:
    assert invalid(line).error == BAD_BASE64


@pytest.mark.parametrize(
    "line, words",
    [
        ("HELP frobnicate", "unknown command: send HELP"),
        ("HIST a last=x", "invalid number 'x': expected 0 to 9007199254740991"),
        (
            "HIST a after=yesterday",
            "invalid after 'yesterday': expected an offset such as 17, or a time such as 2026-11-29T05:00:00Z or -1h; ",
        ),
        ("SUB a time=yes", "invalid value 'yes': expected on or off; "),
        ("SUB a frob", "invalid or repeated option: 'frob'"),
        ("SUB a frob=1", "unknown option: 'frob'"),
        ("HIST a last=" + "9" * 40, f"invalid number '{'9' * 32}': expected 0 to 9007199254740991"),
    ],
)
def test_error_quotes_the_invalid_word(line: str, words: str) -> None:
    assert invalid(line.encode()).error.message.startswith(words)


@pytest.mark.parametrize(
    "line",
    [b"frob", b"SUBSCRIPTION a", b"PUB\ta b", b"\tPUB a b", b"\x04", b"??", b'{"type":"ping"}', "ＰＵＢ a b".encode()]
    + [b"GET / HTTP/1.1", b"P" * 65_536, b"\x00", "ſub a".encode()],
    ids=lambda line: repr(line[:20]),
)
def test_rejects_unknown_verb(line: bytes) -> None:
    """The error mentions HELP and QUIT."""
    error = invalid(line).error
    assert error.code is ErrorCode.UNKNOWN_COMMAND
    assert "HELP" in error.message and "QUIT" in error.message


@pytest.mark.parametrize("line", [b"PUB a \xff", b"\xff", b"pub a \xc0\x80", b"SUB \xed\xa0\x80", b"PING \xe2\x82"])
def test_rejects_line_that_is_not_utf8(line: bytes) -> None:
    assert invalid(line).error.code is ErrorCode.NOT_UTF8


@pytest.mark.parametrize("start", [b"PUB a ", b"pub a ", b"EMIT a b "])
@pytest.mark.parametrize("payload", [b'"\\ud83d"', b'{"x":["\\uDE00"]}', b'["\\ud83d\\ud83d\\ude00"]'])
def test_rejects_payload_with_unpaired_surrogate(start: bytes, payload: bytes) -> None:
    assert invalid(start + payload).error.code is ErrorCode.BAD_JSON


@pytest.mark.parametrize("payload", [b"\\ud83d", b'"\\ud83d', b'x"\\ud83d"', b'"\\ud83d" x', b'["\\ud83d"'])
def test_decodes_invalid_json_with_unpaired_surrogate_as_text(payload: bytes) -> None:
    command = decode(b"PUB a " + payload)
    assert isinstance(command, Publish)
    assert (command.payloads.items, command.payloads.kind) == ((payload,), TEXT)


@pytest.mark.parametrize("line", [b"", b" ", b"     "])
def test_ignores_blank_line(line: bytes) -> None:
    assert decode(line) is None


def test_quiet_selects_encoder_without_replies_to_publishes() -> None:
    reply = decode(b"QUIET on")
    assert isinstance(reply, Reply) and reply.data == b"OK\n" and reply.encoder is not None
    assert reply.encoder.published((None,), 1) == b""
    assert reply.encoder.refused(None, UNPAIRED_SURROGATE) == LINE_ENCODER.refused(None, UNPAIRED_SURROGATE)


def test_does_not_check_names() -> None:
    """The broker checks them, for all protocols."""
    assert decode(b"SUB *") == Subscribe(b"*")
    assert decode(b"NICK " + b"x" * 100) == Nick(b"x" * 100)


BLOCKS: dict[str, tuple[bytes, list[bytes] | None]] = {
    "two texts": (b"PUB a 1\nPUB a 2\n", [b"1", b"2"]),
    "empty texts": (b"PUB a \nPUB a \n", [b"", b""]),
    "texts with spaces": (b"PUB a  1 \nPUB a 2 \n", [b" 1 ", b"2 "]),
    "JSON": (b'PUB a {}\nPUB a "x"\n', [b"{}", b'"x"']),
    "brackets in text": (b"PUB a x{\nPUB a y[\n", [b"x{", b"y["]),
    "UTF-8": ("PUB é 1\nPUB é ü\n".encode(), [b"1", "ü".encode()]),
    "control characters": (b"PUB a \x1b\nPUB a a\tb\n", [b"\x1b", b"a\tb"]),
    "one line": (b"PUB a 1\n", [b"1"]),
    "nothing": (b"", None),
    "an empty line": (b"\n", None),
    "an empty line between": (b"PUB a 1\n\nPUB a 2\n", None),
    "another verb": (b"PUT a 1\nPUT a 2\n", None),
    "no channel": (b"PUB  1\nPUB  1\n", None),
    "no payload": (b"PUB a\nPUB a 1\n", None),
    "two channels": (b"PUB a 1\nPUB b 2\n", None),
    "another channel after them": (b"PUB a 1\nPUB a 2\nPUB b 3\n", None),
    "JSON after text": (b"PUB a 1\nPUB a []\n", None),
    "invalid JSON after text": (b"PUB a 1\nPUB a [x\n", None),
    "text after JSON": (b"PUB a []\nPUB a 1\n", None),
    "carriage returns": (b"PUB a 1\r\nPUB a 2\r\n", None),
    "Ctrl-D": (b"PUB a 1\nPUB a 2\n\x04\n", None),
    "not UTF-8": (b"PUB a 1\nPUB a \xff\n", None),
    "UTF-8 across two lines": (b"PUB a \xc3\nPUB a \xa9\n", None),
    "a channel that is not UTF-8": (b"PUB \xff 1\nPUB \xff 2\n", None),
}


@pytest.mark.parametrize(("block", "payloads"), BLOCKS.values(), ids=BLOCKS.keys())
def test_decodes_block_of_lines(block: bytes, payloads: list[bytes] | None) -> None:
    command = decode_block(block, 100)
    if payloads is None:
        assert command is None
    else:
        assert command is not None and command.channel == block.split(b" ")[1]
        assert [*command.payloads.items] == payloads and command.tags == (None,) * len(payloads)


@pytest.mark.parametrize("pieces", [[b"PUB a 1\r\nPUB a 2\r\n"], [b"PUB a 1\r", b"\nPUB a 2\r\n"]])
def test_splitter_decodes_publications_with_crlf_together(pieces: list[bytes]) -> None:
    splitter = LineSplitter(100)
    assert [item for piece in pieces for item in splitter.feed(piece)] == [decode_block(b"PUB a 1\nPUB a 2\n", 100)]


@pytest.mark.parametrize(("max_bytes", "is_decoded"), [(17, False), (18, True)])
def test_leaves_block_that_can_hold_a_long_line(max_bytes: int, is_decoded: bool) -> None:
    assert (decode_block(b"PUB a 123456\nPUB a 123456\n", max_bytes) is not None) is is_decoded


MESSAGES = {
    "one line each": ([b"PING", b"PUB a 1"], [b"PING", b"PUB a 1"]),
    "several lines": ([b"PING\r\nINFO\n", b"QUIT"], [b"PING", b"INFO", b"", b"QUIT"]),
    "publications": ([b"PUB a 1\r\nPUB a 2", b"PUB a 3"], [decode_block(b"PUB a 1\nPUB a 2\nPUB a 3\n", 100)]),
    "two carriage returns": ([b"PING\r\r", b"INFO\r\r\n"], [b"PING\r", b"INFO\r", b""]),
}


@pytest.mark.parametrize(("messages", "lines"), MESSAGES.values(), ids=MESSAGES.keys())
def test_splits_messages(messages: list[bytes], lines: list[object]) -> None:
    assert split_messages(messages, 100) == lines


MAX_LINE_BYTES = 10
TOO_LONG = "too long"
QUIT = "quit"


def shown(items: list[Line]) -> list[bytes | str]:
    """Items in a form for tables of expected values."""
    words: list[bytes | str] = []
    for item in items:
        if isinstance(item, InvalidCommand):
            assert item.error.code is ErrorCode.TOO_LONG
            words.append(TOO_LONG)
        else:
            words.append(QUIT if isinstance(item, Quit) else item)
    return words


def read(pieces: list[bytes], max_bytes: int = MAX_LINE_BYTES) -> list[bytes | str]:
    """The items of all pieces."""
    splitter = LineSplitter(max_bytes)
    return shown([item for piece in pieces for item in splitter.feed(piece)])


TABLE = {
    "nothing": (b"", []),
    "one line": (b"SUB a\n", [b"SUB a"]),
    "carriage return and line feed": (b"SUB a\r\n", [b"SUB a"]),
    "both kinds": (b"a\r\nb\nc\r\n", [b"a", b"b", b"c"]),
    "only one carriage return is part of the end": (b"a\r\r\n", [b"a\r"]),
    "a carriage return elsewhere belongs to the line": (b"a\rb\n", [b"a\rb"]),
    "empty lines": (b"\n\r\n\n", [b"", b"", b""]),
    "an unfinished line is not run": (b"a\nPUB a b", [b"a"]),
    "an unfinished end is not run": (b"a\nb\r", [b"a"]),
    "exactly at the limit": (b"0123456789\n", [b"0123456789"]),
    "at the limit with a carriage return": (b"0123456789\r\n", [b"0123456789"]),
    "one byte more": (b"0123456789x\n", [TOO_LONG]),
    "one byte more with a carriage return": (b"0123456789x\r\nb\n", [TOO_LONG, b"b"]),
    "the byte more is a carriage return that ends nothing": (b"0123456789\rx\nb\n", [TOO_LONG, b"b"]),
    "two carriage returns at the limit": (b"0123456789\r\r\nb\n", [TOO_LONG, b"b"]),
    "the rest of a long line is skipped": (b"a\n" + b"x" * 50 + b"\nb\n", [b"a", TOO_LONG, b"b"]),
    "an error for a long line before it ends": (b"x" * 50, [TOO_LONG]),
    "two long lines": (b"x" * 50 + b"\n" + b"y" * 50 + b"\nb\n", [TOO_LONG, TOO_LONG, b"b"]),
    "short lines longer than the limit together": (b"123456\n123456\n", [b"123456", b"123456"]),
    "Ctrl-D needs no line end": (b"a\n\x04", [b"a", QUIT]),
    "Ctrl-D elsewhere is a byte": (b"a\x04\nb\x04c\n", [b"a\x04", b"b\x04c"]),
    "Ctrl-D within a long line is skipped with it": (b"x" * 20 + b"\x04\nb\n", [TOO_LONG, b"b"]),
    "other bytes": (b"\x00\xff\x1b\n", [b"\x00\xff\x1b"]),
}


@pytest.mark.parametrize(("data", "items"), TABLE.values(), ids=TABLE.keys())
def test_finds_the_same_lines_at_every_cut(data: bytes, items: list[bytes | str], cuts) -> None:
    for pieces in cuts(data):
        assert read(pieces) == items, pieces


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"xyz\n"])
def test_ctrl_d_at_the_start_of_a_line_means_quit(end: bytes, cuts) -> None:
    for pieces in cuts(b"a\n\x04" + end):
        assert read(pieces)[:2] == [b"a", QUIT], pieces


def test_error_for_long_line_contains_the_limit() -> None:
    (mistake,) = LineSplitter(MAX_LINE_BYTES).feed(b"x" * 50)
    assert isinstance(mistake, InvalidCommand)
    assert "10 bytes" in mistake.error.message


def test_does_not_buffer_line_over_the_limit() -> None:
    splitter = LineSplitter(MAX_LINE_BYTES)
    for _ in range(1000):
        splitter.feed(b"x" * 1000)
    assert splitter.partial is None


def test_line_in_tiny_pieces_needs_no_more_memory_than_its_length() -> None:
    """A list of pieces of two bytes would need 28 times as much."""
    splitter = LineSplitter(50_000)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            splitter.feed(b"x%d" % 1)
        assert tracemalloc.get_traced_memory()[0] < 60_000
    finally:
        tracemalloc.stop()


def test_time_for_single_bytes_is_linear() -> None:
    """Four times the length takes about four times as long, not sixteen times."""

    def cost(size: int) -> float:
        splitter = LineSplitter(size)
        start = process_time()
        for _ in range(size):
            splitter.feed(b"x")
        assert splitter.feed(b"\n") == [b"x" * size]
        return process_time() - start

    small = min(cost(20_000) for _ in range(3))
    assert min(cost(80_000) for _ in range(3)) < 10 * small


def test_has_partial_line_until_its_end() -> None:
    """Also while a line is skipped."""
    splitter = LineSplitter(10)
    states = []
    for data in (b"", b"a\n", b"a\nb", b"c", b"\n", b"x" * 20, b"x", b"\ny", b"\n", b"\x04"):
        splitter.feed(data)
        states.append(splitter.has_partial_line)
    assert states == [False, False, True, True, False, True, True, True, False, False]


def test_ends_with_cr_also_while_a_line_is_skipped() -> None:
    splitter = LineSplitter(10)
    states = []
    for data in (b"", b"a\r", b"b", b"\r", b"\n", b"\r", b"x" * 20 + b"\r", b"x", b"\r", b"\n"):
        splitter.feed(data)
        states.append(splitter.ends_with_cr)
    assert states == [False, True, False, True, False, True, True, False, True, False]


def test_lines_of_another_protocol_are_not_commands() -> None:
    splitter = LineSplitter(20)
    splitter.has_verbs = False
    assert splitter.feed(b"PUB a 1\nPUB a 2\n\x04\n\x04") == [b"PUB a 1", b"PUB a 2", CTRL_D]
    assert splitter.feed(b"\n" + b"x" * 30 + b"\n\x04\n")[2:] == [CTRL_D]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"PUBB kitchen 1", "unknown command PUBB: did you mean PUB?"),
        (b"histo kitchen", "unknown command HISTO: did you mean HIST?"),
        (b"HLEP", "unknown command HLEP: did you mean HELP?"),
        (b"GET", "unknown command: try HELP, or QUIT to disconnect"),
        (b"PU\x1bB", "unknown command: try HELP, or QUIT to disconnect"),
        (b"P" * 17, "unknown command: try HELP, or QUIT to disconnect"),
        ("PÜB".encode(), "unknown command: try HELP, or QUIT to disconnect"),
    ],
)
def test_unknown_command_suggests_the_nearest(line: bytes, message: str) -> None:
    command = LINE_DECODER.decode(line)
    assert isinstance(command, InvalidCommand)
    assert (command.error.code, command.error.message) == (ErrorCode.UNKNOWN_COMMAND, message)
