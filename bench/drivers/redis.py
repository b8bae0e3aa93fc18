"""Redis Pub/Sub in RESP2 (redis.io/docs/latest/develop/reference/protocol-spec and develop/pubsub)."""

from collections.abc import Sequence

from twistedsock.bench.clients import Exchange, ServerPing


def array(*strings: bytes) -> bytes:
    """An array of bulk strings: how commands are sent, and messages delivered."""
    return b"*%d\r\n" % len(strings) + b"".join([b"$%d\r\n%b\r\n" % (len(string), string) for string in strings])


class Redis:
    """Over TCP; it has no other. Every PUBLISH is answered with the number of readers that it went to."""

    name = "redis tcp"
    is_predictable = True
    is_size_predictable = False
    reply_mark = b"\r\n"
    keep_alive: ServerPing | None = None

    def greet(self, host: str) -> Sequence[Exchange]:
        return [Exchange(array(b"PING"), b"+PONG\r\n")]

    def prepare(self) -> Sequence[Exchange]:
        return []

    def subscribe(self, channel: bytes, number: int) -> Exchange:
        answer = b"*3\r\n$9\r\nsubscribe\r\n$%d\r\n%b\r\n:%d\r\n" % (len(channel), channel, number)
        return Exchange(array(b"SUBSCRIBE", channel), answer)

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        return [array(b"PUBLISH", channel, payload) for payload in payloads]

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        return b":%d\r\n" % readers * count

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        return [array(b"message", channel, payload) for payload in payloads]
