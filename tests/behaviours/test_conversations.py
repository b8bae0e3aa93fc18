"""Commands and their replies, in every protocol."""

from typing import Any

import pytest

from tests.behaviours.protocol_clients import TEXT_KINDS, LineClient, ProtocolClient


def data(messages: list[dict[str, Any]]) -> list[str]:
    return [message["data"] for message in messages if message["type"] == "event"]


def publish(client: ProtocolClient, *texts: str) -> None:
    for text in texts:
        client.request("publish", channel="kitchen", data=text)


@pytest.mark.parametrize(
    "options, texts",
    [
        ({}, "cdefg"),
        ({"last": 2}, "fg"),
        ({"last": 0}, ""),
        ({"last": 99}, "cdefg"),
        ({"since": 5}, "fg"),
        ({"since": 0}, "cdefg"),
        ({"since": 7}, ""),
        ({"since": 3, "last": 1}, "g"),
    ],
    ids=str,
)
def test_history_returns_the_available_events(
    publisher: ProtocolClient, reader: ProtocolClient, options: dict[str, int], texts: str
) -> None:
    publish(publisher, *"abcdefg")
    events = reader.request("history", channel="kitchen", **options)["events"]
    assert data(events) == [*texts]
    assert [event["offset"] for event in events] == ["abcdefg".index(text) + 1 for text in texts]


@pytest.mark.parametrize(
    "since, epoch, recovered, lost, texts",
    [
        (4, "", True, None, "efg"),
        (2, "", True, None, "cdefg"),
        (7, "", True, None, ""),
        (1, "", False, (2, 2), "cdefg"),
        (0, "", False, (1, 2), "cdefg"),
        (8, "", False, None, ""),
        (4, "another", False, None, ""),
    ],
)
def test_resuming_delivers_missed_events_or_reports_them_as_lost(
    publisher: ProtocolClient,
    reader: ProtocolClient,
    since: int,
    epoch: str,
    recovered: bool,
    lost: tuple[int, int] | None,
    texts: str,
) -> None:
    reply = reader.request("subscribe", channel="kitchen")
    assert reply == {"type": "ok", "channel": "kitchen", "offset": 0, "epoch": "e1"}
    reader.request("unsubscribe", channel="kitchen")
    publish(publisher, *"abcdefg")
    reply = reader.request("subscribe", channel="kitchen", since=since, epoch=epoch or reply["epoch"])
    assert reply == {"type": "ok", "channel": "kitchen", "offset": 7, "epoch": "e1", "recovered": recovered}
    publish(publisher, "live")
    messages = reader.received()
    if lost is not None:
        assert messages.pop(0) == {"type": "lost", "channel": "kitchen", "first": lost[0], "last": lost[1]}
    assert data(messages) == [*texts, "live"]


def test_subscribing_with_last_delivers_older_events_first(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    publish(publisher, *"abc")
    reader.send("subscribe", channel="kitchen", last=2)
    answer, *events = reader.received()
    assert answer == {"type": "ok", "channel": "kitchen", "offset": 3, "epoch": "e1"} and data(events) == ["b", "c"]


def test_members_are_all_subscribers(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    assert publisher.request("who", channel="kitchen") == {"type": "ok", "members": []}
    publisher.request("nick", nick="ann")
    for client in (publisher, reader):
        client.request("subscribe", channel="kitchen")
    ann, other = {"id": publisher.id, "nick": "ann"}, {"id": reader.id, "nick": reader.id}
    assert reader.request("who", channel="kitchen") == {"type": "ok", "members": [ann, other]}
    publisher.request("unsubscribe", channel="kitchen")
    assert reader.request("who", channel="kitchen") == {"type": "ok", "members": [other]}


def test_reports_joining_and_leaving_members_on_request(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    reader.request("subscribe", channel="kitchen", presence=True)
    publisher.request("subscribe", channel="kitchen")
    publisher.request("subscribe", channel="kitchen", last=1)
    publisher.request("nick", nick="ann")
    publisher.request("unsubscribe", channel="kitchen")
    assert reader.received() == [
        {"type": "join", "channel": "kitchen", "peer": {"id": publisher.id, "nick": publisher.id}},
        {"type": "leave", "channel": "kitchen", "peer": {"id": publisher.id, "nick": "ann"}},
    ]
    assert publisher.received() == []


def test_reports_a_lost_connection_as_leaving(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    publisher.request("subscribe", channel="kitchen")
    reader.request("subscribe", channel="kitchen", presence=True)
    publisher.client.disconnect()
    assert [message["type"] for message in reader.received()] == ["leave"]


def test_info_describes_the_client(reader: ProtocolClient) -> None:
    reader.request("nick", nick="ann")
    reader.request("subscribe", channel="kitchen")
    reader.server.now += 61
    assert reader.request("info") == {
        "type": "ok",
        "peer": {"id": reader.id, "nick": "ann"},
        "from": "127.0.0.1:50000",
        "to": "127.0.0.1:8081",
        "channels": 1,
        "uptime": 61,
        "version": "0.0",
    }


def test_ping_gets_a_pong(reader: ProtocolClient) -> None:
    assert reader.request("ping") == {"type": "pong"}


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("publish", {"channel": "a*", "data": "x"}, "bad-channel"),
    ("publish", {"channel": "x" * 201, "data": "x"}, "bad-channel"),
    ("publish", {"channel": "a", "name": "b#", "data": "x"}, "bad-name"),
    ("publish", {"channel": "a", "name": "x" * 65, "data": "x"}, "bad-name"),
    ("subscribe", {"channel": "a?"}, "bad-channel"),
    ("subscribe", {"channel": "a", "since": 1}, "bad-argument"),
    ("subscribe", {"channel": "a", "epoch": "e1"}, "bad-argument"),
    ("subscribe", {"channel": "a", "last": -1}, "bad-argument"),
    ("subscribe", {"channel": "a", "last": 2**53}, "bad-argument"),
    ("unsubscribe", {"channel": "nowhere"}, "not-subscribed"),
    ("history", {"channel": ">"}, "bad-channel"),
    ("history", {"channel": "a", "since": "x"}, "bad-argument"),
    ("who", {"channel": "+"}, "bad-channel"),
    ("nick", {"nick": "a*"}, "bad-name"),
    ("nick", {"nick": "x" * 33}, "bad-name"),
    ("nick", {"nick": "p1"}, "bad-name"),
    ("unsubscribe", {}, "bad-argument"),
    ("nick", {}, "bad-argument"),
]


@pytest.mark.parametrize("verb, fields, code", REFUSED, ids=[f"{verb} {code}" for verb, _, code in REFUSED])
def test_errors_have_a_code_and_keep_the_connection_open(
    publisher: ProtocolClient, reader: ProtocolClient, verb: str, fields: dict[str, Any], code: str
) -> None:
    assert reader.request(verb, **fields) == {"type": "error", "code": code}
    assert reader.request("ping") == {"type": "pong"}
    assert reader.request("publish", channel="kitchen", data="x") == {"type": "ok", "offset": 1}


@pytest.mark.parametrize("connect_reader", TEXT_KINDS.values(), ids=TEXT_KINDS)
@pytest.mark.parametrize("message", [b"NONSENSE", b'{"type":"nonsense","id":1}'])
def test_rejects_invalid_commands_in_terms_of_the_protocol(reader: ProtocolClient, message: bytes) -> None:
    is_line = isinstance(reader, LineClient)
    reader.client.send_messages(message)
    (reply,) = reader.client.received()
    if is_line:
        assert reply.startswith("ERR unknown-command ") and "HELP" in reply and "QUIT" in reply
    else:
        assert reply["code"] == ("bad-json" if message == b"NONSENSE" else "bad-type")


def test_replies_keep_the_order_of_commands_and_precede_own_events(reader: ProtocolClient) -> None:
    reader.request("subscribe", channel="kitchen")
    reader.send_together(
        ("publish", {"channel": "kitchen", "data": "a"}),
        ("publish", {"channel": "a*", "data": "b"}),
        ("publish", {"channel": "attic", "data": "c"}),
        ("ping", {}),
        ("unsubscribe", {"channel": "attic"}),
        ("publish", {"channel": "kitchen", "data": "d"}),
        ("who", {"channel": "kitchen"}),
    )
    messages = reader.received()
    answers = [message for message in messages if message["type"] != "event"]
    assert [message.get("code", message["type"]) for message in answers] == [
        "ok",
        "bad-channel",
        "ok",
        "pong",
        "not-subscribed",
        "ok",
        "ok",
    ]
    assert data(messages) == ["a", "d"]
    own = [message for message in messages if message["type"] == "event"]
    assert messages.index(answers[0]) < messages.index(own[0])
    assert messages.index(answers[5]) < messages.index(own[1])


@pytest.mark.parametrize("sign", ["\u200b", "\u200d", "\xad", "\u202e", "\u3164", "\U000e0041"], ids=ascii)
@pytest.mark.parametrize(
    "verb, fields, code",
    [
        ("subscribe", {"channel": "a{}"}, "bad-channel"),
        ("publish", {"channel": "a{}", "data": "x"}, "bad-channel"),
        ("publish", {"channel": "a", "name": "{}b", "data": "x"}, "bad-name"),
        ("history", {"channel": "{}a"}, "bad-channel"),
        ("who", {"channel": "a{}b"}, "bad-channel"),
        ("nick", {"nick": "ann{}"}, "bad-name"),
    ],
)
def test_rejects_names_with_an_invisible_character(
    publisher: ProtocolClient, verb: str, fields: dict[str, str], code: str, sign: str
) -> None:
    answer = publisher.request(verb, **{name: value.replace("{}", sign) for name, value in fields.items()})
    assert answer == {"type": "error", "code": code}


def test_lists_channels_with_readers_and_offsets(publisher: ProtocolClient, reader: ProtocolClient) -> None:
    for channel in ("a/1", "a/2", "b"):
        publisher.request("publish", channel=channel, data="x")
    reader.request("subscribe", channel="a/2")
    first, second = ({"channel": name, "readers": readers, "offset": 1} for name, readers in (("a/1", 0), ("a/2", 1)))
    assert reader.request("list", prefix="a/") == {"type": "ok", "channels": [first, second], "total": 2, "next": None}
    assert reader.request("list", prefix="a/", after="a/1")["channels"] == [second]
    assert reader.request("list", prefix="c") == {"type": "ok", "channels": [], "total": 0, "next": None}
