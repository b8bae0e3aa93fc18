"""Proofs that run out: a warning, then the end, by a clock that may jump."""

from collections.abc import Callable

import pytest

from twistedsock.auth.expiry import EXPIRY_WARNING_SECONDS, ExpiryWatcher


class Bearer:
    def __init__(self) -> None:
        self.told: list[str] = []

    def warn_of_expiry(self) -> None:
        self.told.append("warned")

    def expire(self) -> None:
        self.told.append("expired")


class World:
    def __init__(self) -> None:
        self.now = 1000.0
        self.later: list[Callable[[], None]] = []
        self.expiries = ExpiryWatcher(lambda: self.now, lambda calls, words: self.later.extend(calls))

    def at(self, now: float) -> None:
        self.now = now
        self.expiries.check()
        self.make_calls()

    def make_calls(self) -> None:
        calls, self.later = self.later, []
        for call in calls:
            call()


@pytest.fixture
def world() -> World:
    return World()


def test_a_bearer_is_warned_once_and_then_told(world: World) -> None:
    bearer = Bearer()
    world.expiries.watch(bearer, 1200.0)
    for now, told in [
        (1001.0, []),
        (1200 - EXPIRY_WARNING_SECONDS - 0.1, []),
        (1200 - EXPIRY_WARNING_SECONDS, ["warned"]),
        (1199.9, ["warned"]),
        (1200.0, ["warned", "expired"]),
        (1300.0, ["warned", "expired"]),
    ]:
        world.at(now)
        assert bearer.told == told
    assert len(world.expiries) == 0


def test_who_has_less_than_the_warning_left_is_told_at_the_end_alone(world: World) -> None:
    bearer = Bearer()
    world.expiries.watch(bearer, 1000 + EXPIRY_WARNING_SECONDS)
    world.at(1000 + EXPIRY_WARNING_SECONDS - 1)
    assert bearer.told == []
    world.at(1000 + EXPIRY_WARNING_SECONDS)
    assert bearer.told == ["expired"]


def test_a_proof_that_is_renewed_or_never_runs_out_is_not_told_of(world: World) -> None:
    renewed, endless, gone = Bearer(), Bearer(), Bearer()
    for bearer in (renewed, endless, gone):
        world.expiries.watch(bearer, 1100.0)
    world.at(1050.0)
    world.expiries.watch(renewed, 2000.0)
    world.expiries.watch(endless, None)
    world.expiries.watch(gone, None)
    world.expiries.watch(gone, None)
    world.at(1500.0)
    assert (renewed.told, endless.told, gone.told) == (["warned"], ["warned"], ["warned"])
    world.at(2000.0)
    assert renewed.told == ["warned", "expired"]


def test_a_clock_that_jumps_forward_ends_what_has_ended_without_a_warning(world: World) -> None:
    bearer, later = Bearer(), Bearer()
    world.expiries.watch(bearer, 1100.0)
    world.expiries.watch(later, 9000.0)
    world.at(5000.0)
    assert bearer.told == ["expired"] and later.told == []


def test_a_clock_that_jumps_back_ends_nothing_before_its_time(world: World) -> None:
    bearer = Bearer()
    world.expiries.watch(bearer, 1100.0)
    world.at(500.0)
    world.at(1039.0)
    assert bearer.told == []
    world.at(1040.0)
    assert bearer.told == ["warned"]


def test_who_leaves_while_others_are_told_is_not_told(world: World) -> None:
    other = Bearer()

    class Last(Bearer):
        def expire(self) -> None:
            world.expiries.watch(other, None)

    world.expiries.watch(Last(), 1100.0)
    world.expiries.watch(other, 2000.0)
    world.at(1100.0)
    assert len(world.expiries) == 0
    world.at(3000.0)
    assert other.told == []


def test_a_bearer_that_shows_another_token_before_it_is_told_does_not_expire(world: World) -> None:
    """Many are told in time slices, so that some wait for their turn."""
    renewed, expired = Bearer(), Bearer()
    for bearer in (renewed, expired):
        world.expiries.watch(bearer, 1100.0)
    world.now = 1100.0
    world.expiries.check()
    world.expiries.watch(renewed, 2000.0)
    world.expiries.check()
    world.make_calls()
    assert (renewed.told, expired.told) == ([], ["expired"])
    world.at(2000.0)
    assert renewed.told == ["expired"] and len(world.expiries) == 0
