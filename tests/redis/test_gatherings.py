"""What a server gathers from all others of a Redis, without Redis."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from twistedsock.errors import UNAVAILABLE, Error
from twistedsock.pubsub.future import Future, on_result
from twistedsock.redis.gatherings import (
    MAX_AT_A_TIME,
    MAX_PREPARED,
    MAX_QUEUED,
    MAX_REPORT_BYTES,
    REQUEST,
    Gatherings,
)
from twistedsock.redis.resp import Call, RedisError
from twistedsock.redis.wire import Names

NAMES = Names(0)


class Servers:
    """Servers of one Redis. ``calls`` are those that Redis has not run yet, with their senders."""

    def __init__(self, count: int) -> None:
        self.calls: list[Call] = []
        self.requests = 0
        self.timers: list[Callable[[], None]] = []
        self.hanging: set[bytes] = set()
        self.all = [self.start(b"n%d" % number) for number in range(1, count + 1)]
        self.settle()

    def start(self, name: bytes) -> Gatherings:
        server = Gatherings(name, NAMES, self.calls.append, lambda seconds, call: self.timers.append(call), "tokyo")
        server.reports[b"whoami"] = lambda asked: name + b" " + asked
        server.connected()
        return server

    def settle(self) -> None:
        """Run all calls."""
        while self.calls:
            call = self.calls.pop(0)
            if call.parts[0] == b"ZRANGE":
                call.done([b"%b.1" % server.node_name for server in self.all])
                continue
            _, topic, message = call.parts
            assert isinstance(message, bytes)
            self.requests += message[:1] == REQUEST
            for server in self.all:
                if server.node_name in self.hanging:
                    continue
                if topic == NAMES.nodes_topic:
                    server.received_request(message)
                elif topic == NAMES.node_topic(server.node_name):
                    server.received_report(message)

    def pass_seconds(self) -> None:
        """Let ``GATHER_SECONDS`` pass."""
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()

    def ask(self, topic: bytes = b"whoami please") -> list[Any]:
        """What the first server gathers, when it is there."""
        outcomes: list[Any] = []
        on_result(self.all[0].gather(topic), outcomes.append)
        self.settle()
        return outcomes


def test_a_server_gathers_the_reports_of_all_others() -> None:
    servers = Servers(3)
    assert servers.ask() == [{b"n2": b"n2 please", b"n3": b"n3 please"}]
    assert servers.all[0].names == ["n1", "n2", "n3"]
    assert servers.ask(b"unknown") == [{b"n2": b"", b"n3": b""}]
    assert len({server.index for server in servers.all}) == 3


def test_servers_are_known_before_they_are_asked() -> None:
    servers = Servers(2)
    server = servers.all[0]
    server.disconnected()
    assert server.names == ["n1", "n2"] and server.gather(b"whoami") == UNAVAILABLE


def test_a_server_alone_asks_no_other() -> None:
    servers = Servers(1)
    assert servers.ask() == [{}] and servers.requests == 0


def test_requests_for_the_same_topic_share_the_reports() -> None:
    servers = Servers(2)
    first, second = servers.all[0].gather(b"whoami"), servers.all[0].gather(b"whoami")
    assert first is second
    servers.settle()
    assert servers.requests == 1 and isinstance(first, Future) and first.outcome == {b"n2": b"n2 "}


def test_a_server_that_hangs_delays_one_answer_only() -> None:
    servers = Servers(3)
    servers.hanging.add(b"n3")
    outcomes = servers.ask()
    assert outcomes == []
    servers.pass_seconds()
    assert outcomes == [{b"n2": b"n2 please"}]
    assert servers.ask() == [{b"n2": b"n2 please"}], "at once"
    assert servers.all[0].names == ["n1", "n2", "n3"], "it is known as missing"
    servers.hanging.clear()
    servers.ask()
    assert servers.ask() == [{b"n2": b"n2 please", b"n3": b"n3 please"}]


def test_waits_for_no_server_if_all_others_hang() -> None:
    servers = Servers(2)
    servers.hanging.add(b"n2")
    outcomes = servers.ask()
    servers.pass_seconds()
    assert outcomes == [{}] and servers.ask() == [{}]


def test_long_reports_are_compressed_and_too_long_ones_left_out() -> None:
    servers = Servers(3)
    servers.all[1].reports[b"whoami"] = lambda asked: b"row " * MAX_REPORT_BYTES
    servers.all[2].reports[b"whoami"] = lambda asked: random.Random(1).randbytes(MAX_REPORT_BYTES + 100)
    assert servers.ask() == [{b"n2": b"row " * MAX_REPORT_BYTES}]
    assert servers.timers, "and it has answered in time"
    servers.all[1].reports[b"whoami"] = lambda asked: b"row " * 8 * MAX_REPORT_BYTES + b"!"
    assert servers.ask() == [{}], "too long when it is decompressed"


def test_the_size_of_all_reports_together_is_limited() -> None:
    servers = Servers(65)
    content = random.Random(1).randbytes(MAX_REPORT_BYTES // 3)
    for server in servers.all:
        server.reports[b"whoami"] = lambda asked: content
    assert servers.ask() == [{}]


@pytest.mark.parametrize("damaged", [b"", b"\x78\x01damaged"])
def test_damaged_reports_are_rejected(damaged: bytes) -> None:
    servers = Servers(2)
    servers.all[0].gather(b"whoami")
    servers.calls.pop(0).done([b"n2.1"])
    with pytest.raises(ValueError):
        report = b"R\x94\xc4\x02n2\x01\xc3\xc4" + bytes([len(damaged)]) + damaged
        servers.all[0].received_report(report)


def test_few_requests_run_at_a_time_and_a_limited_number_waits() -> None:
    servers = Servers(2)
    answers = [servers.all[0].gather(b"whoami %d" % number) for number in range(MAX_AT_A_TIME + MAX_QUEUED + 1)]
    assert len(servers.calls) == MAX_AT_A_TIME
    assert [answer for answer in answers if isinstance(answer, Error)] == [UNAVAILABLE]
    servers.settle()
    assert all(answer.outcome for answer in answers if isinstance(answer, Future))


def test_a_server_prepares_a_limited_number_of_reports() -> None:
    servers = Servers(MAX_PREPARED + 2)
    prepared: list[Future[bytes]] = []

    def prepare(asked: bytes) -> Future[bytes]:
        prepared.append(Future())
        return prepared[-1]

    servers.all[1].reports[b"whoami"] = prepare
    for server in servers.all[2:]:
        server.gather(b"whoami")
    servers.settle()
    assert len(prepared) == MAX_PREPARED
    assert b"n2" not in servers.ask()[0], "it answers at once that it is busy"
    servers.pass_seconds()
    prepared[0].settle(b"late")
    assert servers.calls == [], "it is of no use any more"
    outcomes = servers.ask()
    prepared[-1].settle(UNAVAILABLE)
    servers.settle()
    assert b"n2" not in outcomes[0]


def test_requests_fail_without_a_connection() -> None:
    servers = Servers(2)
    server = servers.all[0]
    waiting = server.gather(b"whoami")
    server.disconnected()
    assert isinstance(waiting, Future) and waiting.outcome == UNAVAILABLE
    assert server.gather(b"whoami") == UNAVAILABLE
    servers.settle()
    server.connected()
    servers.calls.pop().done(RedisError("ERR"))
    assert servers.ask() == [{b"n2": b"n2 please"}]
    failed = server.gather(b"whoami")
    servers.calls.pop().done(RedisError("ERR"))
    assert isinstance(failed, Future) and failed.outcome == UNAVAILABLE
