"""Questions and their answers: the same for every dialect."""

from typing import Any

import pytest

from tests.behaviours.voices import LineVoice, Voice


def data(messages: list[dict[str, Any]]) -> list[str]:
    return [message["data"] for message in messages if message["type"] == "event"]


def publish(voice: Voice, *texts: str) -> None:
    for text in texts:
        voice.asks("publish", channel="kitchen", data=text)


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
def test_history_is_what_the_log_still_holds(
    publisher: Voice, reader: Voice, options: dict[str, int], texts: str
) -> None:
    publish(publisher, *"abcdefg")
    events = reader.asks("history", channel="kitchen", **options)["events"]
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
def test_who_comes_back_gets_what_it_missed_or_is_told_what_it_lost(
    publisher: Voice, reader: Voice, since: int, epoch: str, recovered: bool, lost: tuple[int, int] | None, texts: str
) -> None:
    told = reader.asks("subscribe", channel="kitchen")
    assert told == {"type": "ok", "channel": "kitchen", "offset": 0, "epoch": "e1"}
    reader.asks("unsubscribe", channel="kitchen")
    publish(publisher, *"abcdefg")
    told = reader.asks("subscribe", channel="kitchen", since=since, epoch=epoch or told["epoch"])
    assert told == {"type": "ok", "channel": "kitchen", "offset": 7, "epoch": "e1", "recovered": recovered}
    publish(publisher, "live")
    heard = reader.received()
    if lost is not None:
        assert heard.pop(0) == {"type": "lost", "channel": "kitchen", "first": lost[0], "last": lost[1]}
    assert data(heard) == [*texts, "live"]


def test_who_comes_gets_the_last_events_first(publisher: Voice, reader: Voice) -> None:
    publish(publisher, *"abc")
    reader.send("subscribe", channel="kitchen", last=2)
    answer, *events = reader.received()
    assert answer == {"type": "ok", "channel": "kitchen", "offset": 3, "epoch": "e1"} and data(events) == ["b", "c"]


def test_members_are_all_who_read(publisher: Voice, reader: Voice) -> None:
    assert publisher.asks("who", channel="kitchen") == {"type": "ok", "members": []}
    publisher.asks("nick", nick="ann")
    for voice in (publisher, reader):
        voice.asks("subscribe", channel="kitchen")
    ann, other = {"id": publisher.id, "nick": "ann"}, {"id": reader.id, "nick": reader.id}
    assert reader.asks("who", channel="kitchen") == {"type": "ok", "members": [ann, other]}
    publisher.asks("unsubscribe", channel="kitchen")
    assert reader.asks("who", channel="kitchen") == {"type": "ok", "members": [other]}


def test_who_comes_and_goes_is_told_to_those_who_ask(publisher: Voice, reader: Voice) -> None:
    reader.asks("subscribe", channel="kitchen", presence=True)
    publisher.asks("subscribe", channel="kitchen")
    publisher.asks("subscribe", channel="kitchen", last=1)
    publisher.asks("nick", nick="ann")
    publisher.asks("unsubscribe", channel="kitchen")
    assert reader.received() == [
        {"type": "join", "channel": "kitchen", "peer": {"id": publisher.id, "nick": publisher.id}},
        {"type": "leave", "channel": "kitchen", "peer": {"id": publisher.id, "nick": "ann"}},
    ]
    assert publisher.received() == []


def test_who_is_lost_has_left(publisher: Voice, reader: Voice) -> None:
    publisher.asks("subscribe", channel="kitchen")
    reader.asks("subscribe", channel="kitchen", presence=True)
    publisher.client.disconnect()
    assert [message["type"] for message in reader.received()] == ["leave"]


def test_one_can_ask_who_one_is(reader: Voice) -> None:
    reader.asks("nick", nick="ann")
    reader.asks("subscribe", channel="kitchen")
    reader.server.now += 61
    assert reader.asks("info") == {
        "type": "ok",
        "peer": {"id": reader.id, "nick": "ann"},
        "from": "127.0.0.1:50000",
        "to": "127.0.0.1:8081",
        "channels": 1,
        "uptime": 61,
        "version": "0.0",
    }


def test_one_can_ask_whether_anybody_is_there(reader: Voice) -> None:
    assert reader.asks("ping") == {"type": "pong"}


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
def test_a_refusal_has_a_code_and_the_conversation_goes_on(
    publisher: Voice, reader: Voice, verb: str, fields: dict[str, Any], code: str
) -> None:
    assert reader.asks(verb, **fields) == {"type": "error", "code": code}
    assert reader.asks("ping") == {"type": "pong"}
    assert reader.asks("publish", channel="kitchen", data="x") == {"type": "ok", "offset": 1}


@pytest.mark.parametrize("message", [b"NONSENSE", b'{"type":"nonsense","id":1}'])
def test_what_is_no_command_is_refused_in_the_words_of_the_dialect(reader: Voice, message: bytes) -> None:
    is_line = isinstance(reader, LineVoice)
    reader.client.send_messages(message)
    (heard,) = reader.client.received()
    if is_line:
        assert heard.startswith("ERR unknown-command ") and "HELP" in heard and "QUIT" in heard
    else:
        assert heard["code"] == ("bad-json" if message == b"NONSENSE" else "bad-type")


def test_answers_come_in_the_order_of_the_commands_and_own_copies_after_their_ok(reader: Voice) -> None:
    reader.asks("subscribe", channel="kitchen")
    reader.says_together(
        ("publish", {"channel": "kitchen", "data": "a"}),
        ("publish", {"channel": "a*", "data": "b"}),
        ("publish", {"channel": "attic", "data": "c"}),
        ("ping", {}),
        ("unsubscribe", {"channel": "attic"}),
        ("publish", {"channel": "kitchen", "data": "d"}),
        ("who", {"channel": "kitchen"}),
    )
    heard = reader.received()
    answers = [message for message in heard if message["type"] != "event"]
    assert [message.get("code", message["type"]) for message in answers] == [
        "ok",
        "bad-channel",
        "ok",
        "pong",
        "not-subscribed",
        "ok",
        "ok",
    ]
    assert data(heard) == ["a", "d"]
    own = [message for message in heard if message["type"] == "event"]
    assert heard.index(answers[0]) < heard.index(own[0])
    assert heard.index(answers[5]) < heard.index(own[1])


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
    publisher: Voice, verb: str, fields: dict[str, str], code: str, sign: str
) -> None:
    answer = publisher.asks(verb, **{name: value.replace("{}", sign) for name, value in fields.items()})
    assert answer == {"type": "error", "code": code}
