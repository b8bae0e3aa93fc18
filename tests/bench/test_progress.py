"""The line that shows the progress."""

from io import StringIO

from twistedsock.bench.measurement import Progress, duration


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_writes_a_plain_line_per_step_without_terminal() -> None:
    out, clock = StringIO(), Clock()
    progress = Progress(out, clock, [10.0, 20.0])
    progress.start_step("fan-out, nats")
    progress.update(0.5)
    clock.now += 20
    progress.start_step("pairs, nats")
    clock.now += 60
    progress.update(0.5)
    progress.end()
    assert out.getvalue() == "1 of 2, 30 s left: fan-out, nats\n2 of 2, 40 s left: pairs, nats\n"


def test_updates_one_line_on_terminal() -> None:
    out, clock = Terminal(), Clock()
    progress = Progress(out, clock, [10.0])
    progress.start_step("fan-out, nats")
    for part in range(100):
        clock.now += 0.01
        progress.update(part / 100)
    progress.end()
    lines = out.getvalue().split("\r\x1b[K")[1:]
    assert lines[0] == "1 of 1, 10 s left: fan-out, nats"
    assert lines[-1] == ""
    assert 2 <= len(lines) - 2 <= 4
    assert "fan-out, nats 2" in lines[1]
    assert "\n" not in out.getvalue()


def test_line_does_not_wrap() -> None:
    out = Terminal()
    Progress(out, Clock(), [10.0]).start_step("x" * 500)
    assert len(out.getvalue()) < 120


def test_durations_have_units() -> None:
    assert [duration(seconds) for seconds in (0.4, 99, 600)] == ["0 s", "99 s", "10 min"]
