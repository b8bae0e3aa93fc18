"""Bodies in chunks: read whatever the cut, refused where they are none, and at a bounded cost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.http import MAX_CHUNKS, MAX_SIZE_LINE_BYTES, MAX_TRAILER_BYTES, ChunkDecoder, InvalidChunks


def read(*pieces: bytes) -> tuple[bytes, bytes | None]:
    """The body, and what stands behind it."""
    body: list[bytes] = []
    chunks, rest = ChunkDecoder(body.append), None
    for piece in pieces:
        assert rest is None
        rest = chunks.feed(piece)
    return b"".join(body), rest


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b""))


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=10), st.data())
def test_a_body_is_what_its_chunks_hold_whatever_the_cut(pieces, data) -> None:
    sent = chunked(*pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent) - 1), max_size=10)))
    parts = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent) - 1], strict=True)]
    parts = [part for part in parts if part]
    assert read(*parts, sent[-1:] + b"GET / HTTP/1.1") == (b"".join(pieces), b"GET / HTTP/1.1")


def test_byte_by_byte() -> None:
    sent = b"3;x=y\r\nabc\r\nA\r\n0123456789\r\n0\r\nTrailer: dropped\r\n\r\n"
    assert read(*(sent[place : place + 1] for place in range(len(sent)))) == (b"abc0123456789", b"")


def test_what_is_behind_it_is_not_a_part_of_it() -> None:
    assert read(chunked(b"abc") + b"POST /next") == (b"abc", b"POST /next")


@pytest.mark.parametrize("line", [b"3", b"003", b"3;", b"3 ;a", b'3;a="b c"', b"3\t"], ids=lambda line: line.decode())
def test_sizes(line) -> None:
    assert read(line + b"\r\nabc\r\n0\r\n\r\n") == (b"abc", b"")


@pytest.mark.parametrize(
    "sent",
    [
        b"\r\n",
        b"x\r\n",
        b"-3\r\n",
        b"+3\r\n",
        b"0x3\r\n",
        b" 3\r\n",
        b"3,3\r\n",
        b"3_0\r\n",
        b"3;\x00\r\n",
        b"3;a\nb\r\n",
        b"3\nabc\r\n",
        b"1" * 16 + b"\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n\n0\r\n\r\n",
        b"3\r\nab\r\n0\r\n\r\n",
        "٣\r\n".encode(),
    ],
)
def test_what_is_no_chunk_is_refused(sent) -> None:
    with pytest.raises(InvalidChunks):
        read(sent)


def test_a_line_of_a_size_is_short() -> None:
    assert read(b"0;" + b"x" * (MAX_SIZE_LINE_BYTES - 2) + b"\r\n\r\n") == (b"", b"")
    for sent in (b"0;" + b"x" * (MAX_SIZE_LINE_BYTES - 1), b"0;" + b"x" * MAX_SIZE_LINE_BYTES + b"\r\n"):
        with pytest.raises(InvalidChunks, match="too long"):
            read(sent)


def test_half_the_line_of_a_size_may_stand_behind_many_chunks() -> None:
    pieces = [b"x"] * MAX_SIZE_LINE_BYTES
    sent = chunked(*pieces)[: -len(b"0\r\n\r\n")]
    assert read(sent + b"1;a", b"\r\ny\r\n0\r\n\r\n") == (b"".join(pieces) + b"y", b"")


def test_there_are_only_so_many_chunks() -> None:
    assert read(chunked(*[b"a"] * (MAX_CHUNKS - 1)))[1] == b""
    with pytest.raises(InvalidChunks, match="too many"):
        read(chunked(*[b"a"] * MAX_CHUNKS))


def test_a_trailer_is_short() -> None:
    line = b"A: " + b"x" * 997 + b"\r\n"
    assert read(b"0\r\n" + line * 4 + b"\r\n")[1] == b""
    assert read(*([b"0\r\n"] + [line[:500], line[500:]] * 4 + [b"\r\n"]))[1] == b""
    for pieces in ([b"0\r\n", *[line] * 5], [b"0\r\n" + b"x" * (MAX_TRAILER_BYTES + 1)]):
        with pytest.raises(InvalidChunks, match="trailer"):
            read(*pieces)
