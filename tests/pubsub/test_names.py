"""Names of channels, events and nicks, and patterns."""

import re
import time
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.grammars import BAD_NAMES, NAMES, damaged
from tests.fuzz.properties import holds
from twistedsock.errors import BAD_CHANNEL, BAD_EVENT_NAME, BAD_NICK, Error, ErrorCode
from twistedsock.pubsub.names import (
    ADMITTED_ONE_IN,
    CHANNEL_BYTES,
    DEFAULT_EVENT_NAME,
    EVENT_NAME_BYTES,
    GROUP_BYTES,
    INVISIBLE,
    MAX_CACHED_PATTERNS,
    NICK_BYTES,
    AnyOf,
    Cache,
    Pattern,
    check_channel,
    check_event_name,
    check_nick,
    is_channel,
    is_event_name,
    is_nick,
    is_reserved,
    pattern,
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


def test_limits_are_those_of_the_protocol() -> None:
    assert (CHANNEL_BYTES, EVENT_NAME_BYTES, NICK_BYTES) == (200, 64, 32)


@pytest.mark.parametrize("is_name, max_bytes", KINDS)
def test_limits_the_length_of_names(is_name: Callable[[bytes], bool], max_bytes: int) -> None:
    assert is_name(b"x")
    assert is_name(b"x" * max_bytes)
    assert not is_name(b"")
    assert not is_name(b"x" * (max_bytes + 1))


@pytest.mark.parametrize("is_name, max_bytes", KINDS)
def test_length_is_counted_in_bytes(is_name: Callable[[bytes], bool], max_bytes: int) -> None:
    assert is_name("ü".encode() * (max_bytes // 2))
    assert not is_name("ü".encode() * (max_bytes // 2) + b"x")


@pytest.mark.parametrize("is_name, max_bytes", KINDS)
@pytest.mark.parametrize("letter", sorted({*WHITE_SPACE, *CONTROLS, *"*>#+?"}), ids=ascii)
def test_rejects_white_space_control_characters_and_wildcards(
    is_name: Callable[[bytes], bool], max_bytes: int, letter: str
) -> None:
    for text in (letter, "a" + letter, letter + "a", "a" + letter + "a"):
        assert not is_name(text.encode())


@pytest.mark.parametrize("is_name, max_bytes", KINDS)
def test_rejects_invisible_characters(is_name: Callable[[bytes], bool], max_bytes: int) -> None:
    """Format characters (category Cf, which has the joiners too), and fillers that have no ink either."""
    assert {"\xad", "\u200b", "\u200c", "\u200d", "\u202e", "\u2066", "\ufeff", "\U000e0041"} <= set(FORMAT)
    for letter in FORMAT + FILLERS:
        for text in (letter, "a" + letter, letter + "a", "a" + letter + "a"):
            assert not is_name(text.encode()), ascii(text)


@pytest.mark.parametrize("check, words, general, max_bytes", CHECKS)
def test_error_names_the_invisible_character(
    check: Callable[[bytes], Error | None], words: str, general: Error, max_bytes: int
) -> None:
    for name, number in [("alerts\u200b", "U+200B"), ("\xadx", "U+00AD"), ("a\U000e0041", "U+E0041")]:
        expected = Error(general.code, f"{words}: contains the invisible character {number}")
        assert check(name.encode()) == expected
        assert check(name.encode() + b"x" * max_bytes) == expected
    assert check(b"a b") == check(b"") == check(b"\xff") == check(b"x" * (max_bytes + 1)) == general
    assert check(b"alerts") is check("küche".encode()) is None
    assert general.code in (ErrorCode.BAD_CHANNEL, ErrorCode.BAD_NAME)


@pytest.mark.parametrize("is_name, max_bytes", KINDS)
@pytest.mark.parametrize("name", ["a/b", "a.b:c", "küche", "厨房", "🌡", "{a}", '"a"', "-", "0", "$SYS"])
def test_accepts_all_other_characters(is_name: Callable[[bytes], bool], max_bytes: int, name: str) -> None:
    assert is_name(name.encode())


@pytest.mark.parametrize("is_name, max_bytes", KINDS)
@pytest.mark.parametrize("name", [b"\xff", b"a\xc3", b"\xc0\xaf", b"\xed\xa0\x80"])
def test_rejects_invalid_utf8(is_name: Callable[[bytes], bool], max_bytes: int, name: bytes) -> None:
    assert not is_name(name)


def test_accepts_the_default_event_name() -> None:
    assert DEFAULT_EVENT_NAME == b"message"
    assert is_event_name(DEFAULT_EVENT_NAME)


@pytest.mark.parametrize(
    "channel, reserved", [(b"$sys/figures", True), (b"$sys/", True), (b"$sys", False), (b"a$sys/", False)]
)
def test_reserved_channels_have_a_prefix(channel: bytes, reserved: bool) -> None:
    assert is_reserved(channel) is reserved


SIGNS = st.text(
    st.characters(max_codepoint=0x20)
    | st.sampled_from("\x7f\x80\x9f\xa0\xad\u1680\u200b\u2028\u202e\u3000\u3164\ufeff\U000e0041*>#+?aé"),
    max_size=4,
)


def is_name(candidate: bytes, max_bytes: int) -> bool:
    try:
        text = candidate.decode()
    except UnicodeDecodeError:
        return False
    invisible = re.search(f"[{INVISIBLE}]", text) is not None
    bad = invisible or any(
        sign.isspace() or unicodedata.category(sign) in ("Cc", "Cf") or sign in "*>#+?" for sign in text
    )
    return 0 < len(candidate) <= max_bytes and not bad


@holds(
    examples=120,
    candidate=damaged(NAMES | BAD_NAMES)
    | st.text(max_size=40).map(str.encode)
    | SIGNS.map(str.encode)
    | st.sampled_from([31, 32, 33, 64, 65, 200, 201]).map(lambda size: b"x" * size),
)
def test_names_follow_the_definition(candidate: bytes) -> None:
    """Any bytes are a name if they are UTF-8 of the length allowed without white space, control characters,
    invisible characters and the signs of patterns, and never else."""
    assert is_channel(candidate) is is_name(candidate, 200)
    assert is_event_name(candidate) is is_name(candidate, 64)
    assert is_nick(candidate) is is_name(candidate, 32)


@pytest.mark.parametrize(
    "text, channels",
    [
        ("kitchen", "kitchen"),
        ("alerts.*", "alerts.fire alerts."),
        ("*", "kitchen x é"),
        ("*.*", "a.b ."),
        (">", "kitchen a.b/c:d"),
        ("alerts.>", "alerts.fire alerts.fire.cellar alerts."),
        ("a/*/c", "a/b/c a//c"),
        ("a:*b", "a:b a:xb a:bb"),
        ("*a*b*", "ab xaxbx aabb"),
        ("a*>", "a ab a.b ab.c"),
        ("a*b>", "ab axb abx axb.c ab.c.d"),
        ("*.b>", "a.b a.bc .b.c"),
        ("x.*y*z", "x.yz x.1y2z x.yzz"),
        ("é*", "é éa"),
        ("a+b".replace("+", "(.)"), "a(.)b"),
    ],
)
def test_pattern_matches(text: str, channels: str) -> None:
    for channel in channels.split(" "):
        assert Pattern(text).matches(channel.encode()), channel


@pytest.mark.parametrize(
    "text, channels",
    [
        ("kitchen", "kitchens kitche Kitchen"),
        ("alerts.*", "alerts alerts.a.b alerts.a/b alerts.a:b xalerts.a"),
        ("*", "a.b a/b a:b"),
        ("alerts.>", "alerts alert.s xalerts.a"),
        ("a/*/c", "a/b/c/d a/b/x/c a/c"),
        ("*a*b*", "ba a.b"),
        ("a*b>", "a.b ba"),
        ("x.*y*z", "x.zy x.y.z"),
        ("a.b", "axb"),
    ],
)
def test_pattern_does_not_match(text: str, channels: str) -> None:
    for channel in channels.split(" "):
        assert not Pattern(text).matches(channel.encode()), channel


@pytest.mark.parametrize(
    "text", ["", "a>b", ">>", "a b", "a+", "a#", "a?", "a\n", "\x1b", "x" * 201, "\ud800", "a\u200b>"]
)
def test_rejects_invalid_pattern(text: str) -> None:
    with pytest.raises(ValueError, match="invalid pattern"):
        Pattern(text)


@pytest.mark.parametrize("text", ["alerts\u200b", "alerts\u200b.*", "\u200b>", "*\u200b"])
def test_error_names_the_invisible_character_in_a_pattern(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        Pattern(text)
    assert str(refused.value) == f"invalid pattern {ascii(text)}: contains the invisible character U+200B"


def test_same_pattern_is_made_once() -> None:
    assert pattern("alerts.*") is pattern("alerts.*")


def test_pattern_cache_works_with_more_patterns_than_it_holds() -> None:
    texts = [f"tenant{number}.*" for number in range(MAX_CACHED_PATTERNS * 5 // 4)]
    before = [pattern(text) for text in texts]
    for _ in range(3):
        after = [pattern(text) for text in texts]
    again = sum(one is other for one, other in zip(before, after, strict=True))
    assert again > MAX_CACHED_PATTERNS // 3


TEXTS = st.lists(st.text("ab*.", min_size=1, max_size=8), min_size=1, max_size=12)


@given(TEXTS, st.booleans(), st.lists(st.text("ab./", min_size=1, max_size=10), max_size=20))
def test_any_of_selects_what_single_patterns_match(texts: list[str], rest: bool, channels: list[str]) -> None:
    patterns = [Pattern(text + ">" * rest) for text in texts]
    several = AnyOf(patterns)
    while not several.compile_some():
        pass
    asked = [channel.encode() for channel in channels]
    wanted = [channel for channel in asked if any(one.matches(channel) for one in patterns)]
    assert several.select(asked) == wanted
    assert several.stars == sum("*" in text for text in texts)


def test_compiles_a_few_patterns_at_a_time() -> None:
    several = AnyOf(Pattern(f"*{number:03}*") for number in range(100))
    steps = 1
    while not several.compile_some():
        steps += 1
    assert steps == 100 * 5 // GROUP_BYTES + 1
    assert several.select([b"x042y", b"x142y", b"x42y"]) == [b"x042y"]


def test_any_of_is_faster_than_single_patterns() -> None:
    """By far; the bound is wide, because other programs take time as well."""
    patterns = [Pattern(f"*m*{number}x*.*.b*") for number in range(100)]
    channels = [b"room%d.sensor.%d" % (number % 50, number) for number in range(1_000)]
    several = AnyOf(patterns)
    while not several.compile_some():
        pass
    started = time.process_time()
    several.select(channels)
    together = time.process_time() - started
    started = time.process_time()
    assert not any(one.matches(channel) for one in patterns for channel in channels)
    assert together < time.process_time() - started


def plainly(text: str, channel: str) -> bool:
    """As Pattern, by the plainest expression there is, however long that takes."""
    name = text.removesuffix(">")
    expression = re.escape(name).replace(r"\*", "[^./:]*") + (".*" if name != text else "")
    return re.fullmatch(expression, channel, re.DOTALL) is not None


@given(st.text("ab*.", min_size=1, max_size=8), st.booleans(), st.text("ab./", min_size=1, max_size=10))
def test_pattern_equals_its_simple_expression(text: str, rest: bool, channel: str) -> None:
    whole = text + ">" * rest
    assert Pattern(whole).matches(channel.encode()) == plainly(whole, channel)


def test_matching_takes_linear_time() -> None:
    hard = Pattern("*a" * 60 + "*")
    started = time.process_time()
    for _ in range(100):
        assert not hard.matches(b"a" * 59 + b"b" * 140)
    # Exponential would be the age of the universe; a quadratic one some seconds.
    assert time.process_time() - started < 2


def test_patterns_with_the_same_text_are_equal() -> None:
    assert Pattern("a.*") == Pattern("a.*")
    assert hash(Pattern("a.*")) == hash(Pattern("a.*"))
    assert Pattern("a.*") != Pattern("b.*")
    assert Pattern("a.*") != "a.*"


def misses(cache: Cache[int, str], keys: range) -> int:
    """The number of keys that are missing when each is used once."""
    missing = 0
    for key in keys:
        if cache.get(key) is None:
            missing += 1
            cache.add(key, str(key))
    return missing


def test_cache_holds_values_up_to_the_limit() -> None:
    cache = Cache[int, str](10)
    assert [misses(cache, range(10)) for _ in range(3)] == [10, 0, 0]
    assert cache[3] == "3"


def test_cache_hit_rate_is_near_the_optimum_for_keys_used_in_turn() -> None:
    """At best, a tenth of the keys is missing in each round; an LRU cache would miss all."""
    cache = Cache[int, str](100)
    misses(cache, range(110))
    rounds = [misses(cache, range(110)) for _ in range(50)]
    assert sum(rounds) < 50 * 15 and len(cache) == 100


def test_cache_adapts_to_other_keys() -> None:
    cache = Cache[int, str](10)
    misses(cache, range(10))
    for _ in range(ADMITTED_ONE_IN * 10):
        misses(cache, range(100, 110))
    assert misses(cache, range(100, 110)) == 0 and len(cache) == 10
