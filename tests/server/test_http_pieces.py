"""A long history: in pieces, no faster than the client reads, and broken off where it may not be read any longer."""

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from tests.server.http_client import Asking
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads, Publication
from twistedsock.server.http import request as request_module
from twistedsock.server.http.request import WRITE_TIMEOUT_SECONDS
from twistedsock.testing import FakePolicy, FakeServer

KITCHEN = "/channels/kitchen/events"
EVENTS = 2_000


@pytest.fixture
def ask(reactor, wire):
    asking = Asking(
        FakeServer(policy=FakePolicy({"kitchen": "rw"}, {"A": ("ann", {"kitchen": "r"}, 1_800_000_100.0)})),
        reactor,
        wire,
    )
    asking.server.broker.publish(
        Client(b"p"), Publication(b"kitchen", Payloads((b"x" * 1000,) * EVENTS, 1000 * EVENTS), b"message")
    )
    asking.server.turn()
    return asking


def test_it_comes_whole_and_the_connection_goes_on(ask):
    for _ in range(2):
        answer = ask("GET", KITCHEN)
        assert answer.headers["transfer-encoding"] == "chunked" and "content-length" not in answer.headers
        assert answer.is_whole and len(answer.json["events"]) == EVENTS
    assert ask("GET", KITCHEN + "?last=1").headers["content-length"]


def test_it_is_chunked_also_when_the_connection_closes_behind_it(ask):
    """Otherwise a connection that breaks could not be told from the end of the answer."""
    answer = ask("GET", KITCHEN, Connection="close")
    assert answer.headers["transfer-encoding"] == "chunked" and answer.headers["connection"] == "close"
    assert answer.is_whole and len(answer.json["events"]) == EVENTS
    assert ask.transport.disconnecting


def test_in_http_1_0_its_end_is_that_of_the_connection(ask):
    ask.protocol.dataReceived(f"GET {KITCHEN} HTTP/1.0\r\n\r\n".encode())
    ask.settle()
    answer = ask.heard()
    assert "transfer-encoding" not in answer.headers and len(answer.json["events"]) == EVENTS
    assert ask.transport.disconnecting


@pytest.mark.parametrize("elapsed", [0.0, 99.0])
def test_it_comes_whole_as_long_as_the_token_is_valid(ask, elapsed):
    ask.send("GET", KITCHEN + "?token=A")
    ask.protocol.pauseProducing()
    ask.server.turn()
    ask.server.wall += elapsed
    ask.protocol.resumeProducing()
    ask.server.turn()
    answer = ask.heard()
    assert answer.is_whole and len(answer.json["events"]) == EVENTS


def test_who_does_not_read_is_not_written_to(ask):
    ask.send("GET", KITCHEN)
    ask.protocol.pauseProducing()
    ask.server.turn()
    written = len(ask.transport.value())
    assert written < 1.2 * CHUNK_BYTES
    ask.protocol.resumeProducing()
    ask.protocol.pauseProducing()
    ask.server.turn()
    assert len(ask.transport.value()) == written
    ask.protocol.resumeProducing()
    ask.server.turn()
    assert len(ask.heard().json["events"]) == EVENTS


def test_each_piece_is_written_in_a_turn_of_its_own(ask):
    ask.send("GET", KITCHEN)
    sizes = [len(ask.transport.heard())]
    while len(ask.server.turns):
        ask.server.turns.step()
        sizes.append(len(ask.transport.heard()))
    assert len(sizes) > 30 and max(sizes) < 1.2 * CHUNK_BYTES


def test_what_the_log_lets_go_meanwhile_is_not_held(ask):
    ask.send("GET", KITCHEN)
    ask.protocol.pauseProducing()
    ask.server.turn()
    channel = ask.server.broker.channels[b"kitchen"]
    channel.history.shrink(0)
    ask.protocol.resumeProducing()
    ask.server.turn()
    answer = ask.heard()
    sent = len(answer.json["events"])
    assert answer.is_whole and 0 < sent < EVENTS / 2 and "lost" not in answer.json
    assert answer.json["gaps"] == [{"first": sent + 1, "last": EVENTS}] and answer.json["next"] == f"e1:{EVENTS}"


def test_an_answer_tells_of_each_gap_and_reads_on_behind_it(reactor, wire):
    ask = Asking(FakeServer(history_events=300), reactor, wire)
    publisher = Client(b"p")

    def publish(count):
        ask.server.broker.publish(
            publisher, Publication(b"kitchen", Payloads((b"x" * 1000,) * count, 1000 * count), b"message")
        )

    publish(300)
    ask.send("GET", KITCHEN + "?since=0")
    for count in (140, 100):
        ask.protocol.pauseProducing()
        ask.server.turn()
        publish(count)
        ask.protocol.resumeProducing()
        ask.server.turns.step(), ask.server.turns.step()
    ask.server.turn()
    answer = ask.heard().json
    offsets = [event["offset"] for event in answer["events"]]
    missing = [offset for gap in answer["gaps"] for offset in range(gap["first"], gap["last"] + 1)]
    assert len(answer["gaps"]) == 2 and sorted(offsets + missing) == [*range(1, 301)]
    assert answer["next"] == "e1:300"


def test_who_reads_nothing_for_too_long_is_reset(ask, reactor):
    """A FIN would be taken for the end of the answer (RFC 9112 section 6.3), in HTTP/1.0 above all."""
    ask.send("GET", KITCHEN)
    ask.protocol.pauseProducing()
    ask.server.turn()
    reactor.advance(WRITE_TIMEOUT_SECONDS - 1)
    assert not ask.transport.aborted
    reactor.advance(1)
    assert ask.transport.aborted and not ask.transport.disconnecting


def test_a_fault_of_ours_amid_an_answer_resets_it(ask, logged, monkeypatch):
    ask.send("GET", KITCHEN)
    monkeypatch.setattr(request_module, "next", lambda *arguments: 1 / 0, raising=False)
    ask.server.turn()
    assert ask.transport.aborted
    assert [event["log_failure"].type for event in logged] == [ZeroDivisionError]
    logged.clear()


def test_a_server_that_ends_resets_the_answers_that_have_begun_and_no_others(ask):
    ask.send("GET", KITCHEN)
    begun = ask.transport
    ask.connect()
    ask.send("GET", KITCHEN.replace("kitchen", "quiet") + "?wait=9")
    ask.site.abort_unfinished()
    assert begun.aborted and not ask.transport.aborted


@pytest.mark.parametrize("reason", ["policy", "token"])
def test_it_breaks_off_where_it_may_not_be_read_any_longer(ask, reason):
    ask.send("GET", KITCHEN + "?token=A" * (reason == "token"))
    ask.protocol.pauseProducing()
    ask.server.turn()
    if reason == "policy":
        ask.server.context.change_policy(FakePolicy())
    else:
        ask.server.wall += 1_000.0
    ask.protocol.resumeProducing()
    ask.server.turn()
    assert ask.transport.aborted and not ask.heard().is_whole


@pytest.mark.parametrize("token", ["", "?token=A"])
@pytest.mark.parametrize(
    "policy",
    [
        FakePolicy({"kitchen": "rw"}, {"A": ("ann", {"kitchen": "r"}, 1_800_000_100.0)}),
        FakePolicy({">": "r"}, {"A": ("ann", {"*": "r"}, 1_800_000_200.0)}),
        None,
    ],
    ids=["the same", "another one that allows it", "none any more"],
)
def test_it_goes_on_under_another_policy_that_allows_it(ask, token, policy):
    """As after a SIGHUP, which drops nobody who may go on."""
    ask.send("GET", KITCHEN + token)
    ask.protocol.pauseProducing()
    ask.server.turn()
    ask.server.context.change_policy(policy)
    ask.protocol.resumeProducing()
    ask.server.turn()
    answer = ask.heard()
    assert answer.is_whole and len(answer.json["events"]) == EVENTS


@pytest.mark.parametrize(
    "policy",
    [
        FakePolicy({"kitchen": "rw"}),
        FakePolicy({}, {"A": ("ann", {"kitchen": "w"}, 1_800_000_100.0)}),
        FakePolicy({"kitchen": "rw"}, {"A": ("ann", {"kitchen": "r"}, 1_799_999_999.0)}),
    ],
    ids=["token unknown", "right to read gone", "token over"],
)
def test_it_breaks_off_under_another_policy_that_does_not_allow_it(ask, policy):
    ask.send("GET", KITCHEN + "?token=A")
    ask.protocol.pauseProducing()
    ask.server.turn()
    ask.server.context.change_policy(policy)
    ask.protocol.resumeProducing()
    ask.server.turn()
    assert ask.transport.aborted and not ask.heard().is_whole


def test_who_goes_away_leaves_nothing_behind(ask, reactor):
    ask.send("GET", KITCHEN)
    ask.protocol.pauseProducing()
    ask.protocol.connectionLost(Failure(ConnectionDone()))
    ask.server.turn()
    assert reactor.getDelayedCalls() == []


def test_who_only_sends_is_cut_off_all_the_same(ask, reactor):
    ask.send("GET", KITCHEN)
    ask.protocol.pauseProducing()
    ask.server.turn()
    reactor.advance(WRITE_TIMEOUT_SECONDS - 1)
    ask.protocol.dataReceived(b"G")
    reactor.advance(1)
    assert ask.transport.disconnecting or ask.transport.disconnected


def test_who_has_not_read_what_was_before_is_not_written_to(ask):
    """TLS tells once that it has too much, though more is written."""
    write = ask.transport.write

    def fill(data):
        ask.transport.write = write
        write(data)
        ask.protocol.pauseProducing()

    ask.transport.write = fill
    ask.send("GET", KITCHEN)
    ask.server.turn()
    assert len(ask.transport.value()) < CHUNK_BYTES
    ask.protocol.resumeProducing()
    ask.server.turn()
    assert len(ask.heard().json["events"]) == EVENTS
