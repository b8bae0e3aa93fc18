"""The RESP3 protocol of Redis and Valkey, without input or output: calls to bytes, bytes to replies and messages.

One connection carries calls, their replies, and the messages of the topics that it follows, all in the order in which
the server ran them. So the reply to a call says which messages came before it.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twistedsock.redis.event_scripts import EVENT_SCRIPTS
from twistedsock.redis.presence_scripts import PRESENCE_SCRIPTS
from twistedsock.redis.scripts import Script

SCRIPTS = (*EVENT_SCRIPTS, *PRESENCE_SCRIPTS)
"""All that a server must have loaded."""

Part = bytes | int

MAX_MESSAGE_BYTES = 512 * 1024 * 1024
"""The longest string of Redis (proto-max-bulk-len)."""


class RedisError(Exception):
    """An error reply: the call had no effect. The message begins with a code in capitals."""


class ConnectionLost(Exception):
    """The connection ended before the reply: the call had an effect, or not."""


class Call:
    """A command, and the function that gets its reply, a ``RedisError`` or ``ConnectionLost``."""

    __slots__ = ("done", "parts")

    def __init__(self, parts: Sequence[Part], done: Callable[[Any], None]) -> None:
        self.parts = parts
        self.done = done


class ScriptCall(Call):
    """``is_ordered`` means that calls with the same first key must have their effects in the order of the calls."""

    __slots__ = ("first_key", "is_ordered")

    def __init__(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[Part],
        done: Callable[[Any], None],
        is_ordered: bool = False,
    ) -> None:
        super().__init__((b"EVALSHA", script.sha, len(keys), *keys, *arguments), done)
        self.first_key = keys[0]
        self.is_ordered = is_ordered


class Subscribe:
    """Follow topics."""

    __slots__ = ("topics",)

    def __init__(self, topics: Sequence[bytes]) -> None:
        self.topics = topics


class Unsubscribe(Subscribe):
    """Do not follow topics any more."""

    __slots__ = ()


class ShardTopic:
    """Follow a topic of a Cluster, which only the server with the slot of its name has, or do not follow it any more.
    ``done`` gets None, a ``RedisError`` or ``ConnectionLost``."""

    __slots__ = ("done", "is_end", "topic")

    def __init__(self, topic: bytes, is_end: bool, done: Callable[[Any], None]) -> None:
        self.topic = topic
        self.is_end = is_end
        self.done = done


Item = Call | Subscribe | ShardTopic


class Unsent:
    """Calls that are made at the end of a turn, because more may be added to them until then."""

    __slots__ = ()

    def build(self) -> Sequence[Call]:
        """The calls. They are sent now."""
        raise NotImplementedError

    def abandon(self) -> None:
        """They cannot be sent: the connection was lost in this turn."""
        raise NotImplementedError


def pack(parts: Sequence[Part]) -> bytes:
    """A command as bytes."""
    pieces = [b"*%d\r\n" % len(parts)]
    for part in parts:
        data = b"%d" % part if isinstance(part, int) else part
        pieces.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(pieces)


class Conversation:
    """One connection. ``write`` sends bytes, ``on_message`` is called with the topic and the content of a message,
    ``on_broken`` with the reason if the server does something unexpected, after which the connection must be closed,
    and ``on_unfollowed`` with a topic of a Cluster that this server does not have any more."""

    def __init__(
        self,
        write: Callable[[bytes], object],
        on_message: Callable[[bytes, bytes], None],
        on_broken: Callable[[str], None],
        on_unfollowed: Callable[[bytes], None] | None = None,
    ) -> None:
        # An optional dependency, loaded only where it is used.
        import hiredis

        self._push: type = hiredis.PushNotification
        self._reader: Any = hiredis.Reader(replyError=RedisError, protocolError=ValueError)
        self._write = write
        self._on_message = on_message
        self._on_broken = on_broken
        self._on_unfollowed = on_unfollowed
        # A number is that of the topics that are yet to be confirmed: confirmations come as messages.
        self._waiting: deque[Call | ShardTopic | int] = deque()
        # Calls of scripts that the server did not have, and the calls that wait for them so that the order stays.
        self._repeated: list[Call] = []
        self._held: list[Item] = []
        self._is_open = True

    def __len__(self) -> int:
        """How many calls have no reply."""
        return len(self._waiting) + len(self._repeated) + len(self._held)

    def send(self, items: Sequence[Item]) -> None:
        """Send calls and changes of topics, in this order, in one write."""
        if self._repeated or self._held:
            self._held.extend(items)
            return
        data = []
        for item in items:
            if isinstance(item, Call):
                self._waiting.append(item)
                data.append(pack(item.parts))
            elif isinstance(item, ShardTopic):
                self._waiting.append(item)
                data.append(pack((b"SUNSUBSCRIBE" if item.is_end else b"SSUBSCRIBE", item.topic)))
            elif item.topics:
                self._waiting.append(len(item.topics))
                data.append(pack((b"UNSUBSCRIBE" if isinstance(item, Unsubscribe) else b"SUBSCRIBE", *item.topics)))
        if data:
            self._write(b"".join(data))

    def receive(self, data: bytes) -> None:
        """Handle bytes of the server."""
        self._reader.feed(data)
        while self._is_open:
            try:
                value = self._reader.gets()
            except ValueError as error:
                self._break(f"not the protocol of Redis: {error}")
                return
            if value is False:  # no whole reply is left: a false of the server does not occur in our commands
                return
            if isinstance(value, self._push):
                self._handle_push(value)
            else:
                self._handle_reply(value)

    def close(self) -> None:
        """The connection is closed: calls without a reply get ``ConnectionLost``."""
        self._is_open = False
        unanswered = [*self._repeated, *self._waiting, *self._held]
        self._waiting.clear()
        self._repeated, self._held = [], []
        for item in unanswered:
            if isinstance(item, Call | ShardTopic):
                item.done(ConnectionLost())

    def _handle_push(self, value: Any) -> None:
        kind = value[0]
        if kind in (b"message", b"smessage"):
            self._on_message(value[1], value[2])
        elif kind in (b"ssubscribe", b"sunsubscribe"):
            self._handle_shard_topic(value[1], kind == b"sunsubscribe")
        elif kind in (b"subscribe", b"unsubscribe"):
            expected = self._waiting[0] if self._waiting else None
            if not isinstance(expected, int):
                self._break(f"unexpected {kind.decode()} of a topic")
            elif expected > 1:
                self._waiting[0] = expected - 1
            else:
                self._waiting.popleft()
                self._repeat_if_idle()

    def _handle_shard_topic(self, topic: bytes, is_end: bool) -> None:
        expected = self._waiting[0] if self._waiting else None
        if isinstance(expected, ShardTopic) and (expected.topic, expected.is_end) == (topic, is_end):
            self._waiting.popleft()
            expected.done(None)
            self._repeat_if_idle()
        elif not is_end:
            self._break("unexpected ssubscribe of a topic")
        elif self._on_unfollowed is not None:
            self._on_unfollowed(topic)

    def _handle_reply(self, value: Any) -> None:
        if not self._waiting:
            self._break("unexpected reply")
            return
        call = self._waiting.popleft()
        if isinstance(call, int):
            self._break(f"cannot follow topics: {value}")
            return
        if isinstance(value, RedisError) and str(value).startswith("NOSCRIPT") and isinstance(call, ScriptCall):
            self._repeated.append(call)
        else:
            if self._repeated and isinstance(call, ScriptCall) and call.is_ordered:
                self._fail_overtaken(call.first_key)
            call.done(value)
        self._repeat_if_idle()

    def _fail_overtaken(self, key: bytes) -> None:
        """A later call has found the script, which another client has loaded meanwhile: those before it are late."""
        for call in list(self._repeated):
            if isinstance(call, ScriptCall) and call.is_ordered and call.first_key == key:
                self._repeated.remove(call)
                call.done(RedisError("NOSCRIPT the script was missing for a moment"))

    def _repeat_if_idle(self) -> None:
        """Load the scripts again, and repeat the calls that needed them. They had no effect."""
        if not (self._repeated or self._held) or self._waiting or not self._is_open:
            return
        repeated, self._repeated = self._repeated, []
        held, self._held = self._held, []
        self.send([*load_scripts(self._loaded), *repeated, *held])

    def _loaded(self, reply: Any) -> None:
        if isinstance(reply, RedisError):
            self._break(f"cannot load a script: {reply}")

    def _break(self, reason: str) -> None:
        self._is_open = False
        self._on_broken(reason)


def load_scripts(done: Callable[[Any], None]) -> list[Call]:
    """Calls that load all scripts."""
    return [Call((b"SCRIPT", b"LOAD", script.text), done) for script in SCRIPTS]
