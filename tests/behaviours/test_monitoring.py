"""Who may read what the bridge tells about itself: the same for every dialect."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.behaviours.voices import Voice, settle
from twistedsock.metrics.sys_channels import TICK_SECONDS, Monitor
from twistedsock.session.encoder import Endpoints
from twistedsock.testing import FakePolicy, FakeServer

PAGES = ["$sys/figures", "$sys/channels/rate/0", "$sys/peers/newest/0", "$sys/peer/p1", "$sys/closed"]
TOKENS: dict[str, Any] = {
    "root": ("root", {}, None),
    "all": ("ann", {">": "rw"}, None),
    "figures": ("bob", {"$sys/figures": "rw"}, None),
}
POLICY = FakePolicy({">": "rw"}, TOKENS, admins=["root"])


def watched(server: FakeServer) -> Monitor:
    monitor = Monitor(server.context, lambda: 1, lambda: 1.0)
    monitor.attach()
    return monitor


def seconds(server: FakeServer, monitor: Monitor, count: int) -> None:
    for _ in range(count):
        server.now += TICK_SECONDS
        monitor.tick()
        settle(server)


def code(answer: dict[str, Any]) -> Any:
    return answer["code"] if answer["type"] == "error" else answer["type"]


def test_on_this_machine_everybody_may_read_it(server: FakeServer, reader: Voice) -> None:
    monitor = watched(server)
    for page in PAGES:
        assert reader.asks("subscribe", channel=page)["type"] == "ok"
    seconds(server, monitor, 2)
    heard = reader.received()
    assert {message["channel"] for message in heard} == set(PAGES) - {"$sys/closed"}
    assert {message["from"] for message in heard} == {"$sys"}
    figures = [message["data"] for message in heard if message["name"] == "figures"]
    assert len(figures) == 2 and figures[0]["peers"]["total"] == 1
    assert reader.asks("publish", channel="$sys/figures", data="mine")["code"] == "forbidden"


@pytest.mark.parametrize("verb", ["subscribe", "history", "who"])
def test_without_a_policy_strangers_may_not(server: FakeServer, reader: Voice, verb: str) -> None:
    reader.client.session.endpoints = Endpoints(b"192.0.2.1:5000", b"192.0.2.2:8081")
    for page in PAGES:
        assert code(reader.asks(verb, channel=page)) == "forbidden"


@pytest.mark.parametrize("verb", ["subscribe", "history", "who"])
@pytest.mark.parametrize("token, allowed", [("", []), ("all", []), ("figures", PAGES[:1]), ("root", PAGES)])
def test_with_a_policy_it_takes_an_administrator_or_a_right_to_just_that(
    late: bool, reader_meets: Callable[[FakeServer], Voice], verb: str, token: str, allowed: list[str]
) -> None:
    """A right to every channel is none to these: addresses of peers are for administrators."""
    server = FakeServer(late, policy=POLICY)
    reader = reader_meets(server)
    if token:
        reader.asks("auth", token=token)
    refused = "forbidden" if token else "unauthorized"
    assert [code(reader.asks(verb, channel=page)) for page in PAGES] == [
        "ok" if page in allowed else refused for page in PAGES
    ]


def test_who_is_no_administrator_any_longer_hears_no_more(
    late: bool, reader_meets: Callable[[FakeServer], Voice]
) -> None:
    server = FakeServer(late, policy=POLICY)
    monitor, reader = watched(server), reader_meets(server)
    reader.asks("auth", token="root")
    reader.asks("subscribe", channel="$sys/figures")
    server.context.change_policy(FakePolicy({}, TOKENS))
    seconds(server, monitor, 2)
    assert [message["type"] for message in reader.received()] == ["notice"]
