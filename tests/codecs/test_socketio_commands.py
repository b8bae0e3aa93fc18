"""Socket.IO clients of the broker: namespaces, the main namespace, bytes and recovery, as packets."""

import json
from typing import Any

import pytest
from hypothesis import strategies as st

from tests.fuzz.properties import holds
from tests.socketio_clients import SocketIOClient
from twistedsock.codecs.socketio_encoder import MAIN_EVENTS, MAX_LIST_BYTES, ack_tag
from twistedsock.codecs.websocket import split_frames
from twistedsock.errors import NICK_IS_AN_ID, CloseReason
from twistedsock.pubsub.values import Member
from twistedsock.session.commands import Publish
from twistedsock.session.session import SessionState
from twistedsock.testing import FakePolicy, FakeServer

TIME = 1_800_000_000_000

ATTACHMENT = '{"_placeholder":true,"num":0}'


def meta(offset: int, sender: str = "p1", channel: str = "kitchen", **more: Any) -> str:
    fields = {"channel": channel, "offset": offset, "time": TIME, "from": sender, **more}
    return json.dumps(fields, separators=(",", ":"))


@pytest.fixture
def server() -> FakeServer:
    return FakeServer(history_events=5)


@pytest.fixture
def client(server: FakeServer) -> SocketIOClient:
    """A client in the namespace ``/kitchen``."""
    client = SocketIOClient(server)
    client.join("/kitchen")
    return client


@pytest.fixture
def main(server: FakeServer) -> SocketIOClient:
    """A client in the main namespace."""
    client = SocketIOClient(server)
    client.join()
    return client


def publish(server: FakeServer, *payloads: str, name: str = "") -> None:
    """Publish with the line protocol on the channel ``kitchen``."""
    publisher = server.line_client()
    publisher.send(*[f"EMIT kitchen {name} {text}" if name else f"PUB kitchen {text}" for text in payloads])
    server.turn()


# Namespaces.


def test_namespace_is_a_channel(server: FakeServer) -> None:
    client = SocketIOClient(server)
    assert client.join("/kitchen") == {"sid": "p1"}
    publish(server, "21.5")
    publish(server, '{"a": [1]}', name="alarm")
    assert client.received() == [
        f'2/kitchen,["message","21.5",{meta(1, "p2")}]',
        f'2/kitchen,["alarm",{{"a": [1]}},{meta(2, "p3")}]',
    ]


def test_publisher_receives_the_ack_and_then_its_event(client: SocketIOClient) -> None:
    assert client.ask('2/kitchen,7["alarm",{"a":1}]') == [
        f'3/kitchen,7[{{"offset":1,"time":{TIME}}}]',
        f'2/kitchen,["alarm",{{"a":1}},{meta(1)}]',
    ]


def test_acks_of_several_events_have_their_offsets(client: SocketIOClient) -> None:
    answers = client.ask('2/kitchen,1["a",1]', '2/kitchen,["a",2]', '2/kitchen,2["a",3]')
    assert answers[:2] == [f'3/kitchen,{id}[{{"offset":{offset},"time":{TIME}}}]' for id, offset in ((1, 1), (2, 3))]
    assert len(answers) == 5


@pytest.mark.parametrize(
    "arguments, payload",
    [
        ("", "null"),
        (',"plain"', '"plain"'),
        (',"é \\u00e9 \\n"', '"é é \\n"'),
        (",1.50", "1.50"),
        (',1,"b",[]', '[1,"b",[]]'),
        (',{"a" : 1}', '{"a" : 1}'),
    ],
)
def test_arguments_are_the_payload(client: SocketIOClient, arguments: str, payload: str) -> None:
    assert client.ask(f'2/kitchen,["e"{arguments}]') == [f'2/kitchen,["e",{payload},{meta(1)}]']


def test_line_clients_receive_arguments(server: FakeServer, client: SocketIOClient) -> None:
    reader = server.line_client()
    reader.send("SUB kitchen")
    reader.received()
    client.ask('2/kitchen,["chat message","hello"]', "2/kitchen,[5,1,2]")
    assert reader.received() == ["EVENT kitchen 1 p1 chat%20message hello", "EVENT kitchen 2 p1 5 [1,2]"]


@pytest.mark.parametrize("name", ["chat message", "a+b", "50%", "%20", "is it?", "**", "a>b"])
def test_names_with_characters_that_other_protocols_reserve(client: SocketIOClient, name: str) -> None:
    assert client.ask(f'2/kitchen,["{name}",1]') == [f'2/kitchen,["{name}",1,{meta(1)}]']


@pytest.mark.parametrize("name", ["#lost", "a\\tb", ""])
def test_invalid_names_are_errors(client: SocketIOClient, name: str) -> None:
    (answer,) = client.ask(f'2/kitchen,1["{name}",1]')
    assert isinstance(answer, str) and answer.startswith('3/kitchen,1[{"error":{"code":"bad-name"')


@pytest.mark.parametrize("name, shown", [("disconnect", "disconnect"), ("%2A", "*"), ("__disconnect_final",) * 2])
def test_reserved_names_arrive_as_messages(server: FakeServer, client: SocketIOClient, name: str, shown: str) -> None:
    """Clients close the connection after a packet with such a name, or call the handlers of other events."""
    publish(server, "x", name=name)
    assert client.received() == [f'2/kitchen,["message","x",{meta(1, "p2", name=shown)}]']


def test_error_without_an_ack_is_an_event(client: SocketIOClient) -> None:
    (answer,) = client.ask('2/kitchen,["#x",1]')
    assert isinstance(answer, str) and answer.startswith('2/kitchen,["#error",{"code":"bad-name","message":"invalid')


DEEP = "[" * 101 + "]" * 101

DEEPER = "[" * 4000 + "]" * 4000

UNUSABLE_ARGUMENTS = {
    "deep": DEEP,
    "deeper": DEEPER,
    "an array of several arguments that is deep": f"1,{DEEP[1:-1]}",
    "a number that JSON does not have": "NaN",
}


@pytest.mark.parametrize("arguments", UNUSABLE_ARGUMENTS.values(), ids=UNUSABLE_ARGUMENTS)
def test_event_with_unusable_arguments_is_an_error(client: SocketIOClient, arguments: str) -> None:
    """With an ack, without one, and with an attachment, between events that are not disturbed."""
    answers = client.ask(
        '2/kitchen,1["a","before"]',
        f'2/kitchen,2["a",{arguments}]',
        f'2/kitchen,["a",{arguments}]',
        f'51-/kitchen,3["a",{arguments},{ATTACHMENT}]',
        b"\x01",
        '2/kitchen,4["a","after"]',
    )
    code = '"code":"bad-json","message":"'
    expected = [
        '3/kitchen,1[{"offset":1',
        '3/kitchen,2[{"error":{' + code,
        '2/kitchen,["#error",{' + code,
        '3/kitchen,3[{"error":{',
        '3/kitchen,4[{"offset":2',
        '2/kitchen,["a","before"',
        '2/kitchen,["a","after"',
    ]
    assert [str(answer)[: len(text)] for answer, text in zip(answers, expected, strict=True)] == expected


@pytest.mark.parametrize(
    "arguments", ['["subscribe",%s]', '["publish","kitchen",%s]', '["history","kitchen",{"a":%s}]']
)
@pytest.mark.parametrize("value", [DEEPER, "NaN"], ids=["deeper", "NaN"])
def test_command_with_unusable_arguments_is_an_error(main: SocketIOClient, arguments: str, value: str) -> None:
    (answer,) = main.ask("21" + arguments % value)
    assert isinstance(answer, str) and answer.startswith('31[{"error":{"code":"bad-json"')
    assert main.session.state is SessionState.OPEN


def test_deep_publication_on_the_main_namespace_is_an_error(main: SocketIOClient) -> None:
    (answer,) = main.ask(f'21["publish","kitchen",{DEEP}]')
    assert isinstance(answer, str) and answer.startswith('31[{"error":{"code":"bad-json"')


class Unread:
    """A message that must not be examined."""

    @property
    def __class__(self) -> Any:
        raise AssertionError


@pytest.mark.parametrize("other", ['2/kitchen,1["b","x"]', '2/attic,1["a","x"]', '2/kitchen,["a","x"]'])
def test_looks_for_similar_events_up_to_the_first_other_one(client: SocketIOClient, other: str) -> None:
    """Two kinds of events in turn cost no more than each alone."""
    first = b'42/kitchen,0["a","x"]'
    publish = client.decoder.decode(first)
    assert isinstance(publish, Publish)
    assert client.decoder.decode_alike(publish, [first, b"4" + other.encode(), Unread()], 1) is None


EVENTS = [
    '/kitchen,{id}["a"{arguments}]',
    *[
        f'{{id}}["{name}"{{arguments}}]'
        for name in ("subscribe", "publish", "history", "who", "list", "nick", "auth", "info", "x")
    ],
]

ARGUMENTS = ["1", "-1", '"attic"', "null", "{}", '{"last":1e400}', '{"since":-1}', '{"name":1}', '"\\ud800"', '"\x01"']
ARGUMENTS += ["1e400", "9" * 400, "NaN", "01", "[", "]", '"', "", DEEP, DEEPER]
ARGUMENTS += [ATTACHMENT, '{"_placeholder":true,"num":1e400}', '{"_placeholder":1,"num":0.0}']


@holds(
    events=st.lists(
        st.tuples(st.sampled_from(EVENTS), st.lists(st.sampled_from(ARGUMENTS), max_size=3), st.booleans()), max_size=6
    )
)
def test_any_event_is_answered_once(events: list[tuple[str, list[str], bool]]) -> None:
    """Whatever the arguments between its brackets are, and whether an attachment follows."""
    client = SocketIOClient(FakeServer())
    client.join("/kitchen")
    client.join()
    for id, (event, arguments, has_attachment) in enumerate(events):
        text = event.format(id=id, arguments="".join(["," + argument for argument in arguments]))
        packets = ["51-" + text, b"\x01"] if has_attachment else ["2" + text]
        ack = "3" + text.partition("[")[0] + "["
        answers = client.ask(*packets)
        assert [isinstance(answer, str) and answer.startswith(ack) for answer in answers].count(True) == 1, answers
    assert client.exceptions == 0


def test_event_can_be_as_deep_as_in_other_protocols(client: SocketIOClient) -> None:
    deep = DEEP[1:-1]
    assert client.ask(f'2/kitchen,["a",{deep}]') == [f'2/kitchen,["a",{deep},{meta(1)}]']


def test_numbers_of_any_size_are_passed_on(client: SocketIOClient) -> None:
    assert client.ask('2/kitchen,["a",1e400]', "2/kitchen,[1.5]") == [
        f'2/kitchen,["a",1e400,{meta(1)}]',
        f'2/kitchen,["1.5",null,{meta(2)}]',
    ]


def test_number_in_place_of_an_attachment_is_an_error(client: SocketIOClient) -> None:
    for value in ("1e400", '{"_placeholder":true,"num":1e400}'):
        (answer,) = client.ask(f'51-/kitchen,1["a",{value}]', b"\x01")
        assert isinstance(answer, str) and answer.startswith('3/kitchen,1[{"error":{"code":"bad-argument"')


@pytest.mark.parametrize("value", [DEEP, DEEPER, "NaN"], ids=["deep", "deeper", "NaN"])
def test_unusable_auth_is_a_connect_error(server: FakeServer, value: str) -> None:
    client = SocketIOClient(server)
    (answer,) = client.ask(f'0/kitchen,{{"more":{value}}}')
    assert isinstance(answer, str) and answer.startswith('4/kitchen,{"message":"')
    assert answer.endswith('"data":{"code":"bad-json"}}') and client.join("/kitchen") == {"sid": "p1"}


def test_too_long_event_is_an_error() -> None:
    client = SocketIOClient(FakeServer(max_message_bytes=512))
    client.join("/kitchen")
    assert client.ask(f'2/kitchen,1["a","{"x" * 513}"]') == [
        '3/kitchen,1[{"error":{"code":"too-long","message":"event too long: at most 512 bytes are allowed"}}]'
    ]


def test_invalid_channel_is_a_connect_error(server: FakeServer) -> None:
    error = SocketIOClient(server).join("/a*b")
    assert error["data"] == {"code": "bad-channel"} and error["message"].startswith("invalid channel")


@pytest.mark.parametrize("auth", ['{"last":-1}', '{"last":"x"}', '{"token":1}', '{"echo":0}'])
def test_invalid_auth_is_a_connect_error(server: FakeServer, auth: str) -> None:
    (answer,) = SocketIOClient(server).ask("0/kitchen," + auth)
    assert isinstance(answer, str) and answer.startswith('4/kitchen,{"message":"invalid auth')


def test_options_of_a_namespace(server: FakeServer) -> None:
    publish(server, "1", "2", "3")
    client = SocketIOClient(server)
    assert client.join("/kitchen", nick="ann", last=2, echo=False, presence=True) == {"sid": "p2"}
    assert [packet[:24] for packet in client.first] == ['2/kitchen,["message","2"', '2/kitchen,["message","3"']
    assert client.ask('2/kitchen,1["a",1]') == [f'3/kitchen,1[{{"offset":4,"time":{TIME}}}]']
    other = server.line_client()
    other.send("SUB kitchen", "QUIT")
    server.turn()
    other.disconnect()
    server.turn()
    assert client.received() == [
        f'2/kitchen,["#{what}",{{"channel":"kitchen","peer":{{"id":"p3","nick":"p3"}}}}]' for what in ("join", "leave")
    ]


def test_invalid_nick_is_a_connect_error(server: FakeServer) -> None:
    client = SocketIOClient(server)
    assert client.join("/kitchen", nick="a b")["data"] == {"code": "bad-name"}
    assert client.session.subscriptions == {} and client.join("/kitchen") == {"sid": "p1"}


def test_leaving_a_namespace_ends_the_subscription(client: SocketIOClient) -> None:
    assert client.ask("1/kitchen,", "1/kitchen,") == [] and client.session.subscriptions == {}
    (answer,) = client.ask('2/kitchen,1["a",1]')
    assert isinstance(answer, str) and answer.startswith('3/kitchen,1[{"error":{"code":"not-subscribed"')
    assert client.join("/kitchen") == {"sid": "p1"}


def test_client_leaves_a_namespace_beyond_its_rate(server: FakeServer, client: SocketIOClient) -> None:
    """It has left when it sends the packet, and receives no answer."""
    client.limit(commands_per_second=1, commands_burst=1)
    answers = client.ask('2/kitchen,1["a",1]', "1/kitchen,")
    assert len(answers) == 2 and not any("error" in str(answer) for answer in answers)
    assert client.session.subscriptions == {}
    server.now += 5
    assert client.join("/kitchen") == {"sid": "p1"}


def test_client_leaves_the_main_namespace_beyond_its_rate(main: SocketIOClient) -> None:
    main.limit(commands_per_second=1, commands_burst=2)
    main.ask('2["subscribe","kitchen"]', '2["subscribe","attic"]', "1")
    assert main.session.subscriptions == {} and main.session.state is SessionState.OPEN


def test_leaving_is_charged(main: SocketIOClient) -> None:
    main.limit(commands_per_second=1, commands_burst=2)
    main.ask(*["1"] * 10)
    assert main.session.state is not SessionState.OPEN


@pytest.mark.parametrize("namespace", ["/", "/kitchen"])
def test_namespace_beyond_the_rate_is_a_connect_error(server: FakeServer, namespace: str) -> None:
    client = SocketIOClient(server)
    client.join("/attic")
    client.limit(commands_per_second=1, commands_burst=1)
    client.ask('2/attic,1["a",1]')
    assert client.join(namespace)["data"] == {"code": "rate"}
    server.now += 5
    assert client.join(namespace) == {"sid": "p1"}


ATTACHED = '51-/kitchen,["a",' + ATTACHMENT + "]"


@pytest.mark.parametrize(
    "packets", [["0/kitchen,"], ["x"], [""], [ATTACHED, "2[]"], [ATTACHED, "\x00\xff"], ["\x01"], [b"\x01"]]
)
def test_violation_of_the_protocol_closes_the_session(client: SocketIOClient, packets: list[str | bytes]) -> None:
    assert client.ask(*packets) == [] and client.decoder.has_failed


def test_acks_of_a_client_are_ignored(client: SocketIOClient) -> None:
    assert client.ask("3/kitchen,1[]") == [] and client.session.state is SessionState.OPEN


def test_lost_right_ends_the_namespace() -> None:
    server = FakeServer(policy=FakePolicy({"kitchen": "rw", "attic": "rw"}))
    client = SocketIOClient(server)
    client.join("/kitchen")
    client.join()
    client.ask('2["subscribe","attic"]')
    server.context.change_policy(FakePolicy({"hall": "r"}))
    server.turn()

    def notice(channel: str) -> str:
        text = f"right to read {channel} lost: the subscription has ended"
        return json.dumps(["#notice", {"text": text, "code": "forbidden", "channel": channel}], separators=(",", ":"))

    assert client.received() == ["2/kitchen," + notice("kitchen"), "1/kitchen,", "2" + notice("attic")]
    assert client.join("/kitchen")["data"] == {"code": "unauthorized"}


# Tokens.


@pytest.fixture
def guarded() -> FakeServer:
    """A server that lets ann use the channel ``kitchen``."""
    return FakeServer(policy=FakePolicy({"lobby": "rw"}, {"ann's": ("ann", {"*": "rw"}, 1_800_003_600.0)}))


def test_token_in_auth(guarded: FakeServer) -> None:
    client = SocketIOClient(guarded)
    error = client.join("/kitchen")
    assert error == {
        "message": "authentication required to read this channel: connect with auth: { token }",
        "data": {"code": "unauthorized"},
    }
    assert client.join("/kitchen", token="bad")["data"] == {"code": "unauthorized"}
    assert client.join("/kitchen", token="ann's") == {"sid": "p1"}
    assert client.session.client.nick == b"ann"


def test_token_is_renewed_on_the_main_namespace(guarded: FakeServer) -> None:
    client = SocketIOClient(guarded)
    client.join(token="ann's")
    assert client.ask('21["auth","ann\'s"]') == ['31[{"nick":"ann","expires":3600}]']


def test_server_without_a_policy_ignores_tokens(server: FakeServer) -> None:
    assert SocketIOClient(server).join("/kitchen", token="any") == {"sid": "p1"}


def test_notices_arrive_in_a_joined_namespace(guarded: FakeServer) -> None:
    client = SocketIOClient(guarded)
    client.join("/lobby")
    client.session.token_expires(60)
    text = "token expires in 60 seconds: authenticate with a new one"
    assert client.received() == [f'2/lobby,["#notice",{{"text":"{text}","code":"token-expires"}}]']


def test_rejected_identity_is_an_event(guarded: FakeServer) -> None:
    """It is the result of the handshake, before a namespace is joined."""
    client = SocketIOClient(guarded)
    client.session.replies.write_error(None, NICK_IS_AN_ID)
    assert client.received() == [
        '2["#error",{"code":"bad-name","message":"invalid nick: it is the id of another client"}]'
    ]


def test_disconnected_client_leaves_its_namespaces(client: SocketIOClient) -> None:
    client.join()
    client.session.close(CloseReason.POLICY, b"go", b"disconnected")
    assert client.received() == ['2["#notice",{"text":"go","code":"disconnected"}]']
    encoder: Any = client.session.replies.encoder
    assert list(split_frames(encoder.disconnected())) == [(b"41/kitchen,", False), (b"41", False)]


# The main namespace.


def test_subscriptions_on_the_main_namespace(server: FakeServer, main: SocketIOClient) -> None:
    publish(server, "1")
    assert main.ask('21["subscribe","kitchen",{"last":1}]', '2["subscribe","attic"]') == [
        '31[{"channel":"kitchen","offset":1,"epoch":"e1"}]',
        f'2["message","1",{meta(1, "p2")}]',
    ]
    assert main.ask('22["publish","attic",[1],{"name":"is it"}]') == [
        f'32[{{"offset":1,"time":{TIME}}}]',
        f'2["is it",[1],{meta(1, channel="attic")}]',
    ]
    assert main.ask('23["unsubscribe","attic"]') == ['33[{"channel":"attic"}]']
    assert list(main.session.subscriptions) == [b"kitchen"]


def test_questions_on_the_main_namespace(main: SocketIOClient) -> None:
    main.ask('2["subscribe","kitchen"]', '2["publish","kitchen","x"]')
    event = {"type": "event", "channel": "kitchen", "offset": 1, "time": TIME, "from": "p1", "name": "message"}
    answers = main.ask(
        '21["history","kitchen",{"last":1}]',
        '22["who","kitchen"]',
        '23["list",{"prefix":"k"}]',
        '24["ping"]',
        '25["nick","ann"]',
        '26["info"]',
    )
    assert [json.loads(str(answer)[2:]) for answer in answers] == [
        [{"channel": "kitchen", "events": [event | {"data": "x"}], "offset": 1, "epoch": "e1"}],
        [{"members": [{"id": "p1", "nick": "p1"}]}],
        [{"channels": [{"channel": "kitchen", "readers": 1, "offset": 1}], "total": 1, "next": None}],
        [{}],
        [{"nick": "ann"}],
        [
            {
                "peer": {"id": "p1", "nick": "ann"},
                "from": "127.0.0.1:50000",
                "to": "127.0.0.1:8081",
                "channels": 1,
                "uptime": 0,
                "version": "0.0",
            }
        ],
    ]


def test_repeated_key_publishes_nothing(main: SocketIOClient) -> None:
    answer = f'{{"offset":1,"time":{TIME}'
    assert main.ask('21["publish","door","ring",{"key":"7c1f4e"}]') == [f"31[{answer}}}]"]
    assert main.ask('22["publish","door","ring",{"key":"7c1f4e"}]') == [f'32[{answer},"repeated":true}}]']


def test_list_has_the_next_page(server: FakeServer, main: SocketIOClient) -> None:
    publisher = server.line_client()
    publisher.send(*[f"PUB c{number:04} x" for number in range(1_001)])
    server.turn()
    (answer,) = main.ask('21["list"]')
    assert str(answer).endswith('"total":1001,"next":"c0999"}]')


@pytest.mark.parametrize(
    "event, code",
    [
        ('["hello",1]', "unknown-command"),
        ('["subscribe"]', "bad-argument"),
        ('["subscribe","a",1]', "bad-argument"),
        ('["subscribe","a",{},{}]', "bad-argument"),
        ('["subscribe","a",{"last":"x"}]', "bad-argument"),
        ('["subscribe","a",{"since":1}]', "bad-argument"),
        ('["subscribe",5]', "bad-argument"),
        ('["subscribe","a b"]', "bad-channel"),
        ('["unsubscribe","a"]', "not-subscribed"),
        ('["publish","a"]', "bad-argument"),
        ('["history","a",{"after":[]}]', "bad-argument"),
        ('["auth","t"]', "unauthorized"),
    ],
)
def test_errors_on_the_main_namespace(main: SocketIOClient, event: str, code: str) -> None:
    (answer,) = main.ask("21" + event)
    assert json.loads(str(answer)[2:])[0]["error"]["code"] == code


def test_long_history_continues_in_the_next_answer() -> None:
    """An ack is one packet, and neither the server nor clients accept one of any length."""
    server = FakeServer(max_message_bytes=2 * MAX_LIST_BYTES)
    main = SocketIOClient(server)
    main.join()
    for size in (300_000, 300_000, 300_000, MAX_LIST_BYTES + 1, 1):
        main.ask(f'2["publish","kitchen","{"x" * size}"]')
    offsets: list[list[int]] = []
    since: int | None = 0
    while since is not None:
        (answer,) = main.ask(f'21["history","kitchen",{{"since":{since},"before":6}}]')
        (history,) = json.loads(str(answer)[2:])
        offsets.append([event["offset"] for event in history["events"]])
        since = history.get("next")
    assert offsets == [[1, 2, 3], [4], [5]]


def test_long_list_of_members_is_incomplete(main: SocketIOClient) -> None:
    encoder = main.session.replies.encoder
    count = MAX_LIST_BYTES // 40
    pieces = encoder.members(ack_tag(b"", 1), b"kitchen", [Member(b"p%020d" % id, b"ann") for id in range(count)])
    ((answer, _),) = split_frames(b"".join(piece for piece in pieces if isinstance(piece, bytes)))
    (members,) = json.loads(answer.removeprefix(b"431"))
    assert members["complete"] is False and 10_000 < len(members["members"]) < count


def test_options_cannot_replace_arguments(main: SocketIOClient) -> None:
    assert main.ask('21["subscribe","a",{"type":"publish","channel":"b","id":5}]') == [
        '31[{"channel":"a","offset":0,"epoch":"e1"}]'
    ]


def test_question_needs_an_ack(main: SocketIOClient) -> None:
    (answer,) = main.ask('2["who","kitchen"]')
    assert str(answer).startswith('2["#error",{"code":"bad-argument","message":"no acknowledgement')


def test_events_need_the_main_namespace(client: SocketIOClient) -> None:
    (answer,) = client.ask('21["list"]')
    assert str(answer).startswith('31[{"error":{"code":"not-subscribed"')


def test_channel_is_on_one_of_both_namespaces(client: SocketIOClient) -> None:
    """A session has one subscription of a channel, whose events have one form."""
    client.join()
    for event in ("subscribe", "unsubscribe"):
        assert '"code":"bad-argument"' in str(client.ask(f'21["{event}","kitchen"]')[0])
    client.ask('2["subscribe","attic"]')
    assert client.join("/attic")["data"] == {"code": "bad-argument"}


def test_leaving_the_main_namespace_ends_its_subscriptions(client: SocketIOClient) -> None:
    client.join()
    client.ask('2["subscribe","a"]', '2["subscribe","b"]')
    assert client.ask("1") == [] and list(client.session.subscriptions) == [b"kitchen"]
    assert client.join() == {"sid": "p1"}


def test_main_namespace_with_a_channel(server: FakeServer) -> None:
    client = SocketIOClient(server, "lobby")
    assert client.join() == {"sid": "p1"}
    assert client.ask('21["chat message","hi"]') == [
        f'31[{{"offset":1,"time":{TIME}}}]',
        f'2["chat message","hi",{meta(1, channel="lobby")}]',
    ]
    assert client.ask('2["is it?","hi"]') == [f'2["is it?","hi",{meta(2, channel="lobby")}]']


def test_channel_of_the_main_namespace_is_on_one_namespace(server: FakeServer) -> None:
    client = SocketIOClient(server, "kitchen")
    client.join("/kitchen")
    assert client.join()["data"] == {"code": "bad-argument"}
    publish(server, "x")
    assert client.received() == [f'2/kitchen,["message","x",{meta(1, "p2")}]']
    client.ask("1/kitchen,")
    assert client.join() == {"sid": "p1"}
    assert client.join("/kitchen")["data"] == {"code": "bad-argument"}


# Bytes.


def test_bytes_are_attachments(client: SocketIOClient) -> None:
    packet = '51-/kitchen,1["photo",{"_placeholder": true, "num": 0}]'
    assert client.ask(packet) == [] and client.decoder.buffered_bytes == len(packet)
    assert client.ask(b"\xff\x00") == [
        f'3/kitchen,1[{{"offset":1,"time":{TIME}}}]',
        f'51-/kitchen,["photo",{ATTACHMENT},{meta(1)}]',
        b"\xff\x00",
    ]


def test_bytes_on_the_main_namespace(main: SocketIOClient) -> None:
    assert main.ask('2["subscribe","a"]', f'51-["publish","a",{ATTACHMENT},{{"name":"p"}}]', b"\x01") == [
        f'51-["p",{ATTACHMENT},{meta(1, channel="a")}]',
        b"\x01",
    ]


@pytest.mark.parametrize(
    "packets",
    [
        ['51-/kitchen,1["a",{"b":' + ATTACHMENT + "}]", b"1"],
        ['51-/kitchen,1["a",1,' + ATTACHMENT + "]", b"1"],
        ['52-/kitchen,1["a",' + ATTACHMENT + "]", b"1", b"2"],
        ['51-/kitchen,1["a","' + "x" * 65 + '"]', b"1"],
        ['51-/kitchen,1["a",{"_placeholder":1,"num":0}]', b"1"],
        ['51-/kitchen,1["a",{"_placeholder":true,"num":false}]', b"1"],
        ['51-1["subscribe",' + ATTACHMENT + "]", b"1"],
        ['52-1["publish","a",' + ATTACHMENT + "]", b"1", b"2"],
    ],
)
def test_nested_bytes_are_an_error(client: SocketIOClient, packets: list[str | bytes]) -> None:
    client.join()
    (answer,) = client.ask(*packets)
    assert '1[{"error":{"code":"bad-argument","message":"unsupported bytes' in str(answer)


# Gaps and epochs.


def test_events_always_have_their_time() -> None:
    assert MAIN_EVENTS.with_time() is MAIN_EVENTS


def test_error_in_the_decoder_has_no_tag(client: SocketIOClient) -> None:
    assert client.decoder.find_tag(b'2/kitchen,1["a"]') is None


def test_lost_events_are_reported(server: FakeServer, client: SocketIOClient) -> None:
    client.outlet.drain(0)
    publish(server, "1")
    publish(server, *"2345678")
    client.outlet.drain()
    server.turn()
    packets = client.received()
    assert packets.pop(1) == '2/kitchen,["#lost",{"channel":"kitchen","first":2,"last":3}]'
    assert len(packets) == 6


def test_dropped_presence_changes_are_reported() -> None:
    server = FakeServer(max_pending_presence=0)
    client = SocketIOClient(server)
    client.join("/kitchen", presence=True)
    client.outlet.drain(0)
    publish(server, "x")
    server.line_client().send("SUB kitchen")
    server.turn()
    client.outlet.drain()
    server.turn()
    assert str(client.received()[-1]).startswith('2/kitchen,["#notice",{"text":"joins and leaves were dropped')


# Recovery.


def recover(server: FakeServer, pid: str = "", offset: str = "", **more: Any) -> tuple[Any, list[str | bytes]]:
    """Connect as a client that recovers. Returns the value of CONNECT and the packets after it."""
    known = {name: value for name, value in (("pid", pid), ("offset", offset)) if value}
    client = SocketIOClient(server)
    reply = client.join("/kitchen", recover=True, **known, **more)
    client.disconnect()
    return reply, client.first


def data_of(packets: list[str | bytes]) -> list[Any]:
    return [json.loads(str(packet).partition(",")[2])[1] for packet in packets]


def test_recovering_client_receives_positions(server: FakeServer) -> None:
    client = SocketIOClient(server)
    assert client.join("/kitchen", recover=True) == {"sid": "p1", "pid": "1/e1:0"}
    publish(server, "x")
    assert client.received() == [f'2/kitchen,["message","x",{meta(1, "p2")},"e1:1"]']


def test_recovers_from_zero_events_and_again(server: FakeServer) -> None:
    pid = recover(server)[0]["pid"]
    publish(server, "1", "2")
    for _ in range(2):
        reply, packets = recover(server, pid)
        assert reply["pid"] == pid and data_of(packets) == ["1", "2"]
    reply, packets = recover(server, pid, "e1:1")
    assert reply["pid"] == pid and data_of(packets) == ["2"]
    assert recover(server, pid, "e1:2")[1] == []


def test_other_pid_and_lost_offsets_if_something_is_missing(server: FakeServer) -> None:
    pid = recover(server)[0]["pid"]
    publish(server, *"1234567")
    reply, packets = recover(server, pid, "e1:1")
    assert reply["pid"] == "2/e1:1/e1:1"
    assert packets[0] == '2/kitchen,["#lost",{"channel":"kitchen","first":2,"last":2}]'
    assert data_of(packets[1:]) == list("34567")


def test_offset_from_before_the_present_pid_is_not_used(server: FakeServer) -> None:
    """A client keeps its offset when it receives another pid, until the next event."""
    pid = recover(server)[0]["pid"]
    publish(server, *"1234567")
    pid = recover(server, pid, "other:9")[0]["pid"]
    assert pid == "2/e1:7/other:9"
    publish(server, "8")
    for offset, expected in (("other:9", ["8"]), ("e1:8", [])):
        reply, packets = recover(server, pid, offset)
        assert reply["pid"] == pid and data_of(packets) == expected


def test_unknown_epoch_is_reported_as_a_reset(server: FakeServer) -> None:
    publish(server, "1", "2")
    reply, packets = recover(server, "4/gone:9", last=1)
    assert reply["pid"] == "5/e1:1"
    assert packets[0] == ('2/kitchen,["#reset",{"channel":"kitchen","epoch":"e1","good":0,"offset":1},"e1:1"]')
    assert data_of(packets[1:]) == ["2"]


@pytest.mark.parametrize("pid, offset", [("x", "e1:1"), ("1/e1:0", "x"), ("1/e1:0", f"e1:{2**53}")])
def test_invalid_positions_are_ignored(server: FakeServer, pid: str, offset: str) -> None:
    publish(server, "1")
    assert recover(server, pid, offset) == ({"sid": "p2", "pid": "1/e1:1"}, [])


def test_pid_without_the_option_is_ignored(server: FakeServer) -> None:
    publish(server, "1")
    client = SocketIOClient(server)
    assert client.join("/kitchen", pid="1/e1:0") == {"sid": "p2"} and client.first == []


def test_recovers_on_a_main_namespace_with_a_channel(server: FakeServer) -> None:
    client = SocketIOClient(server, "kitchen")
    assert client.join(recover=True)["pid"] == "1/e1:0"
    publish(server, "1")
    assert client.received() == [f'2["message","1",{meta(1, "p2")},"e1:1"]']
    again = SocketIOClient(server, "kitchen")
    assert again.join(recover=True, pid="1/e1:0")["pid"] == "1/e1:0"
    assert again.first == [f'2["message","1",{meta(1, "p2")},"e1:1"]']


def test_main_channel_keeps_positions_after_a_subscription(server: FakeServer) -> None:
    client = SocketIOClient(server, "kitchen")
    client.join(recover=True)
    client.ask('21["subscribe","kitchen"]', '22["subscribe","attic"]')
    assert client.ask('2["a",1]') == [f'2["a",1,{meta(1)},"e1:1"]']
    assert client.ask('2["publish","attic",1]') == [f'2["message",1,{meta(1, channel="attic")}]']
