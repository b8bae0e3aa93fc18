"""Lines come out whole wherever the network cuts them, and none is longer than allowed."""

import tracemalloc
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.line_decoder import Line, LineSplitter
from twistedsock.errors import ErrorCode
from twistedsock.session.commands import InvalidCommand, Quit

MAX_OFFSET = 10
TOO_LONG = "too long"
QUIT = "quit"


def shown(items: list[Line]) -> list[bytes | str]:
    """Items as a table can hold them."""
    words: list[bytes | str] = []
    for item in items:
        if isinstance(item, InvalidCommand):
            assert item.error.code is ErrorCode.TOO_LONG
            words.append(TOO_LONG)
        else:
            words.append(QUIT if isinstance(item, Quit) else item)
    return words


def read(pieces: list[bytes], most: int = MAX_OFFSET) -> list[bytes | str]:
    """What comes of the pieces, one after the other."""
    splitter = LineSplitter(most)
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
    "a long line is told before it ends": (b"x" * 50, [TOO_LONG]),
    "two long lines": (b"x" * 50 + b"\n" + b"y" * 50 + b"\nb\n", [TOO_LONG, TOO_LONG, b"b"]),
    "short lines longer than the limit together": (b"123456\n123456\n", [b"123456", b"123456"]),
    "Ctrl-D needs no line end": (b"a\n\x04", [b"a", QUIT]),
    "Ctrl-D elsewhere is a byte": (b"a\x04\nb\x04c\n", [b"a\x04", b"b\x04c"]),
    "Ctrl-D within a long line is skipped with it": (b"x" * 20 + b"\x04\nb\n", [TOO_LONG, b"b"]),
    "other bytes are nobody's business here": (b"\x00\xff\x1b\n", [b"\x00\xff\x1b"]),
}


@pytest.mark.parametrize(("data", "items"), TABLE.values(), ids=TABLE.keys())
def test_lines_at_every_cut(data: bytes, items: list[bytes | str], cuts) -> None:
    """The same lines come out however the bytes are cut."""
    for pieces in cuts(data):
        assert read(pieces) == items, pieces


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"xyz\n"])
def test_ctrl_d_begins_a_line_that_has_an_end(end: bytes, cuts) -> None:
    """Ctrl-D first in a line quits, whatever stands behind it."""
    for pieces in cuts(b"a\n\x04" + end):
        assert read(pieces)[:2] == [b"a", QUIT], pieces


def test_the_words_of_too_long_name_the_limit() -> None:
    """Who sends too long a line learns how long it may be."""
    (mistake,) = LineSplitter(MAX_OFFSET).feed(b"x" * 50)
    assert isinstance(mistake, InvalidCommand)
    assert "10 bytes" in mistake.error.message


def test_nothing_is_kept_of_a_line_that_is_too_long() -> None:
    """An endless line costs no memory."""
    splitter = LineSplitter(MAX_OFFSET)
    for _ in range(1000):
        splitter.feed(b"x" * 1000)
    assert splitter.partial is None


def test_a_line_in_tiny_pieces_takes_no_more_memory_than_its_length() -> None:
    """Kept as they come, pieces of two bytes would take 28 times as much."""
    splitter = LineSplitter(50_000)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            splitter.feed(b"x%d" % 1)
        assert tracemalloc.get_traced_memory()[0] < 60_000
    finally:
        tracemalloc.stop()


def test_one_byte_at_a_time_costs_no_more_than_its_length() -> None:
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


@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"\n", b"\r", b"\r\n", b"\x04", b"x" * 11])))
def test_any_bytes_give_lines_or_a_named_error(pieces: list[bytes]) -> None:
    """Any bytes, cut anywhere, give the lines of the whole, up to a Ctrl-D; none is too long."""
    cut, whole = read(pieces), read([b"".join(pieces)])
    if QUIT in whole:
        assert QUIT in cut
        cut, whole = cut[: cut.index(QUIT)], whole[: whole.index(QUIT)]
    assert cut == whole
    assert all(len(item) <= MAX_OFFSET for item in cut)


def test_a_line_has_begun_until_it_has_ended() -> None:
    """Also one that is skipped."""
    splitter = LineSplitter(10)
    told = []
    for data in (b"", b"a\n", b"a\nb", b"c", b"\n", b"x" * 20, b"x", b"\ny", b"\n", b"\x04"):
        splitter.feed(data)
        told.append(splitter.has_partial_line)
    assert told == [False, False, True, True, False, True, True, True, False, False]
