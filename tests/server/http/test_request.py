"""Long responses: written as fast as the client reads, and aborted if it may no longer read them."""

import pytest

from tests.fakes import FakeReactor, Logged
from tests.server.http.clients import APIClient, MakeAPI, Response
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import Payloads, Publication
from twistedsock.server.http import streaming
from twistedsock.server.http.streaming import WRITE_TIMEOUT_SECONDS
from twistedsock.testing import FakePolicy

KITCHEN = "/channels/kitchen/events"
EVENTS = 2_000


ANN = ("ann", {"kitchen": "r"}, 1_800_000_100.0)
POLICY = FakePolicy({"kitchen": "rw"}, {"A": ANN})


@pytest.fixture
def api(make_api: MakeAPI) -> APIClient:
    api = make_api(policy=POLICY)
    publish(api, EVENTS)
    api.server.turn()
    return api


def publish(api: APIClient, count: int) -> None:
    payloads = Payloads((b"x" * 1000,) * count, 1000 * count)
    api.server.broker.publish(Client(b"p"), Publication(b"kitchen", payloads, b"message"))


def begin(api: APIClient, query: str = "") -> None:
    """Request the history, and read only the first piece of the response."""
    api.send("GET", KITCHEN + query)
    api.protocol.pauseProducing()
    api.server.turn()


def resume(api: APIClient) -> None:
    api.protocol.resumeProducing()
    api.server.turn()


def is_whole(response: Response) -> bool:
    return response.is_complete and len(response.json["events"]) == EVENTS


def test_long_history_is_chunked_and_the_connection_kept(api: APIClient) -> None:
    for _ in range(2):
        response = api("GET", KITCHEN)
        assert response.headers["transfer-encoding"] == "chunked" and "content-length" not in response.headers
        assert is_whole(response)
    assert api("GET", KITCHEN + "?last=1").headers["content-length"]


def test_long_history_is_chunked_before_a_close(api: APIClient) -> None:
    """Otherwise a broken connection would look like the end of the response."""
    response = api("GET", KITCHEN, Connection="close")
    assert response.headers["transfer-encoding"] == "chunked" and response.headers["connection"] == "close"
    assert is_whole(response)
    assert api.transport.disconnecting


def test_connection_ends_a_long_response_to_http_1_0(api: APIClient) -> None:
    api.protocol.dataReceived(f"GET {KITCHEN} HTTP/1.0\r\n\r\n".encode())
    api.settle()
    response = api.response()
    assert "transfer-encoding" not in response.headers and len(response.json["events"]) == EVENTS
    assert api.transport.disconnecting


def test_does_not_write_to_a_client_that_does_not_read(api: APIClient) -> None:
    begin(api)
    written = len(api.transport.value())
    assert written < 1.2 * CHUNK_BYTES
    api.protocol.resumeProducing()
    api.protocol.pauseProducing()
    api.server.turn()
    assert len(api.transport.value()) == written
    resume(api)
    assert is_whole(api.response())


def test_writes_one_piece_per_turn(api: APIClient) -> None:
    api.send("GET", KITCHEN)
    sizes = [len(api.transport.output())]
    while len(api.server.turns):
        api.server.turns.step()
        sizes.append(len(api.transport.output()))
    assert len(sizes) > 30 and max(sizes) < 1.2 * CHUNK_BYTES


def test_reports_events_dropped_during_the_response(api: APIClient) -> None:
    begin(api)
    api.server.broker.channels[b"kitchen"].history.shrink(0)
    resume(api)
    response = api.response()
    sent = len(response.json["events"])
    assert response.is_complete and 0 < sent < EVENTS / 2 and "lost" not in response.json
    assert response.json["gaps"] == [{"first": sent + 1, "last": EVENTS}] and response.json["next"] == f"e1:{EVENTS}"


def test_reports_each_gap_and_continues(make_api: MakeAPI) -> None:
    api = make_api(history_events=300)
    publish(api, 300)
    api.send("GET", KITCHEN + "?since=0")
    for count in (140, 100):
        api.protocol.pauseProducing()
        api.server.turn()
        publish(api, count)
        api.protocol.resumeProducing()
        api.server.turns.step(), api.server.turns.step()
    api.server.turn()
    response = api.response().json
    offsets = [event["offset"] for event in response["events"]]
    missing = [offset for gap in response["gaps"] for offset in range(gap["first"], gap["last"] + 1)]
    assert len(response["gaps"]) == 2 and sorted(offsets + missing) == [*range(1, 301)]
    assert response["next"] == "e1:300"


def test_resets_a_client_that_reads_nothing_for_too_long(api: APIClient, reactor: FakeReactor) -> None:
    """A FIN would mark the response as complete (RFC 9112 section 6.3)."""
    begin(api)
    reactor.advance(WRITE_TIMEOUT_SECONDS - 1)
    assert not api.transport.aborted
    reactor.advance(1)
    assert api.transport.aborted and not api.transport.disconnecting


def test_exception_during_the_response_resets_the_connection(
    api: APIClient, logged: Logged, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.send("GET", KITCHEN)
    monkeypatch.setattr(streaming, "next", lambda *arguments: 1 / 0, raising=False)
    api.server.turn()
    assert api.transport.aborted
    assert [event["log_failure"].type for event in logged] == [ZeroDivisionError]
    logged.clear()


def test_shutdown_resets_only_responses_that_have_begun(api: APIClient) -> None:
    api.send("GET", KITCHEN)
    begun = api.transport
    api.connect()
    api.send("GET", KITCHEN.replace("kitchen", "quiet") + "?wait=9")
    api.site.abort_unfinished()
    assert begun.aborted and not api.transport.aborted


def test_continues_while_the_token_is_valid(api: APIClient) -> None:
    begin(api, "?token=A")
    api.server.wall += 99
    resume(api)
    assert is_whole(api.response())


def test_aborts_when_the_token_expires(api: APIClient) -> None:
    begin(api, "?token=A")
    api.server.wall += 1_000
    resume(api)
    assert api.transport.aborted and not api.response().is_complete


@pytest.mark.parametrize("token", ["", "?token=A"])
@pytest.mark.parametrize(
    "policy",
    [
        FakePolicy({"kitchen": "rw"}, {"A": ANN}),
        FakePolicy({">": "r"}, {"A": ("ann", {"*": "r"}, 1_800_000_200.0)}),
        None,
    ],
    ids=["same", "other", "none"],
)
def test_continues_under_a_new_policy_that_allows_it(api: APIClient, token: str, policy: FakePolicy | None) -> None:
    begin(api, token)
    api.server.context.change_policy(policy)
    resume(api)
    assert is_whole(api.response())


@pytest.mark.parametrize(
    ("token", "policy"),
    [
        ("", FakePolicy()),
        ("?token=A", FakePolicy({"kitchen": "rw"})),
        ("?token=A", FakePolicy({}, {"A": ("ann", {"kitchen": "w"}, 1_800_000_100.0)})),
        ("?token=A", FakePolicy({"kitchen": "rw"}, {"A": ("ann", {"kitchen": "r"}, 1_799_999_999.0)})),
    ],
    ids=["anonymous", "unknown token", "no right", "expired token"],
)
def test_aborts_under_a_new_policy_that_forbids_it(api: APIClient, token: str, policy: FakePolicy) -> None:
    begin(api, token)
    api.server.context.change_policy(policy)
    resume(api)
    assert api.transport.aborted and not api.response().is_complete


def test_disconnect_leaves_no_timers(api: APIClient, reactor: FakeReactor) -> None:
    api.send("GET", KITCHEN)
    api.protocol.pauseProducing()
    api.disconnect()
    api.server.turn()
    assert reactor.getDelayedCalls() == []


def test_sending_does_not_extend_the_write_timeout(api: APIClient, reactor: FakeReactor) -> None:
    begin(api)
    reactor.advance(WRITE_TIMEOUT_SECONDS - 1)
    api.protocol.dataReceived(b"G")
    reactor.advance(1)
    assert api.transport.disconnecting or api.transport.disconnected


def test_waits_if_the_head_has_filled_the_transport(api: APIClient) -> None:
    """TLS pauses its producer only once, even if more is written."""
    write = api.transport.write

    def fill(data: bytes) -> None:
        api.transport.write = write
        write(data)
        api.protocol.pauseProducing()

    api.transport.write = fill
    api.send("GET", KITCHEN)
    api.server.turn()
    assert len(api.transport.value()) < CHUNK_BYTES
    resume(api)
    assert is_whole(api.response())


# Histories that are read from the backplane.


@pytest.fixture
def kept(make_api: MakeAPI) -> APIClient:
    """The history holds three of 40 events, which fill three chunks; the backplane has all."""
    api = make_api(late=True, keeps_history=True, history_events=3)
    for _ in range(40):
        api("POST", KITCHEN, b"x" * 4_000)
    return api


def offsets(response: Response) -> list[int]:
    return [event["offset"] for event in response.json["events"]]


def test_reads_what_the_history_has_dropped(kept: APIClient) -> None:
    response = kept("GET", KITCHEN + "?after=0")
    assert response.headers["transfer-encoding"] == "chunked" and response.is_complete
    assert offsets(response) == [*range(1, 41)] and response.json["next"] == "e1:40"
    response = kept("GET", KITCHEN + "?after=30&before=33")
    assert response.headers["content-length"] and offsets(response) == [31, 32]
    etag = response.headers["etag"]
    assert kept("GET", KITCHEN + "?after=30&before=33", If_None_Match=etag).status == 304
    assert kept("HEAD", KITCHEN + "?after=0").status == 200
    assert offsets(kept("GET", KITCHEN)) == [38, 39, 40]


@pytest.mark.parametrize(
    ("first_kept", "position", "recovered", "first", "lost"),
    [
        (1, "since=30&epoch=e1", True, 31, None),
        (33, "since=30&epoch=e1", False, 33, {"first": 31, "last": 32}),
        (31, "since=30&epoch=e1", True, 31, None),
        (1, "since=38&epoch=e1", True, 39, None),
        (1, "since=30&epoch=other", False, None, None),
    ],
)
def test_recovers_from_what_the_backplane_has(
    kept: APIClient, first_kept: int, position: str, recovered: bool, first: int | None, lost: object
) -> None:
    kept.server.backplane.first_kept = first_kept
    response = kept("GET", f"{KITCHEN}?{position}")
    assert response.json["recovered"] is recovered and response.json.get("lost") == lost
    assert offsets(response) == ([] if first is None else [*range(first, 41)])


def test_reports_what_cannot_be_read_in_the_middle(kept: APIClient) -> None:
    kept.send("GET", KITCHEN + "?after=0")
    kept.server.backplane.release(1)
    kept.server.turn()
    kept.server.backplane.failing = 1
    kept.settle()
    response = kept.response()
    (gap,) = response.json["gaps"]
    assert gap["last"] == 37 and offsets(response) == [*range(1, gap["first"]), 38, 39, 40]


def test_client_that_does_not_read_is_not_read_for(kept: APIClient) -> None:
    kept.send("GET", KITCHEN + "?after=0")
    kept.server.backplane.release(1)
    kept.server.turn()
    kept.server.backplane.release(1)
    kept.protocol.pauseProducing()
    kept.settle()
    written = len(kept.transport.value())
    kept.settle()
    assert written == len(kept.transport.value()) < 3 * CHUNK_BYTES and len(kept.server.backplane) == 0
    kept.protocol.resumeProducing()
    kept.settle()
    assert offsets(kept.response()) == [*range(1, 41)]


@pytest.mark.parametrize("answered", [0, 1])
def test_disconnection_ends_the_reading(kept: APIClient, answered: int, logged: Logged) -> None:
    kept.send("GET", KITCHEN + "?after=0")
    kept.server.backplane.release(answered)
    kept.server.turn()
    kept.disconnect()
    kept.settle()
    assert kept.server.broker.memory_budget.used == 0 and logged == []


def test_right_is_checked_again_after_the_wait(make_api: MakeAPI) -> None:
    api = make_api(policy=FakePolicy(anonymous={"kitchen": "rw"}), late=True, keeps_history=True, history_events=1)
    for _ in range(30):
        api("POST", KITCHEN, b"x" * 4_000)
    api.send("GET", KITCHEN + "?after=0")
    api.server.backplane.release(1)
    api.server.context.policy = FakePolicy(anonymous={"kitchen": "w"})
    api.settle()
    assert api.transport.aborted
