"""A simulated Redis: one process that answers the commands of the Redis backplane, in RESP3.

It runs the scripts as ``tests.simulation.redis_scripts`` has them. It can be paused, become a replica, and end.
"""

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import hiredis

from tests.simulation.redis_scripts import MODELS, WRITING, Call, Data, Entry
from tests.simulation.world import World
from twistedsock.redis.resp import SCRIPTS

SCRIPTS_BY_SHA = {script.sha: script for script in SCRIPTS}
SCRIPTS_BY_TEXT = {script.text: script for script in SCRIPTS}

Words = Sequence[bytes]


class Status(str):
    """A simple string in RESP."""

    __slots__ = ()


class Push(list[Any]):
    """A message outside of the order of replies."""

    __slots__ = ()


class Failed(Exception):
    """An error reply."""


OK = Status("OK")


def encode(value: Any) -> bytes:
    """A value in RESP3."""
    if isinstance(value, Failed):
        return b"-%b\r\n" % str(value).encode()
    if isinstance(value, Status):
        return b"+%b\r\n" % value.encode()
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    if isinstance(value, frozenset):
        return b"~%d\r\n" % len(value) + b"".join(map(encode, sorted(value)))
    if isinstance(value, dict):
        return b"%%%d\r\n" % len(value) + b"".join([encode(part) for item in value.items() for part in item])
    kind = b">" if isinstance(value, Push) else b"*"
    return b"%b%d\r\n" % (kind, len(value)) + b"".join(map(encode, value))


class ServerConnection:
    """The server's end of a connection. ``write`` sends bytes to the client, ``closed`` is called when the server
    closes it."""

    def __init__(self, number: int, write: Callable[[bytes], None], closed: Callable[[], None]) -> None:
        self.number = number
        self.write = write
        self.closed = closed
        self.is_open = True
        self.topics: dict[bytes, None] = {}
        self.unread: deque[bytes] = deque()
        """Input that has arrived while the process was paused. Empty bytes are the end."""
        self.reader: Any = hiredis.Reader()

    def close(self) -> None:
        """The client has closed its end, or the server does."""
        self.is_open = False
        self.topics.clear()


class Process:
    """A process that answers commands: a server, or a Sentinel."""

    pushes_first = False
    """Whether the messages that a script publishes precede its reply, as in Redis before 7.2."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.is_running = True
        self.is_paused = False
        self.connections: dict[int, ServerConnection] = {}
        self._world = world

    # Its life.

    def end(self) -> None:
        """It is killed: all connections end."""
        self.is_running = False
        connections, self.connections = self.connections, {}
        for connection in connections.values():
            connection.close()
            connection.closed()

    def resume(self) -> None:
        """Continue after a pause: read the input that has arrived, one connection after the other."""
        self.is_paused = False
        connections = list(self.connections.values())
        self._world.random.shuffle(connections)
        for connection in connections:
            while connection.unread and connection.is_open:
                data = connection.unread.popleft()
                if data:
                    self.receive(connection, data)
                else:
                    self.forget(connection)

    # Connections.

    def accept(self, write: Callable[[bytes], None], closed: Callable[[], None]) -> ServerConnection:
        number = self._world.serial()
        connection = self.connections[number] = ServerConnection(number, write, closed)
        return connection

    def receive(self, connection: ServerConnection, data: bytes) -> None:
        """Bytes of a client."""
        if not connection.is_open:
            return
        if self.is_paused:
            connection.unread.append(data)
            return
        connection.reader.feed(data)
        while connection.is_open and (words := connection.reader.gets()) is not False:
            self._run(connection, words)

    def forget(self, connection: ServerConnection) -> None:
        """The client has closed its end."""
        if self.is_paused:
            connection.unread.append(b"")
            return
        connection.close()
        self.connections.pop(connection.number, None)

    # Commands.

    def _run(self, connection: ServerConnection, words: Words) -> None:
        command = words[0].decode().lower()
        messages: list[bytes] = []
        try:
            handler: Any = getattr(self, f"_on_{command}", None)
            if handler is None:
                raise Failed(f"ERR unknown command '{command}'")
            reply = handler(connection, words[1:], partial(self._publish, connection, messages))
        except Failed as error:
            reply = error
        replies = [] if reply is None else [encode(reply)]
        if connection.is_open:
            connection.write(b"".join(messages + replies if self.pushes_first else replies + messages))

    def _publish(self, connection: ServerConnection, own: list[bytes], topic: bytes, message: bytes) -> None:
        data = encode(Push([b"message", topic, message]))
        for other in list(self.connections.values()):
            if topic in other.topics:
                if other is connection:
                    own.append(data)
                else:
                    other.write(data)

    def _on_hello(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        return {b"server": b"redis", b"proto": 3, b"id": connection.number}

    def _on_ping(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        return Status("PONG")

    def _on_subscribe(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        for topic in words:
            connection.topics[topic] = None
            connection.write(encode(Push([b"subscribe", topic, len(connection.topics)])))

    def _on_unsubscribe(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        for topic in words:
            connection.topics.pop(topic, None)
            connection.write(encode(Push([b"unsubscribe", topic, len(connection.topics)])))


class Server(Process):
    """``added`` is called with each entry that is written into a log, its key, and whether its epoch begins."""

    def __init__(self, world: World, name: str, data: Data, added: Callable[[bytes, Entry, bool], None]) -> None:
        super().__init__(world, name)
        self.data = data
        self.added = added
        self.replication_id = b"%040x" % world.random.getrandbits(160)
        self.run_id = b"%040x" % world.random.getrandbits(160)
        self.is_master = True
        self.clock_error = 0.0
        """Seconds by which its clock is wrong."""
        self.pushes_first = world.random.random() < 0.5
        self._scripts: set[bytes] = set()

    # Its life.

    def become_replica(self, master: "Server") -> None:
        """Have the data of another server from now on."""
        self.is_master, self.data, self.replication_id = False, master.data, master.replication_id

    @property
    def microseconds(self) -> int:
        return int((1_800_000_000 + self._world.now + self.clock_error) * 1_000_000)

    def _on_config(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        return {}

    def _on_info(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        role = b"master" if self.is_master else b"slave"
        fields = {b"redis_version": b"7.0.15", b"run_id": self.run_id, b"loading": b"0", b"role": role}
        fields[b"master_replid"] = self.replication_id
        return b"".join([b"%b:%b\r\n" % field for field in fields.items()])

    def _on_publish(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        publish(*words)
        return 1

    def _on_time(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        return [b"%d" % part for part in divmod(self.microseconds, 1_000_000)]

    def _on_client(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        """CLIENT KILL ID"""
        killed = self.connections.pop(int(words[2]), None)
        if killed is None:
            return 0
        killed.close()
        killed.closed()
        return 1

    def _on_smembers(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        return frozenset(self.data.get(words[0], ()))

    def _on_zrange(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        return sorted(self.data.get(words[0], {}))

    def _on_hgetall(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        return self.data.get(words[0], {})

    def _on_script(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        """SCRIPT LOAD"""
        script = SCRIPTS_BY_TEXT[words[1]]
        self._scripts.add(script.sha)
        return script.sha

    def _on_evalsha(self, connection: ServerConnection, words: Words, publish: Any) -> Any:
        sha, keys = words[0], words[2 : 2 + int(words[1])]
        if sha not in self._scripts:
            raise Failed("NOSCRIPT No matching script. Please use EVAL.")
        script = SCRIPTS_BY_SHA[sha]
        if not self.is_master and script in WRITING:
            raise Failed("READONLY You can't write against a read only replica.")
        self.data.expire(self.microseconds / 1e6)
        call = Call(self.data, self.microseconds, publish, self.added)
        return MODELS[script](call, keys, words[2 + len(keys) :])

    def forget_scripts(self) -> None:
        """SCRIPT FLUSH"""
        self._scripts.clear()
