"""Bytes to lines."""

from unittest.mock import patch

from hypothesis import strategies as st

from tests.fuzz.grammars import CUTS, LINES, damaged
from tests.fuzz.properties import cut, holds, kept, room
from twistedsock.codecs import line_decoder
from twistedsock.codecs.line_decoder import CTRL_D, Line, LineSplitter
from twistedsock.errors import Error, ErrorCode
from twistedsock.session.commands import InvalidCommand, Quit

LENGTHS = st.sampled_from([0, 1, 2, 10, 11, 12, 13, 100])
SHORT = st.lists(
    st.builds(lambda size, end: b"x" * size + end, LENGTHS, st.sampled_from([b"\n", b"\r\n", b"\r", b"\x04\n", b""])),
    max_size=8,
).map(b"".join)


def told(items: list[Line]) -> list[object]:
    """Up to a Ctrl-D, behind which nothing counts: a refusal by its code alone."""
    words: list[object] = []
    for item in items:
        words.append(item.error.code if isinstance(item, InvalidCommand) else item)
        if isinstance(item, Quit):
            break
    return words


def expected(data: bytes, most: int) -> list[Line]:
    """Written from the protocol's words, line by line."""
    *lines, rest = data.split(b"\n")
    items: list[Line] = []
    for line in lines:
        line = line.removesuffix(b"\r")
        items.append(Quit() if line.startswith(CTRL_D) else line if len(line) <= most else TOO_LONG)
    if rest.startswith(CTRL_D):
        items.append(Quit())
    elif len(rest) > most + rest.endswith(b"\r"):
        items.append(TOO_LONG)
    return items


TOO_LONG = InvalidCommand(Error(ErrorCode.TOO_LONG, ""))


@holds(examples=200, data=damaged(SHORT) | LINES | st.binary(), cuts=CUTS, most=st.sampled_from([1, 11, 12, 512]))
def test_lines(data: bytes, cuts: list[int], most: int) -> None:
    """Any bytes, at any cuts, give the lines that they hold, each no longer than allowed, or a too-long in its place;
    and no more is kept than one line may have."""
    splitter = LineSplitter(most)
    items: list[Line] = []
    with patch.object(line_decoder, "decode_block", return_value=None):
        for piece in cut(data, cuts):
            items += splitter.feed(piece)
            assert kept(splitter) <= room(most + 1)
    assert told(items) == told(expected(data, most))
