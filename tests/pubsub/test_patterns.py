"""Patterns of channels: runs inside a segment, and the rest."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.pubsub.names import GROUP_BYTES, MAX_CACHED_PATTERNS, AnyOf, Pattern, pattern


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
def test_what_a_pattern_means(text: str, channels: str) -> None:
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
def test_what_a_pattern_does_not_mean(text: str, channels: str) -> None:
    for channel in channels.split(" "):
        assert not Pattern(text).matches(channel.encode()), channel


@pytest.mark.parametrize(
    "text", ["", "a>b", ">>", "a b", "a+", "a#", "a?", "a\n", "\x1b", "x" * 201, "\ud800", "a\u200b>"]
)
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="invalid pattern"):
        Pattern(text)


@pytest.mark.parametrize("text", ["alerts\u200b", "alerts\u200b.*", "\u200b>", "*\u200b"])
def test_the_error_shows_an_invisible_character_in_a_pattern(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        Pattern(text)
    assert str(refused.value) == f"invalid pattern {ascii(text)}: contains the invisible character U+200B"


def test_a_pattern_that_many_name_is_made_once() -> None:
    assert pattern("alerts.*") is pattern("alerts.*")


def test_patterns_that_more_tokens_name_than_are_kept_are_not_all_made_again_each_time() -> None:
    texts = [f"tenant{number}.*" for number in range(MAX_CACHED_PATTERNS * 5 // 4)]
    before = [pattern(text) for text in texts]
    for _ in range(3):
        after = [pattern(text) for text in texts]
    again = sum(one is other for one, other in zip(before, after, strict=True))
    assert again > MAX_CACHED_PATTERNS // 3


TEXTS = st.lists(st.text("ab*.", min_size=1, max_size=8), min_size=1, max_size=12)


@given(TEXTS, st.booleans(), st.lists(st.text("ab./", min_size=1, max_size=10), max_size=20))
def test_any_of_several_patterns_means_what_they_mean_one_by_one(
    texts: list[str], rest: bool, channels: list[str]
) -> None:
    patterns = [Pattern(text + ">" * rest) for text in texts]
    several = AnyOf(patterns)
    while not several.compile_some():
        pass
    asked = [channel.encode() for channel in channels]
    wanted = [channel for channel in asked if any(one.matches(channel) for one in patterns)]
    assert several.select(asked) == wanted
    assert several.stars == sum("*" in text for text in texts)


def test_many_patterns_are_compiled_a_few_at_a_time() -> None:
    several = AnyOf(Pattern(f"*{number:03}*") for number in range(100))
    steps = 1
    while not several.compile_some():
        steps += 1
    assert steps == 100 * 5 // GROUP_BYTES + 1
    assert several.select([b"x042y", b"x142y", b"x42y"]) == [b"x042y"]


def test_a_thousand_channels_and_a_hundred_patterns_take_less_than_trying_each() -> None:
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
def test_a_pattern_means_what_its_plain_expression_means(text: str, rest: bool, channel: str) -> None:
    whole = text + ">" * rest
    assert Pattern(whole).matches(channel.encode()) == plainly(whole, channel)


def test_no_pattern_takes_long() -> None:
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
