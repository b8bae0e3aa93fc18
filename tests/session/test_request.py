"""Tests of requests: they have the same rights, names and results as sessions, and keep no state."""

from typing import Any

import msgspec
import pytest

from tests.session.clients import settle
from twistedsock.auth.identity import Identity, Right, grants
from twistedsock.errors import KEY_REUSED, RESERVED_CHANNEL, UNAVAILABLE, Error, ErrorCode
from twistedsock.limits.settings import CHUNK_BYTES
from twistedsock.pubsub.future import Future
from twistedsock.pubsub.values import Lost, Payloads, Position, Publication
from twistedsock.session.history_query import HistoryQuery, Moment
from twistedsock.session.request import HistoryPage, RequestClient
from twistedsock.testing import FakePolicy, FakeServer

HERE = b"127.0.0.1:50000"
AWAY = b"192.0.2.7:50000"
POLICY = FakePolicy(
    {"lobby": "rw"}, {"A": ("ann", {"kitchen": "rw", "news": "r"}, None), "ROOT": ("root", {}, None)}, admins=["root"]
)


def publication(channel: bytes, *payloads: bytes, name: bytes = b"message") -> Publication:
    return Publication(channel, Payloads(payloads, sum(map(len, payloads))), name)


def visitor(server: FakeServer, token: bytes = b"", client: bytes = HERE) -> RequestClient:
    identity = server.context.authenticate("tcp:8082", token or None)
    assert not isinstance(identity, Error)
    return RequestClient(server.context, "tcp:8082", client, identity)


def settled(server: FakeServer, answer: Any) -> Any:
    """An answer, when it is there."""
    told: list[Any] = []
    if not isinstance(answer, Future):
        server.turn()
        return answer
    answer.then(told.append)
    settle(server)
    assert len(told) == 1
    return told[0]


def code(outcome: object) -> ErrorCode | None:
    return outcome.code if isinstance(outcome, Error) else None


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def server(request: pytest.FixtureRequest) -> FakeServer:
    return FakeServer(late=request.param, history_events=5)


def test_publishes_and_keeps_no_state(server: FakeServer) -> None:
    reader = server.line_client()
    reader.send("SUB kitchen")
    settled(server, visitor(server).members(b"kitchen"))
    reader.received()
    assert settled(server, visitor(server).publish(publication(b"kitchen", b"hello", b"again"))) == Position(b"e1", 1)
    assert settled(server, visitor(server).publish(publication(b"kitchen", b"x", name=b"alarm"), b"bob")) == Position(
        b"e1", 3
    )
    assert reader.received() == ["MSG kitchen 1 p2 hello", "MSG kitchen 2 p2 again", "EVENT kitchen 3 bob alarm x"]
    assert len(server.context.sessions) == 1


def test_flushes_many_events_at_once() -> None:
    server = FakeServer()
    reader = server.line_client()
    reader.send("SUB kitchen")
    server.turn()
    visitor(server).publish(publication(b"kitchen", b"x" * CHUNK_BYTES))
    assert b"MSG kitchen 1 " in reader.outlet.sent


@pytest.mark.parametrize(
    "channel, name, nick, refused",
    [
        (b"a*b", b"x", b"", ErrorCode.BAD_CHANNEL),
        (b"a", b"x y", b"", ErrorCode.BAD_NAME),
        (b"a", b"x", b"x y", ErrorCode.BAD_NAME),
        (b"a", b"x", b"p1", ErrorCode.BAD_NAME),
        (b"$sys/a", b"x", b"", ErrorCode.FORBIDDEN),
    ],
)
def test_failed_publish_keeps_no_state(
    server: FakeServer, channel: bytes, name: bytes, nick: bytes, refused: ErrorCode
) -> None:
    server.line_client()
    assert code(settled(server, visitor(server).publish(publication(channel, b"x", name=name), nick))) is refused
    assert len(server.context.sessions) == 1 and not server.broker.channels


def test_reports_a_backplane_that_does_not_answer() -> None:
    server = FakeServer(late=True)
    server.backplane.failing = 1
    assert code(settled(server, visitor(server).publish(publication(b"a", b"x")))) is ErrorCode.UNAVAILABLE
    assert len(server.context.sessions) == 0


def test_channel_stays_open_until_the_publication_is_answered() -> None:
    """The answer has the epoch of the channel, which is known only while it is open."""
    server = FakeServer(late=True)
    first, answer = visitor(server).history(b"a"), visitor(server).publish(publication(b"a", b"x"))
    server.backplane.release()  # the channel is open for both, and closed after the first
    server.backplane.release()
    settled(server, visitor(server).history(b"a"))
    assert isinstance(first, Future) and settled(server, answer) == Position(b"e1", 1)

    server = FakeServer(late=True)
    answer = visitor(server).publish(publication(b"a", b"x"))
    server.backplane.release(1)
    visitor(server).history(b"a")
    assert server.broker.channels
    server.backplane.failing = 1
    assert code(settled(server, answer)) is ErrorCode.UNAVAILABLE and not server.broker.channels


@pytest.mark.parametrize(
    "token, nick, shown", [(b"", b"", b"p1"), (b"", b"bob", b"~bob"), (b"A", b"", b"ann"), (b"A", b"bob", b"~bob")]
)
def test_policy_marks_unverified_nicks(token: bytes, nick: bytes, shown: bytes) -> None:
    server = FakeServer(policy=POLICY)
    channel = b"kitchen" if token else b"lobby"
    assert visitor(server, token).publish(publication(channel, b"x"), nick) == Position(b"e1", 1)
    server.turn()
    kept = visitor(server, token).history(channel)
    assert isinstance(kept, HistoryPage)
    assert [event.sender for event in kept.events] == [shown]


def test_rejects_nicks_that_are_ids_of_sessions() -> None:
    server = FakeServer(policy=FakePolicy({}, {"P": ("p1", {"a": "rw"}, None)}))
    server.line_client()
    assert code(visitor(server, b"P").publish(publication(b"a", b"x"))) is ErrorCode.BAD_NAME


def test_has_the_rights_of_a_session() -> None:
    server = FakeServer(policy=POLICY)
    nobody, ann, root = visitor(server), visitor(server, b"A"), visitor(server, b"ROOT")
    assert code(nobody.publish(publication(b"kitchen", b"x"))) is ErrorCode.UNAUTHORIZED
    assert code(ann.publish(publication(b"news", b"x"))) is ErrorCode.FORBIDDEN
    assert code(nobody.history(b"kitchen")) is ErrorCode.UNAUTHORIZED
    assert code(nobody.members(b"kitchen")) is ErrorCode.UNAUTHORIZED
    assert ann.members(b"news") == [] and (ann.subject, nobody.subject) == (b"ann", b"")
    assert (nobody.is_admin, ann.is_admin, root.is_admin) == (False, False, True)
    assert root.check_access(b"$sys/figures", Right.READ) is None
    granted = RequestClient(server.context, "tcp:8082", HERE, Identity(grants({"$sys/>": "rw", ">": "rw"}), b"eve"))
    for someone in (root, granted, visitor(FakeServer())):
        for channel in (b"$sys/figures", b"$sys/new"):
            assert someone.publish(publication(channel, b"x")) == RESERVED_CHANNEL
            assert someone.publish_all([publication(channel, b"x")]) == [RESERVED_CHANNEL]
    assert visitor(FakeServer()).is_admin and not visitor(FakeServer(), client=AWAY).is_admin
    assert visitor(FakeServer()).subject == b""


def test_checks_the_right_to_read_again_after_waiting() -> None:
    server = FakeServer(late=True, policy=POLICY)
    ann = visitor(server, b"A")
    answer = ann.history(b"kitchen")
    ann._identity = server.context.policy.anonymous("") if server.context.policy else None
    assert code(settled(server, answer)) is ErrorCode.UNAUTHORIZED
    assert not server.broker.channels


def test_does_not_open_a_channel_without_the_right_to_read() -> None:
    server = FakeServer(late=True, policy=POLICY)
    nobody = visitor(server)
    assert code(nobody.history(b"kitchen")) is code(nobody.members(b"kitchen")) is ErrorCode.UNAUTHORIZED
    assert code(nobody.publish(publication(b"kitchen", b"x"))) is ErrorCode.UNAUTHORIZED
    outcomes = nobody.publish_all([publication(b"kitchen", b"x")])
    assert isinstance(outcomes, list) and code(outcomes[0]) is ErrorCode.UNAUTHORIZED
    assert len(server.backplane) == 0


def publish_nine(server: FakeServer) -> None:
    """Nine events, one each second."""
    for number in range(1, 10):
        server.wall += 1
        settled(server, visitor(server).publish(publication(b"k", b"%d" % number)))


@pytest.mark.parametrize(
    "asked, offsets, recovered, lost",
    [
        ({}, [5, 6, 7, 8, 9], None, None),
        ({"last": 2}, [8, 9], None, None),
        ({"since": 7}, [8, 9], None, None),
        ({"since": 5, "last": 1}, [9], None, None),
        ({"since": 1}, [5, 6, 7, 8, 9], None, Lost(2, 4)),
        ({"since": 1, "last": 7}, [5, 6, 7, 8, 9], None, Lost(3, 4)),
        ({"last": 7}, [5, 6, 7, 8, 9], None, None),
        ({"since": 7, "epoch": b"e1"}, [8, 9], True, None),
        ({"since": 9, "epoch": b"e1"}, [], True, None),
        ({"since": 1, "epoch": b"e1"}, [5, 6, 7, 8, 9], False, Lost(2, 4)),
        ({"since": 7, "epoch": b"e9"}, [], False, None),
        ({"since": 7, "epoch": b"e9", "last": 1}, [9], False, None),
        ({"since": 99, "epoch": b"e1"}, [], False, None),
        ({"after": 7}, [8, 9], None, None),
        ({"since": 1, "epoch": b"e1", "after": 7}, [8, 9], False, None),
        ({"since": 7, "epoch": b"e9", "after": 6}, [7, 8, 9], False, None),
        ({"since": 7, "epoch": b"e9", "after": 6, "last": 1}, [9], False, None),
        ({"after": Moment(-2_500, is_relative=True)}, [7, 8, 9], None, None),
    ],
)
def test_reads_history_and_reports_recovery(asked: Any, offsets: list[int], recovered: bool | None, lost: Any) -> None:
    server = FakeServer(history_events=5)
    server.line_client().send("SUB k")
    publish_nine(server)
    query = HistoryQuery(**{name: value for name, value in asked.items() if name != "epoch"})
    kept = settled(server, visitor(server).history(b"k", query, asked.get("epoch")))
    assert isinstance(kept, HistoryPage)
    assert [event.offset for event in kept.events] == offsets
    assert (kept.recovered, kept.lost, kept.position) == (recovered, lost, Position(b"e1", 9))
    assert (kept.start, kept.stop) == (offsets[0] if offsets else 10, 10)


def test_history_can_end_before_the_newest_event() -> None:
    server = FakeServer(history_events=5)
    publish_nine(server)
    kept = settled(server, visitor(server).history(b"k", HistoryQuery(since=1, before=7)))
    assert [event.offset for event in kept.events] == [5, 6]
    assert (kept.start, kept.stop, kept.lost, kept.position) == (5, 7, Lost(2, 4), Position(b"e1", 9))
    kept = settled(server, visitor(server).history(b"k", HistoryQuery(since=1, last=1, before=7), b"e9"))
    assert [event.offset for event in kept.events] == [6] and kept.recovered is False


def test_history_includes_what_only_the_backplane_has() -> None:
    server = FakeServer(late=True, keeps_history=True, history_events=2)
    for _ in range(5):
        settled(server, visitor(server).publish(publication(b"k", b"x")))
    page = settled(server, visitor(server).history(b"k", HistoryQuery(since=1), b"e1"))
    assert (page.start, page.stop, page.recovered, page.lost) == (2, 6, True, None)
    in_memory = visitor(server).read_page(server.broker.channels[b"k"], HistoryQuery(since=1), b"e1")
    assert (in_memory.start, in_memory.recovered, in_memory.lost) == (4, False, Lost(2, 3))
    server.backplane.failing = 1
    page = settled(server, visitor(server).history(b"k", HistoryQuery(since=1), b"e1"))
    assert (page.start, page.recovered, page.lost) == (4, False, Lost(2, 3))
    server.backplane.failing = 1
    moment = Moment(int(server.wall * 1000))
    assert settled(server, visitor(server).history(b"k", HistoryQuery(before=moment))) is UNAVAILABLE


def test_history_of_an_unknown_channel_keeps_no_channel(server: FakeServer) -> None:
    kept = settled(server, visitor(server).history(b"k"))
    assert isinstance(kept, HistoryPage) and list(kept.events) == [] and kept.position.offset == 0
    assert not server.broker.channels


def test_batch_has_one_sender_and_a_result_for_each_publication(server: FakeServer) -> None:
    reader = server.line_client()
    reader.send("SUB kitchen", "SUB yard")
    settled(server, visitor(server).members(b"kitchen"))
    settled(server, visitor(server).members(b"yard"))
    reader.received()
    asked = [
        publication(b"kitchen", b"a", b"b"),
        publication(b"no good", b"x"),
        publication(b"$sys/x", b"x"),
        publication(b"yard", b"c"),
        publication(b"kitchen", b"x", name=b"no good"),
        publication(b"kitchen", b"d", name=b"alarm"),
    ]
    told = settled(server, visitor(server).publish_all(asked))
    assert [code(one) or one.offset for one in told] == [
        1,
        ErrorCode.BAD_CHANNEL,
        ErrorCode.FORBIDDEN,
        1,
        ErrorCode.BAD_NAME,
        3,
    ]
    assert sorted(reader.received()) == [
        "EVENT kitchen 3 p2 alarm d",
        "MSG kitchen 1 p2 a",
        "MSG kitchen 2 p2 b",
        "MSG yard 1 p2 c",
    ]
    assert len(server.context.sessions) == 1


def test_batch_with_a_key_is_published_once() -> None:
    """Its first event alone shows whether the key was used before: a batch of fewer events could go unnoticed."""
    server = FakeServer(late=True)

    def publish(fingerprint: bytes, *channels: bytes) -> Any:
        asked = [
            msgspec.structs.replace(publication(channel, b"x"), key=b"key", fingerprint=fingerprint)
            for channel in channels
        ]
        return settled(server, visitor(server).publish_all(asked))

    first = publish(b"1", b"no good", b"kitchen", b"yard")
    assert [code(one) or one.offset for one in first] == [ErrorCode.BAD_CHANNEL, 1, 1]
    again = publish(b"1", b"no good", b"kitchen", b"yard")
    assert [code(one) or one.offset for one in again] == [ErrorCode.BAD_CHANNEL, 1, 1]
    assert [code(one) for one in publish(b"1", b"no good")] == [ErrorCode.BAD_CHANNEL]
    assert publish(b"2", b"kitchen") is KEY_REUSED
    assert len(server.context.sessions) == 0


def test_batch_with_an_invalid_nick_publishes_nothing(server: FakeServer) -> None:
    server.line_client()
    assert (
        code(settled(server, visitor(server).publish_all([publication(b"a", b"x")], b"no good"))) is ErrorCode.BAD_NAME
    )
    assert code(settled(server, visitor(server).publish_all([publication(b"a", b"x")], b"p1"))) is ErrorCode.BAD_NAME
    assert settled(server, visitor(server).publish_all([])) == []
    assert len(server.context.sessions) == 1 and not server.broker.channels


def test_caches_the_rights_on_channels(server: FakeServer) -> None:
    assert RequestClient(server.context, "", HERE).readable() is None
    server.context.policy = FakePolicy({"a": "r", "b": "w"})
    readable = RequestClient(server.context, "", HERE).readable()
    assert readable is not None and readable.select([b"a", b"b", b"c"]) == [b"a"]
