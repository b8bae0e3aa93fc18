"""The line that says how far it is."""

from io import StringIO

from twistedsock.bench.progress import Progress, duration


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_elsewhere_than_on_a_terminal_each_step_is_a_plain_line() -> None:
    out, clock = StringIO(), Clock()
    progress = Progress(out, clock, [10.0, 20.0])
    progress.begin("fan-out, nats")
    progress.told(0.5)
    clock.now += 20
    progress.begin("pairs, nats")
    clock.now += 60
    progress.told(0.5)
    progress.end()
    assert out.getvalue() == "1 of 2, 30 s left: fan-out, nats\n2 of 2, 40 s left: pairs, nats\n"


def test_on_a_terminal_the_line_is_written_over_now_and_then() -> None:
    out, clock = Terminal(), Clock()
    progress = Progress(out, clock, [10.0])
    progress.begin("fan-out, nats")
    for part in range(100):
        clock.now += 0.01
        progress.told(part / 100)
    progress.end()
    lines = out.getvalue().split("\r\x1b[K")[1:]
    assert lines[0] == "1 of 1, 10 s left: fan-out, nats"
    assert lines[-1] == ""
    assert 2 <= len(lines) - 2 <= 4
    assert "fan-out, nats 2" in lines[1]
    assert "\n" not in out.getvalue()


def test_the_line_stays_one() -> None:
    out = Terminal()
    Progress(out, Clock(), [10.0]).begin("x" * 500)
    assert len(out.getvalue()) < 120


def test_durations_are_words() -> None:
    assert [duration(seconds) for seconds in (0.4, 99, 600)] == ["0 s", "99 s", "10 min"]
