"""Names (protocol.md): lengths in bytes of UTF-8, and what must not stand in them."""

import unicodedata
from collections.abc import Callable

import pytest

from twistedsock.errors import BAD_CHANNEL, BAD_EVENT_NAME, BAD_NICK, Error, ErrorCode
from twistedsock.pubsub.names import (
    CHANNEL_BYTES,
    DEFAULT_EVENT_NAME,
    EVENT_NAME_BYTES,
    NICK_BYTES,
    check_channel,
    check_event_name,
    check_nick,
    is_channel,
    is_event_name,
    is_nick,
    is_reserved,
)

KINDS = [
    pytest.param(is_channel, CHANNEL_BYTES, id="channel"),
    pytest.param(is_event_name, EVENT_NAME_BYTES, id="event name"),
    pytest.param(is_nick, NICK_BYTES, id="nick"),
]
WHITE_SPACE = [chr(number) for number in range(0x3001) if chr(number).isspace()]
CONTROLS = [chr(number) for number in [*range(32), 127, *range(128, 160)]]
FORMAT = [chr(number) for number in range(0x110000) if unicodedata.category(chr(number)) == "Cf"]
FILLERS = [
    *"\u034f\u115f\u1160\u17b4\u17b5\u180b\u180f\u2065\u2800\u3164\ufe00\ufe0f\uffa0\ufff0\U000e0100\U000e01ef\U000e0fff"
]
CHECKS = [
    pytest.param(check_channel, "invalid channel name", BAD_CHANNEL, CHANNEL_BYTES, id="channel"),
    pytest.param(check_event_name, "invalid event name", BAD_EVENT_NAME, EVENT_NAME_BYTES, id="event name"),
    pytest.param(check_nick, "invalid nick", BAD_NICK, NICK_BYTES, id="nick"),
]


def test_the_bounds_are_those_of_the_protocol() -> None:
    assert (CHANNEL_BYTES, EVENT_NAME_BYTES, NICK_BYTES) == (200, 64, 32)


@pytest.mark.parametrize("is_name, most", KINDS)
def test_a_name_is_one_to_so_many_bytes(is_name: Callable[[bytes], bool], most: int) -> None:
    assert is_name(b"x")
    assert is_name(b"x" * most)
    assert not is_name(b"")
    assert not is_name(b"x" * (most + 1))


@pytest.mark.parametrize("is_name, most", KINDS)
def test_bytes_are_counted_not_letters(is_name: Callable[[bytes], bool], most: int) -> None:
    assert is_name("ü".encode() * (most // 2))
    assert not is_name("ü".encode() * (most // 2) + b"x")


@pytest.mark.parametrize("is_name, most", KINDS)
@pytest.mark.parametrize("letter", sorted({*WHITE_SPACE, *CONTROLS, *"*>#+?"}), ids=ascii)
def test_white_space_control_characters_and_wildcards_stand_in_no_name(
    is_name: Callable[[bytes], bool], most: int, letter: str
) -> None:
    for text in (letter, "a" + letter, letter + "a", "a" + letter + "a"):
        assert not is_name(text.encode())


@pytest.mark.parametrize("is_name, most", KINDS)
def test_rejects_every_character_that_cannot_be_seen(is_name: Callable[[bytes], bool], most: int) -> None:
    """Format characters (category Cf, which has the joiners too), and fillers that have no ink either."""
    assert {"\xad", "\u200b", "\u200c", "\u200d", "\u202e", "\u2066", "\ufeff", "\U000e0041"} <= set(FORMAT)
    for letter in FORMAT + FILLERS:
        for text in (letter, "a" + letter, letter + "a", "a" + letter + "a"):
            assert not is_name(text.encode()), ascii(text)


@pytest.mark.parametrize("check, words, general, most", CHECKS)
def test_the_error_names_the_invisible_character(
    check: Callable[[bytes], Error | None], words: str, general: Error, most: int
) -> None:
    for name, number in [("alerts\u200b", "U+200B"), ("\xadx", "U+00AD"), ("a\U000e0041", "U+E0041")]:
        expected = Error(general.code, f"{words}: contains the invisible character {number}")
        assert check(name.encode()) == expected
        assert check(name.encode() + b"x" * most) == expected
    assert check(b"a b") == check(b"") == check(b"\xff") == check(b"x" * (most + 1)) == general
    assert check(b"alerts") is check("küche".encode()) is None
    assert general.code in (ErrorCode.BAD_CHANNEL, ErrorCode.BAD_NAME)


@pytest.mark.parametrize("is_name, most", KINDS)
@pytest.mark.parametrize("name", ["a/b", "a.b:c", "küche", "厨房", "🌡", "{a}", '"a"', "-", "0", "$SYS"])
def test_all_else_is_a_name(is_name: Callable[[bytes], bool], most: int, name: str) -> None:
    assert is_name(name.encode())


@pytest.mark.parametrize("is_name, most", KINDS)
@pytest.mark.parametrize("name", [b"\xff", b"a\xc3", b"\xc0\xaf", b"\xed\xa0\x80"])
def test_what_is_not_utf8_is_no_name(is_name: Callable[[bytes], bool], most: int, name: bytes) -> None:
    assert not is_name(name)


def test_the_default_event_name_is_one() -> None:
    assert DEFAULT_EVENT_NAME == b"message"
    assert is_event_name(DEFAULT_EVENT_NAME)


@pytest.mark.parametrize(
    "channel, reserved", [(b"$sys/figures", True), (b"$sys/", True), (b"$sys", False), (b"a$sys/", False)]
)
def test_the_servers_own_channels_are_told_by_their_beginning(channel: bytes, reserved: bool) -> None:
    assert is_reserved(channel) is reserved
