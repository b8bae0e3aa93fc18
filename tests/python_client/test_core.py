"""Connections, commands and their results in the core of the Python client."""

import json
import math
from typing import Any

import pytest

from sockbridge.calls import MAX_UNANSWERED, MAX_WAITING
from sockbridge.core import Core, State
from sockbridge.errors import SockbridgeError
from sockbridge.values import Channel, Event, Lost, Member, Position, Welcome
from sockbridge.wire import JsonLines
from tests.python_client.link import Link, Outcome
from twistedsock.codecs.json_encoder import JSON_LINE_ENCODER
from twistedsock.errors import CloseReason
from twistedsock.testing import FakePolicy, FakeServer

WELCOME = b"WELCOME sockbridge/1 id=p1 from=127.0.0.1:50000 to=127.0.0.1:8081\n"


def core_with(input: bytes) -> Core:
    """A core on a connection that has received this."""
    core = Core(lambda: 0.5)
    core.begin(JsonLines(), 0.0)
    core.receive(input, 0.0)
    return core


def test_welcome_opens_the_client() -> None:
    core = core_with(WELCOME)
    assert core.state is State.OPEN
    assert core.welcome == Welcome("p1", "127.0.0.1:50000", "127.0.0.1:8081")


def test_first_message_selects_json() -> None:
    assert core_with(WELCOME).output() == b'{"type":"ping"}\n'


def test_nothing_is_sent_before_the_welcome() -> None:
    core = core_with(b"")
    core.publish("kitchen", 1, None, Outcome())
    assert core.output() == b""
    core.receive(WELCOME, 0.0)
    assert json.loads(core.output())["type"] == "publish"


@pytest.mark.parametrize(
    "line", [b"220 smtp.example.org ESMTP\n", b"WELCOME sockbridge/2 id=a from=b to=c\n", b"\xff\n"]
)
def test_closes_if_the_server_has_another_protocol(line: bytes) -> None:
    core = core_with(line)
    assert core.state is State.CLOSED and core.error is not None and core.error.code == "bad-answer"


def test_error_in_place_of_the_welcome_has_its_code() -> None:
    with pytest.raises(SockbridgeError, match="too many connections") as raised:
        core_with(b"ERR limit too many connections\n")
    assert raised.value.code == "limit"


def test_web_server_in_place_of_a_line_port_is_named() -> None:
    core = core_with(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    core.end(1.0)
    assert core.error is not None and core.error.message == "there is a web server: its addresses begin with ws://"


def test_end_before_the_welcome_explains_what_may_be_wrong() -> None:
    core = core_with(b"")
    core.end(1.0)
    assert core.error is not None
    assert (core.error.code, "a web port needs ws://" in core.error.message) == ("unreachable", True)


def test_client_that_gives_up_does_not_wait_for_another_attempt() -> None:
    states: list[State] = []
    core = Core(lambda: 0.5, on_state=lambda: states.append(core.state))
    assert core.end(1.0, SockbridgeError("unreachable", "refused"), give_up=True) is None
    assert states == [State.CLOSED] and core.error is not None and core.error.message == "refused"


DEEP = b"[" * 100_000
EVENT = b'{"type":"event","channel":"kitchen","offset":1,"time":%s,"from":"ann","name":"message","data":1}'


@pytest.mark.parametrize(
    "message",
    [
        b"{",
        b"{}]",
        b'{"type":"event"}',
        b'{"type":"lost","channel":"kitchen"}',
        b'{"type":[]}',
        b'{"type":"join","channel":"kitchen","peer":[]}',
        b'{"type":"event","data":%s' % DEEP,
        EVENT % b"1e30",
        EVENT % b"1e999",
        EVENT % b'"now"',
    ],
)
def test_message_that_cannot_be_read_is_an_error(message: bytes, link: Link) -> None:
    link.follow("kitchen")
    with pytest.raises(SockbridgeError) as raised:
        link.core.receive(message + b"\n", link.now)
    assert raised.value.code == "bad-answer"


@pytest.mark.parametrize("message", [b'{"type":"error"}', b'{"type":"welcome","protocol":1,"id":[]}', b"{"])
def test_welcome_that_cannot_be_read_is_an_error(message: bytes) -> None:
    core = Core(lambda: 0.5)
    core.begin(JsonLines(), 0.0)
    try:
        core.receive(message + b"\n", 0.0)
    except SockbridgeError as error:
        assert error.code == "bad-answer"
    else:
        assert core.is_closed


def test_integer_that_is_too_long_for_python_is_infinity(link: Link, server: FakeServer) -> None:
    """Otherwise, everybody who can publish could make the clients reconnect for ever."""
    followed = link.follow("kitchen")
    server.line_client().send("PUB kitchen [1%s]" % ("0" * 5000))
    link.run()
    assert followed.take_data() == [[math.inf]]


def test_exceptions_of_the_program_are_logged_and_end_nothing(
    server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    link = Link(server)
    link.connect()
    followed = link.follow("kitchen")
    link.on_notice = lambda text, code: 1 / 0
    notice = b'{"type":"notice","text":"hello","code":"a"}\n'
    link.core.receive(notice + b'{"type":"event","channel":"kitchen","offset":1,"time":1,', link.now)
    link.core.receive(b'"from":"a","name":"message","data":1}\n', link.now)
    assert followed.take_data() == [1] and "ZeroDivisionError" in caplog.text


def test_unknown_types_are_ignored(link: Link) -> None:
    link.core.receive(b'{"type":"later"}\n\n', link.now)
    assert link.core.state is State.OPEN


@pytest.mark.parametrize("data", ["text", "", "é", 21.5, True, None, [1, {"a": "b"}], b"\x00\xff", bytearray(b"x")])
def test_published_values_arrive_unchanged(link: Link, data: Any) -> None:
    followed = link.follow("kitchen")
    assert link.publish("kitchen", data).result == 1
    (event,) = followed.take()
    assert isinstance(event, Event) and event.data == data and event.name == "message"


def test_event_has_all_fields(link: Link, server: FakeServer) -> None:
    followed = link.follow("kitchen")
    link.publish("kitchen", 21.5, "reading")
    (event,) = followed.take()
    assert isinstance(event, Event)
    assert (event.channel, event.sender, event.name, event.position) == ("kitchen", "p1", "reading", Position("e1", 1))
    assert event.time.timestamp() == server.wall and event.time.utcoffset() is not None


@pytest.mark.parametrize("data", [float("nan"), float("inf"), object(), {1, 2}])
def test_value_that_is_not_json_is_rejected_and_not_sent(link: Link, data: Any) -> None:
    assert link.publish("kitchen", data).code == "bad-argument"
    assert link.publish("kitchen", 1).result == 1


def test_errors_of_the_server_have_their_code(link: Link) -> None:
    assert link.publish("kit*chen", 1).code == "bad-channel"


def test_history_has_events_and_gaps() -> None:
    link = Link(FakeServer(history_events=2))
    link.connect()
    for number in range(4):
        link.publish("kitchen", number)
    history = link.call(lambda outcome: link.core.history("kitchen", None, 1, None, outcome)).result
    assert [event.data for event in history.events] == [2, 3]
    assert history.lost == [Lost("kitchen", 2, 2, "e1")] and history.position == Position("e1", 4)


def test_members_are_listed(link: Link) -> None:
    link.follow("kitchen")
    link.call(lambda outcome: link.core.set_nick("ann", outcome))
    members = link.call(lambda outcome: link.core.members("kitchen", outcome)).result
    assert members == [Member("p1", "ann")]


def test_channels_are_listed_over_all_pages(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twistedsock.session.handlers.MAX_LISTED_CHANNELS", 2)
    for name in ("a/1", "a/2", "a/3", "b"):
        link.publish(name, 1)
    listed = link.call(lambda outcome: link.core.list_channels("a/", outcome)).result
    assert listed == [Channel("a/1", 0, 1), Channel("a/2", 0, 1), Channel("a/3", 0, 1)]


def test_nick_is_sent_again_after_a_reconnection(server: FakeServer) -> None:
    link = Link(server, nick="ann")
    link.connect()
    assert link.call(lambda outcome: link.core.set_nick("bob", outcome)).result == "bob"
    link.disconnect()
    link.connect()
    followed = link.follow("kitchen")
    link.publish("kitchen", 1)
    (event,) = followed.take()
    assert isinstance(event, Event) and event.sender == "bob"


class TestWithoutConnection:
    def test_commands_wait(self, server: FakeServer) -> None:
        link = Link(server)
        outcome = link.publish("kitchen", 1)
        assert not outcome.is_done
        link.connect()
        assert outcome.result == 1

    def test_commands_over_the_limit_fail(self, server: FakeServer) -> None:
        link = Link(server)
        outcomes = [link.publish("kitchen", number) for number in range(MAX_WAITING + 1)]
        assert outcomes[-1].code == "queue-full"
        link.connect()
        assert [outcome.result for outcome in outcomes[:-1]] == list(range(1, MAX_WAITING + 1))

    def test_unanswered_commands_over_the_limit_fail(self) -> None:
        core = core_with(WELCOME)
        outcomes = [Outcome() for _ in range(MAX_UNANSWERED + 1)]
        for outcome in outcomes:
            core.publish("kitchen", 1, None, outcome)
        assert outcomes[-1].code == "queue-full" and not any(outcome.is_done for outcome in outcomes[:-1])

    def test_sent_commands_fail_and_are_not_repeated(self, link: Link) -> None:
        outcome = Outcome()
        link.core.publish("kitchen", 1, None, outcome)
        link.core.output()
        link.disconnect()
        assert outcome.code == "disconnected"
        link.connect()
        assert link.publish("kitchen", 2).result == 1

    def test_command_that_a_program_repeats_when_it_fails_waits_for_the_next_connection(self, link: Link) -> None:
        outcome = Outcome()
        link.core.publish("kitchen", 1, None, lambda *_: link.core.publish("kitchen", 2, None, outcome))
        link.core.output()
        link.disconnect()
        link.core.begin(JsonLines(), link.now)
        assert link.core.output() == JsonLines().opening() and not outcome.is_done
        link.core.end(link.now)
        link.connect()
        assert outcome.result == 1

    @pytest.mark.parametrize("is_received", [False, True])
    def test_publication_with_a_key_is_repeated_and_published_once(self, link: Link, is_received: bool) -> None:
        outcome, other = Outcome(), Outcome()
        link.core.publish("kitchen", 1, "reading", outcome, "7c1f4e")
        link.core.publish("kitchen", 2, None, other)
        assert link.socket is not None
        if is_received:
            link.socket.send_messages(*link.core.output().splitlines())
        link.disconnect()
        assert other.code == "disconnected" and not outcome.is_done
        link.connect()
        assert outcome.result == 1
        assert link.publish("kitchen", 3).result == (3 if is_received else 2)

    def test_cancelled_publication_with_a_key_may_have_run(self, link: Link) -> None:
        outcome = Outcome()
        link.core.publish("kitchen", 1, None, outcome, "7c1f4e")
        link.core.output()
        link.disconnect()
        assert not link.core.calls.cancel(outcome)
        link.connect()
        assert not outcome.is_done and link.publish("kitchen", 2).result == 1

    def test_publication_with_a_key_fails_when_the_client_is_closed(self, link: Link) -> None:
        outcome = Outcome()
        link.core.publish("kitchen", 1, None, outcome, "7c1f4e")
        link.disconnect()
        link.core.close()
        assert outcome.code == "closed"

    def test_cancelled_command_is_not_sent(self, server: FakeServer) -> None:
        link = Link(server)
        outcome = Outcome()
        link.core.calls.call({"type": "publish", "channel": "kitchen", "data": 1}, outcome)
        assert link.core.calls.cancel(outcome) and not link.core.calls.cancel(outcome)
        link.connect()
        assert not outcome.is_done and link.publish("kitchen", 2).result == 1

    def test_answer_to_a_forgotten_command_is_ignored(self, link: Link) -> None:
        outcome = Outcome()
        for start in (
            lambda: link.core.publish("kitchen", 1, None, outcome),
            lambda: link.core.history("kitchen", 1, None, None, outcome),
            lambda: link.core.members("kitchen", outcome),
            lambda: link.core.list_channels("", outcome),
            lambda: link.core.set_nick("ann", outcome),
        ):
            start()
            assert not link.core.calls.cancel(outcome)
        link.run()
        assert not outcome.is_done and link.publish("kitchen", 2).result == 2

    def test_forgotten_commands_leave_room_for_others(self, link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sockbridge.calls.MAX_UNANSWERED", 1)
        outcome = Outcome()
        link.core.publish("kitchen", 1, None, outcome)
        link.core.calls.cancel(outcome)
        assert link.publish("kitchen", 2).result == 2


class TestReconnecting:
    def test_delays_double_up_to_the_longest(self, server: FakeServer) -> None:
        link = Link(server)
        assert [link.core.end(link.now) for _ in range(8)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]

    def test_stable_connection_sets_the_delay_back(self, link: Link) -> None:
        link.disconnect()
        link.connect()
        assert link.disconnect() == 0.5
        link.connect()
        link.now += 10
        assert link.disconnect() == 0.25

    @pytest.mark.parametrize(
        ("reason", "delay"),
        [
            (CloseReason.GOING_AWAY, 0.25),
            (CloseReason.TRY_AGAIN, 2),
            (CloseReason.POLICY, None),
            (CloseReason.NORMAL, None),
        ],
    )
    def test_close_code_determines_the_delay(self, link: Link, reason: CloseReason, delay: float | None) -> None:
        outcome = Outcome()
        link.core.publish("kitchen", 1, None, outcome)
        link.core.receive(JSON_LINE_ENCODER.close(reason, b"because"), link.now)
        assert link.disconnect() == delay
        assert outcome.code == "disconnected"
        assert link.core.error is not None and link.core.error.message == "because"
        assert (link.core.state is State.CLOSED) is (delay is None)

    def test_closed_client_does_nothing(self, link: Link) -> None:
        followed = link.follow("kitchen")
        link.core.close()
        assert [error.code for error in followed.ends] == ["closed"]
        assert link.publish("kitchen", 1).code == "closed"
        assert link.disconnect() is None
        link.core.close()
        assert link.states[-1] is State.CLOSED

    def test_silence_is_checked_with_a_ping(self, link: Link) -> None:
        assert link.core.deadline() == link.now + 25
        link.wait(25)
        assert link.core.deadline() == link.now + 25

    def test_connection_without_an_answer_is_given_up(self, link: Link) -> None:
        link.core.tick(link.now + 25)
        assert link.core.output() == b'{"type":"ping"}\n'
        link.core.tick(link.now + 34)
        with pytest.raises(SockbridgeError, match="does not answer"):
            link.core.tick(link.now + 35)

    def test_connection_without_a_welcome_is_given_up(self) -> None:
        core = core_with(b"")
        assert core.deadline() == 10
        with pytest.raises(SockbridgeError, match="no welcome"):
            core.tick(10)

    def test_without_a_connection_there_is_no_deadline(self, link: Link) -> None:
        link.disconnect()
        assert link.core.deadline() is None


class TestTokens:
    @pytest.fixture
    def server(self) -> FakeServer:
        tokens = {"ann": ("ann", {"kitchen": "rw"}, FakeServer().wall + 90)}
        return FakeServer(policy=FakePolicy({}, tokens))

    def test_token_is_sent_first(self, server: FakeServer) -> None:
        link = Link(server)
        followed = link.follow("kitchen")
        link.connect("ann")
        assert followed.readies == 1 and link.publish("kitchen", 1).result == 1

    def test_token_precedes_commands_of_a_program_that_is_told_of_the_state(self) -> None:
        def publish() -> None:
            if core.state is State.OPEN:
                core.publish("kitchen", 1, None, Outcome())

        core = Core(lambda: 0.5, on_state=publish)
        core.begin(JsonLines(), 0.0, "secret")
        core.receive(WELCOME, 0.0)
        assert [json.loads(line)["type"] for line in core.output().splitlines()] == ["auth", "publish"]

    def test_rejected_token_closes_the_client(self, server: FakeServer) -> None:
        link = Link(server)
        link.connect("unknown")
        assert link.core.state is State.CLOSED and link.core.error is not None
        assert link.core.error.code == "unauthorized"

    def test_notice_before_the_end_asks_for_a_new_token(self, server: FakeServer) -> None:
        link = Link(server)
        link.connect("ann")
        link.core.receive(b'{"type":"notice","text":"soon","code":"token-expires"}\n', link.now)
        assert link.renewals == 1 and link.notices == [("soon", "token-expires")]
        assert link.call(lambda outcome: link.core.authenticate("ann", outcome)).result["nick"] == "ann"

    def test_subscription_that_is_no_longer_allowed_ends(self, server: FakeServer) -> None:
        link = Link(server)
        link.connect("ann")
        followed = link.follow("kitchen")
        message = {"type": "notice", "text": "no longer", "code": "forbidden", "channel": "kitchen"}
        link.core.receive(json.dumps(message).encode() + b"\n", link.now)
        assert [error.code for error in followed.ends] == ["forbidden"]
        assert link.follow("kitchen").readies == 1

    def test_rejected_nick_is_reported(self, server: FakeServer) -> None:
        link = Link(server, nick="a b")
        link.connect()
        ((_, code),) = link.notices
        assert code == "bad-name" and link.core.state is State.OPEN
