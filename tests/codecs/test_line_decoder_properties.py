"""Any input is split into lines, and any line is decoded."""

from typing import Any
from unittest.mock import patch

from hypothesis import example
from hypothesis import strategies as st

from tests.fuzz.grammars import CUTS, EPOCHS, LINE, LINES, NAMES, PAYLOAD, damaged
from tests.fuzz.properties import buffer_limit, buffered_bytes, cut, holds, split_publications
from twistedsock.codecs import line_decoder
from twistedsock.codecs.line_decoder import CTRL_D, LINE_DECODER, USAGE, Line, LineSplitter, decode_block
from twistedsock.codecs.payload import UNPAIRED_SURROGATE, is_json, is_utf8
from twistedsock.codecs.times import parse_bound
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME
from twistedsock.pubsub.values import JSON
from twistedsock.session import commands
from twistedsock.session.commands import MAX_OFFSET, Command, InvalidCommand, Publish, Quit
from twistedsock.session.history_query import HistoryQuery

NUMBERS = (
    st.none() | st.integers(0, 20) | st.sampled_from([MAX_OFFSET, MAX_OFFSET - 1, 10**15]) | st.integers(0, MAX_OFFSET)
)
decode = LINE_DECODER.decode
GAP = st.sampled_from([b" ", b" ", b"  "])


@holds(found=[example(b'EMIT a b {"\\ud800":1}')], examples=150, line=damaged(LINE) | st.binary())
def test_any_line(line: bytes) -> None:
    """Any line is decoded to a command, None for a blank line, or an error with a known code and a printable
    message."""
    line = line.replace(b"\n", b" ")
    command = decode(line)
    assert (command is None) is (not line.strip(b" "))
    if isinstance(command, InvalidCommand):
        codes = (ErrorCode.NOT_UTF8, ErrorCode.UNKNOWN_COMMAND, ErrorCode.BAD_ARGUMENT, ErrorCode.BAD_BASE64)
        assert command.error.code in codes or (command.error == UNPAIRED_SURROGATE and b"\\u" in line)
        assert (command.error.code is ErrorCode.NOT_UTF8) is (not is_utf8(line))
        assert "\n" not in command.error.message and len(command.error.message) < 400
    elif command is not None:
        assert isinstance(command, Command) and is_utf8(line)


@holds(
    examples=100,
    verb=st.sampled_from([b"SUB", b"sub", b"HIST", b"Hist"]),
    channel=NAMES,
    last=NUMBERS,
    since=NUMBERS,
    epoch=st.none() | EPOCHS,
    presence=st.booleans(),
    echo=st.booleans(),
    after=st.none() | st.sampled_from(["0", "17", "-1h", "2026-11-29T05:00:00.123Z"]),
    with_time=st.booleans(),
    order=st.permutations(range(7)),
    gap=GAP,
)
def test_options(
    verb: bytes,
    channel: bytes,
    last: Any,
    since: Any,
    epoch: Any,
    presence: bool,
    echo: bool,
    after: str | None,
    with_time: bool,
    order: Any,
    gap: bytes,
) -> None:
    """The command has all options that were given, in any order; unknown options are rejected."""
    words = [
        b"last=%d" % last if last is not None else b"",
        b"since=%d" % since if since is not None else b"",
        b"epoch=" + epoch if epoch is not None else b"",
        b"presence=on" if presence else b"",
        b"" if echo else b"echo=off",
        b"after=" + after.encode() if after is not None else b"",
        b"time=on" if with_time else b"",
    ]
    line = gap.join([verb, channel, *(words[index] for index in order if words[index])])
    is_subscription = verb.upper() == b"SUB"
    if after is not None if is_subscription else (epoch is not None or presence or not echo):
        refused = decode(line)
        assert isinstance(refused, InvalidCommand) and refused.error.message.endswith(USAGE[verb.upper()])
    elif is_subscription:
        assert decode(line) == commands.Subscribe(channel, last, since, epoch, presence, echo, with_time)
    else:
        query = HistoryQuery(last, since, None if after is None else parse_bound(after))
        assert decode(line) == commands.ReadHistory(channel, query, with_time)


@holds(examples=100, channel=NAMES, name=st.none() | NAMES, payload=PAYLOAD, gap=GAP, shout=st.booleans())
def test_publishes(channel: bytes, name: bytes | None, payload: bytes, gap: bytes, shout: bool) -> None:
    """A publication has the channel, the name and every byte after the space before the payload."""
    line = gap.join([b"EMIT", channel, name] if name is not None else [b"PUB", channel]) + b" " + payload
    command = decode(line if shout else line[:3].lower() + line[3:])
    assert isinstance(command, Publish) and command.tags == (None,)
    assert (command.channel, command.name) == (channel, DEFAULT_EVENT_NAME if name is None else name)
    assert command.payloads.items == (payload,) and (command.payloads.kind is JSON) is is_json(payload)


@holds(examples=100, data=LINES, max_bytes=st.sampled_from([20, 512, 65_536]))
def test_together(data: bytes, max_bytes: int) -> None:
    """Lines that are decoded together, as a block, are the same commands as one by one."""
    block = data[: data.rfind(b"\n") + 1]
    lines = [line.removesuffix(b"\r") for line in block.split(b"\n")[:-1]]
    alone = split_publications([command for line in lines if (command := decode(line)) is not None])
    whole = decode_block(block, max_bytes)
    assert whole is None or (split_publications([whole]) == alone and max(map(len, lines)) <= max_bytes)


LENGTHS = st.sampled_from([0, 1, 2, 10, 11, 12, 13, 100])
SHORT = st.lists(
    st.builds(lambda size, end: b"x" * size + end, LENGTHS, st.sampled_from([b"\n", b"\r\n", b"\r", b"\x04\n", b""])),
    max_size=8,
).map(b"".join)


def as_tuples(items: list[Line]) -> list[object]:
    """The items up to a Ctrl-D, errors as their codes."""
    words: list[object] = []
    for item in items:
        words.append(item.error.code if isinstance(item, InvalidCommand) else item)
        if isinstance(item, Quit):
            break
    return words


def expected(data: bytes, max_bytes: int) -> list[Line]:
    """A second implementation, line by line, from the text of the protocol."""
    *lines, rest = data.split(b"\n")
    items: list[Line] = []
    for line in lines:
        line = line.removesuffix(b"\r")
        items.append(Quit() if line.startswith(CTRL_D) else line if len(line) <= max_bytes else TOO_LONG)
    if rest.startswith(CTRL_D):
        items.append(Quit())
    elif len(rest) > max_bytes + rest.endswith(b"\r"):
        items.append(TOO_LONG)
    return items


TOO_LONG = InvalidCommand(Error(ErrorCode.TOO_LONG, ""))


@holds(examples=200, data=damaged(SHORT) | LINES | st.binary(), cuts=CUTS, max_bytes=st.sampled_from([1, 11, 12, 512]))
def test_lines(data: bytes, cuts: list[int], max_bytes: int) -> None:
    """Any bytes, at any cuts, are split into their lines, or ``too-long`` for a line over the limit; the buffer never
    exceeds the limit."""
    splitter = LineSplitter(max_bytes)
    items: list[Line] = []
    with patch.object(line_decoder, "decode_block", return_value=None):
        for piece in cut(data, cuts):
            items += splitter.feed(piece)
            assert buffered_bytes(splitter) <= buffer_limit(max_bytes + 1)
    assert as_tuples(items) == as_tuples(expected(data, max_bytes))
