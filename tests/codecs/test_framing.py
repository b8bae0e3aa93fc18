"""Messages in a row, numbered and framed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.framing import Framing, JsonLine, Newline, TextMessage, decimal_runs
from twistedsock.pubsub.future import Future
from twistedsock.testing import read_frames


def test_line_ends_with_line_feed() -> None:
    assert Newline().frame(b"OK 1") == b"OK 1\n"
    assert Newline().frames([b"a", b"", b"b"]) == [b"a\n", b"\n", b"b\n"]
    assert b"".join(Newline().fragments(iter([b"a", b"b"]))) == b"ab\n"
    assert b"".join(Newline().fragments([])) == b"\n"


def test_json_message_is_one_line_without_control_characters() -> None:
    message, line = '{"a":\r\n "\x7f\x9b0m"}'.encode(), b'{"a":   "\\u007f\\u009b0m"}\n'
    assert JsonLine().frame(message) == line
    assert JsonLine().frames([message, b"{}"]) == [line, b"{}\n"]
    wait = Future[None]()
    assert list(JsonLine().fragments([message, wait, b"[]"])) == [line[:-1], wait, b"[]", b"\n"]


def test_message_is_one_unmasked_text_frame() -> None:
    assert TextMessage().frame(b"OK 1") == b"\x81\x04OK 1"
    assert TextMessage().frames([b"a", b"", b"b"]) == [b"\x81\x01a", b"\x81\x00", b"\x81\x01b"]


@pytest.mark.parametrize(
    ("pieces", "frames"),
    [
        ([b"a"], [b"\x81\x01a"]),
        ([], [b"\x81\x00"]),
        ([b""], [b"\x81\x00"]),
        ([b"a", b"b"], [b"\x01\x01a", b"\x80\x01b"]),
        ([b"a", b"bc", b"d"], [b"\x01\x01a", b"\x00\x02bc", b"\x80\x01d"]),
    ],
)
def test_frames_each_piece_as_fragment(pieces: list[bytes], frames: list[bytes]) -> None:
    """RFC 6455 section 5.4: text, then continuations, the last one final."""
    assert list(TextMessage().fragments(iter(pieces))) == frames


def test_waits_between_pieces_are_left_as_they_are() -> None:
    wait = Future[int]()
    assert list(Newline().fragments([b"a", wait, b"b"])) == [b"a", wait, b"b", b"\n"]
    assert list(TextMessage().fragments([b"a", wait, b"b"])) == [wait, b"\x01\x01a", b"\x80\x01b"]


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_fragments_of_any_size_are_one_message(size: int) -> None:
    pieces = [b"a" * size, b"b" * size, b"c"]
    assert read_frames(b"".join(TextMessage().fragments(pieces))) == [b"".join(pieces).decode()]


FRAMINGS = [Newline(), JsonLine(), TextMessage()]
FIRSTS = [0, 1, 9, 10, 99, 100, 998, 999, 1000, 10**6 - 1, 2**53 - 5]
PAYLOADS = st.lists(
    st.sampled_from([b"", b"x", b"%b", b"%", b"%%d", b"\xc3\xa9", b"x" * 90, b"x" * 120, b"x" * 70_000]), min_size=1
)
AROUND = st.sampled_from([b"", b"MSG a%b%% ", b"%", b' ann "', b"\xc3\xa9", b"y" * 60, b"{}"])


@pytest.mark.parametrize("framing", FRAMINGS)
@given(before=AROUND, first=st.sampled_from(FIRSTS), after=AROUND, payloads=PAYLOADS, end=AROUND)
def test_numbered_messages_equal_single_messages(
    framing: Framing, before: bytes, first: int, after: bytes, payloads: list[bytes], end: bytes
) -> None:
    alone = [b"".join([before, b"%d" % n, after, payload, end]) for n, payload in enumerate(payloads, first)]
    assert framing.numbered(before, first, after, payloads, end) == b"".join(framing.frames(alone))


@given(
    before=AROUND,
    payloads=PAYLOADS,
    between=st.lists(AROUND, min_size=1, max_size=2),
    first=st.sampled_from(FIRSTS),
    end=AROUND,
)
def test_messages_with_numbers_behind_payloads_equal_single_messages(
    before: bytes, payloads: list[bytes], between: list[bytes], first: int, end: bytes
) -> None:
    alone = [
        b"".join([before, payload, *[b"%b%d" % (text, n) for text in between], end])
        for n, payload in enumerate(payloads, first)
    ]
    written = TextMessage().numbered_behind(before, payloads, between, first, end)
    assert written == b"".join(TextMessage().frames(alone))


@pytest.mark.parametrize("framing", FRAMINGS)
@given(before=AROUND, first=st.sampled_from(FIRSTS), count=st.integers(1, 2_500))
def test_counted_messages_equal_single_messages(framing: Framing, before: bytes, first: int, count: int) -> None:
    alone = [b"%b%d" % (before, number) for number in range(first, first + count)]
    assert framing.counted(before, first, count) == b"".join(framing.frames(alone))


EDGES = [0, 1, 8, 9, 10, 11, 98, 99, 100, 998, 999, 1000, 1001, 1999, 2000, 9_999, 10_000, 999_999, 10**6]
MAX_OFFSET = 2**53 - 1


@pytest.mark.parametrize("first", [*EDGES, MAX_OFFSET - 1_500])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 12, 1_000, 1_001])
def test_decimal_runs_at_powers_of_ten(first: int, count: int) -> None:
    check(first, count)


@given(first=st.integers(0, 2_000) | st.integers(0, MAX_OFFSET), count=st.integers(0, 3_000))
def test_decimal_runs_anywhere(first: int, count: int) -> None:
    check(first, count)


def check(first: int, count: int) -> None:
    numbers: list[bytes] = []
    for begin, ends in decimal_runs(first, count):
        some = [begin + end for end in ends]
        # All of one time have the same length, so that one head of a frame may fit all.
        assert len(some) <= 1_000 and len({len(number) for number in some}) == 1
        numbers += some
    assert numbers == [b"%d" % number for number in range(first, first + count)]
