"""Names (protocol.md): lengths in bytes of UTF-8, and what must not stand in them."""

from collections.abc import Callable

import pytest

from twistedsock.core.names import (
    CHANNEL_BYTES,
    DEFAULT_EVENT_NAME,
    EVENT_NAME_BYTES,
    NICK_BYTES,
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
