"""The RESP3 protocol, without a server."""

from typing import Any

import pytest

from twistedsock.redis.event_scripts import PUBLISH
from twistedsock.redis.resp import (
    SCRIPTS,
    Call,
    ConnectionLost,
    Conversation,
    RedisError,
    ScriptCall,
    ShardTopic,
    Subscribe,
    Unsubscribe,
    pack,
)


class Fake:
    """A conversation whose bytes are kept."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.messages: list[tuple[bytes, bytes]] = []
        self.broken: list[str] = []
        self.unfollowed: list[bytes] = []
        self.replies: list[Any] = []
        self.conversation = Conversation(
            self.written.append,
            lambda topic, message: self.messages.append((topic, message)),
            self.broken.append,
            self.unfollowed.append,
        )

    def call(self, *parts: bytes | int) -> Call:
        return Call(parts, self.replies.append)

    def script_call(self, key: bytes, is_ordered: bool = False) -> ScriptCall:
        return ScriptCall(PUBLISH, [key], [1], self.replies.append, is_ordered)


@pytest.fixture
def fake() -> Fake:
    return Fake()


def push(*words: bytes) -> bytes:
    return b">%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def subscribed(topic: bytes) -> bytes:
    return b">3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(topic), topic)


def test_packs_a_command() -> None:
    assert pack((b"SET", b"\r\n\x00", 12)) == b"*3\r\n$3\r\nSET\r\n$3\r\n\r\n\x00\r\n$2\r\n12\r\n"


def test_sends_several_calls_in_one_write(fake: Fake) -> None:
    fake.conversation.send([fake.call(b"A"), Subscribe([b"t"]), fake.call(b"B")])
    assert fake.written == [pack((b"A",)) + pack((b"SUBSCRIBE", b"t")) + pack((b"B",))]
    assert len(fake.conversation) == 3


def test_replies_belong_to_calls_in_their_order_however_they_are_cut(fake: Fake) -> None:
    fake.conversation.send([fake.call(b"A"), fake.call(b"B"), fake.call(b"C")])
    for byte in b"+one\r\n:2\r\n*2\r\n$1\r\nx\r\n_\r\n":
        fake.conversation.receive(bytes([byte]))
    assert fake.replies == [b"one", 2, [b"x", None]] and fake.broken == []


def test_messages_between_replies_are_not_replies(fake: Fake) -> None:
    fake.conversation.send([Subscribe([b"t", b"u"]), fake.call(b"A"), Unsubscribe([b"u"]), fake.call(b"B")])
    fake.conversation.receive(subscribed(b"t") + subscribed(b"u") + push(b"message", b"t", b"hello") + b"+A\r\n")
    fake.conversation.receive(push(b"unsubscribe", b"u", b"x") + b"+B\r\n" + push(b"message", b"t", b"again"))
    assert fake.replies == [b"A", b"B"] and fake.messages == [(b"t", b"hello"), (b"t", b"again")]
    assert fake.broken == [] and len(fake.conversation) == 0


def test_an_error_is_the_reply_to_its_call(fake: Fake) -> None:
    fake.conversation.send([fake.call(b"A"), fake.call(b"B")])
    fake.conversation.receive(b"-OOM command not allowed\r\n+B\r\n")
    error, reply = fake.replies
    assert isinstance(error, RedisError) and str(error) == "OOM command not allowed" and reply == b"B"


def test_calls_without_a_reply_learn_that_the_connection_was_lost(fake: Fake) -> None:
    fake.conversation.send([fake.call(b"A"), Subscribe([b"t"]), fake.call(b"B")])
    fake.conversation.receive(b"+A\r\n")
    fake.conversation.close()
    assert fake.replies[0] == b"A" and isinstance(fake.replies[1], ConnectionLost) and len(fake.replies) == 2
    fake.conversation.receive(b"+late\r\n")
    assert len(fake.replies) == 2


def test_forgotten_scripts_are_loaded_and_the_calls_repeated_in_their_order(fake: Fake) -> None:
    first, second, other = fake.script_call(b"1"), fake.script_call(b"2"), fake.call(b"PING")
    later = fake.script_call(b"3")
    fake.conversation.send([first, second, other])
    fake.conversation.receive(b"-NOSCRIPT No matching script.\r\n")
    fake.conversation.send([later])
    assert len(fake.written) == 1
    fake.conversation.receive(b"-NOSCRIPT No matching script.\r\n+PONG\r\n")
    loads = b"".join(pack((b"SCRIPT", b"LOAD", script.text)) for script in SCRIPTS)
    assert fake.written[1:] == [loads + pack(first.parts) + pack(second.parts) + pack(later.parts)]
    fake.conversation.receive(b"+sha\r\n" * len(SCRIPTS) + b":1\r\n:2\r\n:3\r\n")
    assert fake.replies == [b"PONG", 1, 2, 3] and fake.broken == []


def test_ordered_calls_that_were_overtaken_by_later_ones_fail(fake: Fake) -> None:
    """Another client has loaded the script between the two: a repeated call would have its effect too late."""
    calls = [fake.script_call(key, is_ordered=True) for key in (b"1", b"2", b"1")]
    fake.conversation.send(calls)
    fake.conversation.receive(b"-NOSCRIPT No matching script.\r\n" * 2 + b":3\r\n")
    assert isinstance(fake.replies[0], RedisError) and fake.replies[1:] == [3]
    assert fake.written[1].endswith(pack(calls[1].parts)) and pack(calls[0].parts) not in fake.written[1]


def test_calls_are_sent_after_all_that_waited_for_scripts_have_failed(fake: Fake) -> None:
    first, second, later = [fake.script_call(b"1", is_ordered=True) for _ in range(3)]
    fake.conversation.send([first, second, fake.call(b"PING")])
    fake.conversation.receive(b"-NOSCRIPT No matching script.\r\n")
    fake.conversation.send([later])
    fake.conversation.receive(b":2\r\n")
    fake.conversation.send([fake.call(b"LAST")])
    assert len(fake.written) == 1
    fake.conversation.receive(b"+PONG\r\n")
    assert fake.written[1].endswith(pack(later.parts) + pack((b"LAST",)))


def test_forgotten_scripts_are_loaded_when_a_topic_was_the_last_to_be_confirmed(fake: Fake) -> None:
    fake.conversation.send([fake.script_call(b"1"), Subscribe([b"t"])])
    fake.conversation.receive(b"-NOSCRIPT No matching script.\r\n" + subscribed(b"t"))
    fake.conversation.receive(b"+sha\r\n" * len(SCRIPTS) + b":1\r\n")
    assert fake.replies == [1] and fake.broken == []


def shard_topic(kind: bytes, topic: bytes) -> bytes:
    return b">3\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n:1\r\n" % (len(kind), kind, len(topic), topic)


def test_topics_of_a_cluster_are_confirmed_one_by_one(fake: Fake) -> None:
    topics = [ShardTopic(b"t", False, fake.replies.append), ShardTopic(b"t", True, fake.replies.append)]
    fake.conversation.send([*topics, fake.call(b"PING")])
    assert fake.written == [pack((b"SSUBSCRIBE", b"t")) + pack((b"SUNSUBSCRIBE", b"t")) + pack((b"PING",))]
    fake.conversation.receive(shard_topic(b"ssubscribe", b"t") + push(b"smessage", b"t", b"x"))
    fake.conversation.receive(shard_topic(b"sunsubscribe", b"t") + b"+PONG\r\n")
    assert fake.replies == [None, None, b"PONG"] and fake.messages == [(b"t", b"x")]
    assert fake.unfollowed == fake.broken == []


def test_a_topic_whose_slot_has_moved_is_not_followed_any_more(fake: Fake) -> None:
    fake.conversation.send([ShardTopic(b"u", True, fake.replies.append)])
    fake.conversation.receive(shard_topic(b"sunsubscribe", b"t") + b"-MOVED 1 10.0.0.1:6379\r\n")
    assert fake.unfollowed == [b"t"] and [str(reply) for reply in fake.replies] == ["MOVED 1 10.0.0.1:6379"]
    fake.conversation.send([ShardTopic(b"t", False, fake.replies.append)])
    fake.conversation.close()
    assert isinstance(fake.replies[-1], ConnectionLost)


def test_calls_that_wait_for_scripts_learn_that_the_connection_was_lost(fake: Fake) -> None:
    fake.conversation.send([fake.script_call(b"1"), fake.call(b"PING")])
    fake.conversation.receive(b"-NOSCRIPT No matching script.\r\n")
    fake.conversation.send([fake.call(b"A")])
    fake.conversation.close()
    assert [type(reply) for reply in fake.replies] == [ConnectionLost] * 3


def test_a_server_that_does_not_load_scripts_breaks_the_connection(fake: Fake) -> None:
    fake.conversation.send([fake.script_call(b"1")])
    fake.conversation.receive(b"-NOSCRIPT No matching script.\r\n-NOPERM no permissions\r\n")
    assert fake.broken == ["cannot load a script: NOPERM no permissions"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "not the protocol of Redis"),
        (b"+surplus\r\n", "unexpected reply"),
        (subscribed(b"t"), "unexpected subscribe of a topic"),
        (b">3\r\n$10\r\nssubscribe\r\n$1\r\nt\r\n:1\r\n", "unexpected ssubscribe of a topic"),
    ],
)
def test_whatever_is_not_expected_breaks_the_connection(fake: Fake, data: bytes, reason: str) -> None:
    fake.conversation.receive(data + b"+more\r\n")
    assert len(fake.broken) == 1 and fake.broken[0].startswith(reason)


def test_a_refused_topic_breaks_the_connection(fake: Fake) -> None:
    fake.conversation.send([Subscribe([b"t"]), fake.call(b"A")])
    fake.conversation.receive(b"-NOPERM No permissions to access a channel\r\n")
    assert fake.broken == ["cannot follow topics: NOPERM No permissions to access a channel"] and fake.replies == []


def test_other_messages_of_the_server_are_ignored(fake: Fake) -> None:
    fake.conversation.receive(push(b"invalidate", b"key"))
    assert fake.broken == [] and fake.messages == []
