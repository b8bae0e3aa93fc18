"""Patterns of channels: runs inside a segment, and the rest."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.core.patterns import Pattern, pattern


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
    with pytest.raises(ValueError, match="is no pattern"):
        Pattern(text)


@pytest.mark.parametrize("text", ["alerts\u200b", "alerts\u200b.*", "\u200b>", "*\u200b"])
def test_the_error_shows_an_invisible_character_in_a_pattern(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        Pattern(text)
    assert str(refused.value) == f"{ascii(text)} is no pattern: it contains the invisible character U+200B"


def test_a_pattern_that_many_name_is_made_once() -> None:
    assert pattern("alerts.*") is pattern("alerts.*")


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
