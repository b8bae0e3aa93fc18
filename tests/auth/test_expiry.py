"""Expiry of tokens: a warning, then the end, by a wall clock that can jump."""

from collections.abc import Callable

import pytest

from twistedsock.auth.expiry import EXPIRY_WARNING_SECONDS, ExpiryWatcher


class Holder:
    """Records the calls that a session gets."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def token_expires(self, seconds: float) -> None:
        assert seconds in (0, EXPIRY_WARNING_SECONDS)
        self.calls.append("warned" if seconds else "expired")


class World:
    """An ``ExpiryWatcher`` with a clock, and calls that are made in a later turn."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.later: list[Callable[[], None]] = []
        self.watcher = ExpiryWatcher(lambda: self.now, lambda calls, words: self.later.extend(calls))

    def watch(self, *expiries: float) -> list[Holder]:
        holders = [Holder() for _ in expiries]
        for holder, expires in zip(holders, expiries, strict=True):
            self.watcher.watch(holder.token_expires, expires)
        return holders

    def check_at(self, now: float) -> None:
        self.now = now
        self.watcher.check()
        self.make_calls()

    def make_calls(self) -> None:
        calls, self.later = self.later, []
        for call in calls:
            call()


@pytest.fixture
def world() -> World:
    return World()


def test_warns_once_and_then_expires(world: World) -> None:
    (holder,) = world.watch(1200.0)
    for now, calls in [
        (1001.0, []),
        (1200 - EXPIRY_WARNING_SECONDS - 0.1, []),
        (1200 - EXPIRY_WARNING_SECONDS, ["warned"]),
        (1199.9, ["warned"]),
        (1200.0, ["warned", "expired"]),
        (1300.0, ["warned", "expired"]),
    ]:
        world.check_at(now)
        assert holder.calls == calls
    assert len(world.watcher) == 0


def test_does_not_warn_if_little_time_is_left(world: World) -> None:
    (holder,) = world.watch(1000 + EXPIRY_WARNING_SECONDS)
    world.check_at(1000 + EXPIRY_WARNING_SECONDS - 1)
    assert holder.calls == []
    world.check_at(1000 + EXPIRY_WARNING_SECONDS)
    assert holder.calls == ["expired"]


def test_new_expiry_replaces_old_one(world: World) -> None:
    renewed, endless, closed = world.watch(1100.0, 1100.0, 1100.0)
    world.check_at(1050.0)
    for holder, expires in ((renewed, 2000.0), (endless, None), (closed, None), (closed, None)):
        world.watcher.watch(holder.token_expires, expires)
    world.check_at(1500.0)
    assert renewed.calls == endless.calls == closed.calls == ["warned"]
    world.check_at(2000.0)
    assert renewed.calls == ["warned", "expired"]


def test_clock_that_jumps_forward_expires_without_warning(world: World) -> None:
    holder, later = world.watch(1100.0, 9000.0)
    world.check_at(5000.0)
    assert (holder.calls, later.calls) == (["expired"], [])


def test_clock_that_jumps_back_delays_expiry(world: World) -> None:
    (holder,) = world.watch(1100.0)
    for now, calls in ((500.0, []), (1039.0, []), (1040.0, ["warned"])):
        world.check_at(now)
        assert holder.calls == calls


def test_session_that_closes_during_the_calls_is_not_called(world: World) -> None:
    class Closing(Holder):
        def token_expires(self, seconds: float) -> None:
            world.watcher.watch(other.token_expires, None)

    world.watcher.watch(Closing().token_expires, 1100.0)
    (other,) = world.watch(2000.0)
    world.check_at(1100.0)
    assert len(world.watcher) == 0
    world.check_at(3000.0)
    assert other.calls == []


def test_token_that_is_renewed_before_the_call_does_not_expire(world: World) -> None:
    """The calls are made in time slices, so some wait for a later turn."""
    renewed, expired = world.watch(1100.0, 1100.0)
    world.now = 1100.0
    world.watcher.check()
    world.watcher.watch(renewed.token_expires, 2000.0)
    world.watcher.check()
    world.make_calls()
    assert (renewed.calls, expired.calls) == ([], ["expired"])
    world.check_at(2000.0)
    assert renewed.calls == ["expired"] and len(world.watcher) == 0
