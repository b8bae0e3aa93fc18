"""The watchdog of the supervisor, on a clock."""

from twisted.internet.task import Clock

from twistedsock.workers.watchdog import ALIVE, Watchdog, report_life


class Watched:
    """A process that is watched for 6 seconds of silence. ``story`` has the time of each thing that was done to it."""

    def __init__(self, timeout: float = 6.0) -> None:
        self.clock = Clock()
        self.story: list[tuple[str, float]] = []
        self.watchdog = Watchdog(timeout, self.clock, lambda: self._note("warned"), lambda: self._note("killed"))

    def _note(self, what: str) -> None:
        self.story.append((what, self.clock.seconds()))

    def pass_time(self, seconds: int) -> None:
        self.clock.pump([1.0] * seconds)


def test_warns_and_then_gives_up_a_process_that_is_silent() -> None:
    watched = Watched()
    watched.pass_time(2)
    watched.watchdog.received()
    watched.pass_time(20)
    assert watched.story == [("warned", 6.0), ("killed", 9.0)], "once each"


def test_a_sign_of_life_ends_the_silence() -> None:
    watched = Watched()
    for _ in range(4):
        watched.pass_time(5)
        watched.watchdog.received()
    assert [what for what, _ in watched.story] == ["warned"] * 4


def test_a_pause_of_the_supervisor_counts_as_one_check() -> None:
    watched = Watched()
    watched.clock.advance(3_600)
    assert not watched.story
    watched.watchdog.received()  # written during the pause, and read after the check
    watched.pass_time(3)
    assert not watched.story


def test_a_process_that_has_ended_is_not_watched() -> None:
    watched = Watched()
    watched.watchdog.stop()
    watched.watchdog.stop()
    watched.pass_time(20)
    assert not watched.story and not watched.clock.getDelayedCalls()


def test_without_a_timeout_nothing_is_written_or_watched() -> None:
    watched, lines = Watched(0), list[bytes]()
    report_life(lines.append, 0, watched.clock)
    assert not watched.clock.getDelayedCalls() and not lines


def test_a_process_writes_a_sign_of_life_for_each_check() -> None:
    clock, lines = Clock(), list[bytes]()
    report_life(lines.append, 6.0, clock)
    clock.pump([1.0] * 3)
    assert lines == [ALIVE] * 4
