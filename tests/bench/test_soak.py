"""The soak's judgement of memory, its picture, and what it holds a reader to."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.soak import samples
from bench.soak.bounds import Bounds
from bench.soak.crowd import Presence
from bench.soak.dialects import BIG, BIG_EVERY, JSON, LINES, Dialect, Heard, content
from bench.soak.following import Following
from bench.soak.picture import draw
from bench.soak.report import report
from bench.soak.run import Outcome
from bench.soak.samples import MIB, Sample
from bench.soak.tally import MAX_WRONGS, Names, RecentEvents, Tally, Wrong
from bench.soak.verdict import FEWEST, judge, slope
from twistedsock.config import read_settings

SECONDS = 600


def series(level: Callable[[int], float]) -> list[tuple[float, float]]:
    return [(float(second), level(second)) for second in range(1, SECONDS + 1)]


def noise(level: float, size: float, rise: float = 0.0) -> Callable[[int], float]:
    chance = random.Random(7)
    return lambda second: level + rise * second + chance.uniform(-size, size)


FLAT = {
    "level": lambda second: 100.0,
    "noisy": noise(100.0, 5.0),
    "with peaks": lambda second: 180.0 if second % 45 < 5 else 100.0,
    "warming up": lambda second: min(100.0, 50.0 + second / 3),
    "sinking": lambda second: 120.0 - second / 60,
    "settling": lambda second: 100.0 * (1 - 0.5 ** (second / 30)),
    "with a dip": lambda second: 100.0 - max(0.0, 2.0 - (second - 380) / 100) * (second > 380),
    "with one step long ago": lambda second: 90.0 + 10.0 * (second > 200),
}
GROWING = {
    "leaking": lambda second: 100.0 + second / 100,
    "leaking under noise": noise(100.0, 5.0, 1 / 60),
    "leaking in steps": lambda second: 100.0 + second // 60,
    "warming up for ever": lambda second: 20.0 * second**0.3,
    "leaking after a dip": lambda second: 100.0 + second / 100 - 3.0 * (380 < second < 440),
    "with a step at the end": lambda second: 100.0 + 10.0 * (second > 530),
}


@pytest.mark.parametrize("name", FLAT)
def test_what_is_flat_is_called_flat(name: str) -> None:
    verdict = judge(series(FLAT[name]))
    assert verdict is not None
    assert verdict.flat, verdict
    assert "memory is flat at its end" in verdict.words()


@pytest.mark.parametrize("name", GROWING)
def test_what_grows_is_found_out(name: str) -> None:
    verdict = judge(series(GROWING[name]))
    assert verdict is not None
    assert not verdict.flat, verdict
    assert "NOT flat" in verdict.words()


def test_a_short_run_is_not_judged() -> None:
    assert judge([]) is None
    assert judge(series(FLAT["level"])[: FEWEST - 1]) is None


def test_the_slope_is_not_moved_by_few() -> None:
    points = [(float(x), 2.0 * x) for x in range(20)]
    points[3], points[11] = (3.0, 1e9), (11.0, -1e9)
    assert slope(points) == pytest.approx(2.0)
    assert slope([(1.0, 5.0)]) == 0.0
    assert slope([(1.0, 5.0), (1.0, 7.0)]) == 0.0


def test_the_fit_is_a_line_through_the_last_third() -> None:
    verdict = judge(series(lambda second: 100.0 + second / 10))
    assert verdict is not None
    (start, low), (end, high) = verdict.fit
    assert (start, end) == (pytest.approx(401, abs=1), 600)
    assert (low, high) == (pytest.approx(100 + start / 10), pytest.approx(160))
    assert verdict.level == pytest.approx(150, rel=0.01)


def sample(at: float, resident: float = 100.0 * MIB) -> Sample:
    return Sample(at, int(resident), 80 * MIB, 0.5, 100, 90, 50, 30.0, 1_000.0, 200.0, 0.4)


@pytest.mark.parametrize("count", [1, 5, 600])
def test_the_picture_is_well_formed(count: int) -> None:
    found = [sample(float(second), (100 + second / 100) * MIB) for second in range(1, count + 1)]
    drawing = draw(found, judge([(each.at, float(each.resident)) for each in found]))
    root = ElementTree.fromstring(drawing.svg())
    words = " ".join(root.itertext())
    assert "MiB" in words
    assert "minutes" in words
    assert ("last third: +" in words) is (count == 600)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for x, y in (point.split(",") for point in line.attrib["points"].split()):
            assert 0 <= float(x) <= width
            assert 0 <= float(y) <= height


def test_what_is_measured_can_be_read_again(tmp_path: Path) -> None:
    found = [sample(1.0), sample(2.0)]
    samples.write(tmp_path / "new" / "soak.jsonl", {"seed": 1}, found)
    assert samples.read(tmp_path / "new" / "soak.jsonl") == ({"seed": 1}, found)


def test_the_report_says_what_was_wrong() -> None:
    outcome = Outcome([sample(float(second)) for second in range(1, 31)])
    about = {"tally": {"visits": 3}, "wrongs": ["it barked"], "at rest": {"before": MIB, "after": 2 * MIB}}
    words = report(about, outcome)
    assert "WRONG: it barked" in words
    assert "too short to judge" in words
    assert "1.0 MiB before, 2.0 MiB after" in words


def test_the_memory_of_a_process_is_read() -> None:
    resident, anonymous = samples.memory(os.getpid())
    assert resident >= anonymous > MIB
    assert samples.open_files(os.getpid()) > 2


@pytest.mark.parametrize("seconds", [5.0, 60.0, 600.0])
def test_the_bounds_are_options_of_the_bridge(seconds: float) -> None:
    given = dict(option.removeprefix("--").split("=") for option in Bounds(seconds).options())
    settings = read_settings(None, given)
    assert settings.max_channels == 2_000
    assert settings.history_age * 2 < seconds


def test_a_payload_is_known_by_its_number() -> None:
    assert content(7) == content(7) != content(8)
    assert content(3).is_json and not content(4).is_json
    assert len(content(BIG_EVERY).text) > BIG
    assert len(content(1, 100).text) == pytest.approx(100, abs=20)


HEARD = [
    (LINES, b"MSG a 3 ann x y", Heard("event", "a", offset=3)),
    (LINES, b"LOST a 3 9", Heard("lost", "a", first=3, last=9)),
    (LINES, b"JOIN a p1 ann", Heard("join", "a", peer={"id": "p1", "nick": "ann"})),
    (LINES, b"OK a offset=5 epoch=e1 recovered=no", Heard("ok", offset=5, epoch="e1", recovered=False)),
    (LINES, b"OK 17", Heard("ok", offset=17)),
    (LINES, b"ERR limit too many", Heard("error", code="limit")),
    (LINES, b"PONG", Heard("pong")),
    (JSON, b'{"type":"lost","channel":"a","first":3,"last":9}', Heard("lost", "a", first=3, last=9)),
    (JSON, b'{"type":"ok","id":2,"offset":17}', Heard("ok", id=2, offset=17)),
]


@pytest.mark.parametrize(("dialect", "message", "heard"), HEARD, ids=[str(message) for _, message, _ in HEARD])
def test_both_dialects_are_understood(dialect: Dialect, message: bytes, heard: Heard) -> None:
    found = dialect.read(message)
    found.data = heard.data
    assert found == heard


def event(number: int, dialect: Dialect = LINES) -> Heard:
    if dialect is LINES:
        return LINES.read(b"MSG a %d ann %b" % (number, content(number).text))
    return JSON.read(b'{"type":"event","channel":"a","offset":%d,"data":%b}' % (number, content(number).in_json))


def following(quick: bool = True, dialect: Dialect = LINES, oldest_kept: int = 1) -> Following:
    reader = Following(b"a", dialect, (lambda: oldest_kept) if quick else None)
    reader.begin(Heard("ok", offset=4, epoch="e"))
    return reader


@pytest.mark.parametrize("dialect", [LINES, JSON])
def test_a_reader_that_gets_all_is_content(dialect: Dialect) -> None:
    reader = following(dialect=dialect)
    assert all(reader.hear(event(number, dialect)) for number in range(5, 20))
    assert (reader.next, reader.lost) == (20, 0)


@pytest.mark.parametrize(
    "messages",
    [
        [event(6)],
        [event(5), event(5)],
        [event(5), event(4)],
        [LINES.read(b"MSG a 5 ann something else")],
        [Heard("lost", "a", first=5, last=7)],
    ],
    ids=["a gap", "twice", "back", "other words", "lost"],
)
def test_a_quick_reader_that_does_not_is_not(messages: list[Heard]) -> None:
    reader = following()
    with pytest.raises(Wrong):
        for message in messages:
            reader.hear(message)


def test_a_slow_reader_is_told_exactly_what_it_lost() -> None:
    reader = following(quick=False)
    reader.hear(Heard("lost", "a", first=5, last=7))
    assert reader.hear(event(8))
    assert reader.lost == 3
    for first, last in [(10, 12), (9, 8)]:
        with pytest.raises(Wrong):
            reader.hear(Heard("lost", "a", first=first, last=last))


def test_a_reader_that_resumes_continues_at_its_position() -> None:
    reader = following()
    reader.hear(event(5))
    reader.begin(Heard("ok", offset=9, epoch="e", recovered=True))
    with pytest.raises(Wrong, match="event 7 arrived instead of 6"):
        reader.hear(event(7))
    assert reader.hear(event(6))


@pytest.mark.parametrize("recovered", [False, True])
def test_a_reader_that_resumes_can_lose_events_that_are_too_old(recovered: bool) -> None:
    """Also if they became too old between the reply and the replay, and behind events that were not."""
    reader = following(oldest_kept=9)
    reader.begin(Heard("ok", offset=9, epoch="e", recovered=recovered))
    reader.hear(Heard("lost", "a", first=5, last=5))
    reader.hear(event(6))
    reader.hear(Heard("lost", "a", first=7, last=8))
    assert reader.hear(event(9))
    assert reader.lost == 3


@pytest.mark.parametrize("recovered", [False, True])
def test_a_reader_that_resumes_cannot_lose_an_event_that_the_history_keeps(recovered: bool) -> None:
    reader = following(oldest_kept=7)
    reader.begin(Heard("ok", offset=9, epoch="e", recovered=recovered))
    with pytest.raises(Wrong, match="lost 5 to 7, which cannot be too old"):
        reader.hear(Heard("lost", "a", first=5, last=7))


@pytest.mark.parametrize("resumed", [False, True])
def test_a_quick_reader_cannot_lose_events_while_it_is_connected(resumed: bool) -> None:
    reader = following(oldest_kept=99)
    if resumed:
        reader.begin(Heard("ok", offset=5, epoch="e", recovered=True))
    reader.hear(event(5))
    with pytest.raises(Wrong, match="a quick reader has lost 6 to 6"):
        reader.hear(Heard("lost", "a", first=6, last=6))


@pytest.mark.parametrize(
    "reply",
    [
        Heard("ok", offset=9, epoch="e", recovered=False),
        Heard("ok", offset=9, epoch="another", recovered=True),
        Heard("error", code="limit"),
    ],
    ids=["not recovered", "another epoch", "an error"],
)
def test_a_reader_must_be_able_to_resume_while_the_history_keeps_its_next_event(reply: Heard) -> None:
    with pytest.raises(Wrong):
        following(oldest_kept=5).begin(reply)


def test_a_history_must_contain_the_events_of_the_last_seconds() -> None:
    recent = RecentEvents(10.0)
    assert recent.first(0.0) == 1
    for now in (0.0, 4.0, 5.0):
        recent.publish(now)
    assert [recent.first(now) for now in (9.9, 10.0, 14.5, 15.0)] == [1, 2, 3, 4]
    recent.publish(20.0)
    assert [recent.first(now) for now in (20.0, 30.0)] == [4, 5]


def test_nobody_joins_or_leaves_twice() -> None:
    presence = Presence()
    for kind in ("leave", "join", "leave", "join"):
        presence.hear(Heard(kind, "crowd", peer={"id": "p1", "nick": "p1"}))
    presence.hear(Heard("ok"))
    with pytest.raises(Wrong):
        presence.hear(Heard("join", "crowd", peer={"id": "p1", "nick": "ann"}))


def test_channels_are_counted_while_they_can_have_a_log() -> None:
    names = Names(10.0)
    first, second = names.new(), names.new()
    assert first != second
    names.publish(first, 0.0)
    names.publish(second, 5.0)
    names.publish(first, 6.0)
    assert [names.alive(now) for now in (9.0, 15.5, 16.5)] == [2, 1, 0]


def test_wrongs_are_counted_and_the_first_are_kept() -> None:
    tally = Tally()
    for number in range(MAX_WRONGS + 5):
        tally.blame(f"wrong {number}")
    assert (tally.wrong, len(tally.wrongs)) == (MAX_WRONGS + 5, MAX_WRONGS)
