"""What `make fuzz` does when something breaks, and when nothing does."""

import re
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import DidNotReproduce

from tests.fuzz.properties import SETTINGS, buffer_limit, buffered_bytes, cut, holds
from tools.fuzz import Subject, a_property, find_subjects, run
from twistedsock.codecs.line_decoder import LineSplitter

HOW = settings(SETTINGS, derandomize=False, report_multiple_bugs=False, phases=[Phase.generate, Phase.shrink])


class Unmeasured:
    """In place of the coverage."""

    def stop(self) -> None:
        """It never began."""

    start = stop

    def report(self, **options: Any) -> float:
        return 50.0


def property_of(most: int) -> Subject:
    @holds(examples=1, number=st.integers(0, 1_000))
    def check(number: int) -> None:
        """No number is large."""
        assert number <= most

    return a_property("module::check", check.property)


@pytest.mark.slow
def test_what_breaks_a_property_is_told_with_the_command_that_repeats_it(capsys: pytest.CaptureFixture[str]) -> None:
    broken, sound = property_of(90), property_of(1_000)
    assert run([broken, sound], HOW, 0.05, Unmeasured()) == 1
    told = capsys.readouterr().out
    assert "BROKEN module::check: No number is large." in told and "number=91" in told and not sound.failure
    assert told.splitlines()[-1].startswith("repeat it: make fuzz REPEAT='module::check ")
    blob = re.findall(r"REPEAT='module::check (\S+)'", told)[-1]
    with pytest.raises(AssertionError):
        property_of(90).repeat(HOW, blob)
    with pytest.raises(DidNotReproduce):
        property_of(1_000).repeat(HOW, blob)


def test_what_chance_alone_finds_is_made_small_as_well() -> None:
    broken = property_of(90)
    broken.turns = 1
    broken.take_turn(HOW)
    assert "number=91" in broken.failure and "REPEAT='module::check " in broken.report_failure()


@pytest.mark.slow
def test_where_nothing_breaks_it_ends_by_itself(capsys: pytest.CaptureFixture[str]) -> None:
    sound = property_of(1_000)
    assert run([sound], HOW, 0.02, Unmeasured()) == 0
    assert sound.examples > 0
    assert "50.0 % of the pure packages reached\n0 of 1 are broken" in capsys.readouterr().out


def test_every_property_says_what_holds() -> None:
    subjects = {subject.name: subject for subject in find_subjects()}
    assert {"test_websocket::test_plain_frames", "test_telnet::test_any_stream"} <= set(subjects)
    assert all(subject.sentence.endswith(".") for subject in subjects.values())


def test_what_is_kept_is_counted_wherever_it_is() -> None:
    splitter = LineSplitter(1_000)
    assert buffered_bytes(splitter) == 0
    splitter.feed(b"abc\nde")
    splitter.feed(b"f" * 500)
    assert 502 < buffered_bytes(splitter) <= buffer_limit(502)
    assert buffered_bytes([{"x": bytearray(b"c" * 100)}, "text", 7]) > 100
    assert buffered_bytes([b"c%d" % number for number in range(100)]) > buffer_limit(300), "a head for each two bytes"


@pytest.mark.parametrize(
    ("places", "pieces"),
    [([], [b"abc"]), ([1], [b"a", b"bc"]), ([3, 0, 5], [b"a", b"bc"]), ([1, 1, 2], [b"a", b"b", b"c"])],
)
def test_cuts(places: list[int], pieces: list[bytes]) -> None:
    assert cut(b"abc", places) == pieces
