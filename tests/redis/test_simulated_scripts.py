"""The simulated Redis runs its scripts as Python functions: they are compared with the Lua scripts on a real server."""

from contextlib import closing
from random import Random
from typing import Any

import pytest

from tests.redis.servers import RedisConnection, RedisServer
from tests.simulation.redis_scripts import MODELS, Call, Data, Entry
from twistedsock.redis import event_scripts, presence_scripts
from twistedsock.redis.scripts import Script

pytestmark = pytest.mark.end_to_end

CALLS = 1_500

LOG, KEYS, LEASES, REGISTRY = b"log", (b"key1", b"key2"), b"leases", b"registry"
NODES, CHANNELS = (b"n1", b"n2", b"n3"), (b"c1", b"c2")
ALL_KEYS = [LOG, *KEYS, LEASES, REGISTRY, *NODES, *[b"%b:%b" % (node, one) for node in NODES for one in CHANNELS]]


class Pair:
    """The real scripts, which read the time from two keys, and their models."""

    def __init__(self, server: RedisConnection, seed: int) -> None:
        self.random = Random(seed)
        self.server = server
        self.data = Data()
        self.saved: tuple[Data, list[Any]] = Data(), [None] * len(ALL_KEYS)
        self.microseconds = 1_800_000_000_000_000
        self.fence = b"f1"
        self.positions: list[tuple[bytes, int]] = [(b"1", 0)]
        self.tokens = 0

    def step(self) -> None:
        random = self.random
        self.microseconds += random.choice((0, 1, 900, 5_000, 400_000, 3_000_000)) - random.choice((0, 0, 0, 2_000_000))
        for key in self.data.expire(self.microseconds / 1e6):
            self.server.ask("DEL", key)
        choice = random.random()
        if choice < 0.02:
            self.fence = random.choice((b"f1", b"f2", b"f3"))
        elif choice < 0.03:
            self.saved = self.data.copy(), [self.server.ask("DUMP", key) for key in ALL_KEYS]
        elif choice < 0.04:
            self.restore()
        elif choice < 0.41:
            self.publish()
        elif choice < 0.52:
            known = random.choice(self.positions)
            self.compare(event_scripts.OPEN, [LOG], self.fence, *self.kept(), random.choice((0, 30, 9_000)), *known)
        elif choice < 0.65:
            epoch, offset = random.choice(self.positions)
            self.compare(event_scripts.READ, [LOG], epoch, max(0, offset - 9), 4_000, random.choice((1, 40, 9_000)))
        elif choice < 0.72:
            time = self.microseconds // 1_000 - random.choice((0, 500, 2_000, 4_000, 9_000))
            self.compare(event_scripts.FIND, [LOG], random.choice(self.positions)[0], time, 6_000)
        elif choice < 0.84:
            self.change_members()
        elif choice < 0.9:
            self.compare(presence_scripts.LIST_MEMBERS, [LEASES], b"", random.choice(CHANNELS))
        elif choice < 0.96:
            node = random.choice(NODES)
            arguments = (node, 3_000, b"r%d" % self.microseconds, random.choice((0, 1)))
            self.compare(presence_scripts.RENEW_LEASE, [LEASES, REGISTRY], *arguments)
        else:
            node = random.choice(NODES)
            forced = random.choice((b"0", b"1"))
            self.compare(presence_scripts.REMOVE_NODE, [LEASES, node], node, node + b":", b"topic:", forced)

    def kept(self) -> tuple[int, int, int]:
        return self.random.choice((3, 40)), self.random.choice((60, 900)), self.random.choice((2_000, 60_000))

    def publish(self) -> None:
        random, keys, since = self.random, [LOG], b""
        if random.random() < 0.2:
            keys.append(random.choice(KEYS))
        token = self.tokens = self.tokens + 1
        if random.random() < 0.3:
            token -= random.choice((0, 1, 2, 12))
            since = b"%d" % (self.microseconds // 1_000 - random.choice((0, 1_000, 5_000)))
        count, events = random.choice((1, 1, 2, 70)), b"x" * random.choice((1, 20, 300))
        arguments = (self.fence, b"topic", b"n1", *self.kept(), count, b"t%d" % token, since, events)
        arguments += (random.choice((b"", b"", b"f 1")),)
        first, epoch, *_ = self.compare(event_scripts.PUBLISH, keys, *arguments)
        if epoch:
            self.positions = [*self.positions[-30:], (epoch, first + count - 1)]

    def change_members(self) -> None:
        random, changes = self.random, list[bytes]()
        node, channel = random.choice(NODES), random.choice(CHANNELS)
        for _ in range(random.choice((1, 2, 5))):
            id = random.choice((b"1", b"2", b"3"))
            changes += [random.choice((b"+", b"-", b"=", b"*", b"!")), id, b"nick" + id]
        keys = [b"%b:%b" % (node, channel), node]
        self.compare(presence_scripts.CHANGE_MEMBERS, keys, b"topic", channel, *changes)

    def restore(self) -> None:
        """Go back to what was saved last, as a server that loads an old snapshot."""
        data, dumps = self.saved
        self.data = data.copy()
        for key, dump in zip(ALL_KEYS, dumps, strict=True):
            self.server.ask("DEL", key)
            if dump is not None:
                self.server.ask("RESTORE", key, 0, dump)

    def compare(self, script: Script, keys: list[bytes], *arguments: bytes | int) -> Any:
        seconds, microseconds = divmod(self.microseconds, 1_000_000)
        self.server.ask("MSET", b"seconds", seconds, b"microseconds", microseconds)
        clock = b"{redis.call('GET', 'seconds'), redis.call('GET', 'microseconds')}"
        text = script.text.replace(b"redis.call('TIME')", clock)
        text = text.replace(b"redis.call('PUBLISH', ", b"redis.call('RPUSH', 'messages', ")
        expected = self.server.ask("EVAL", text, len(keys), *keys, *arguments)
        messages = list[tuple[bytes, bytes]]()
        words = [b"%d" % word if isinstance(word, int) else word for word in arguments]
        call = Call(self.data, self.microseconds, lambda *message: messages.append(message), ignore)
        assert MODELS[script](call, keys, words) == expected, (script.text[-200:], arguments)
        sent = self.server.ask("LRANGE", "messages", 0, -1)
        self.server.ask("DEL", "messages")
        # SPOP has no order.
        assert sorted(messages) == sorted(zip(sent[::2], sent[1::2], strict=True))
        self.compare_log(script)
        return expected

    def compare_log(self, script: Script) -> None:
        stored = [
            Entry(*map(int, id.split(b"-")), fields[1], fields[3], *map(int, fields[5:10:2]), fields[11], fields[13])
            for id, fields in self.server.ask("XRANGE", LOG, "-", "+")
        ]
        assert stored == list(self.data.get(LOG, ()))
        if script is event_scripts.OPEN:
            assert abs(self.data.ends[LOG] - self.microseconds / 1e6 - self.server.ask("TTL", LOG)) < 5


def ignore(*arguments: Any) -> None: ...


@pytest.mark.parametrize("seed", range(2))
def test_models_have_the_replies_messages_and_data_of_the_scripts(server: RedisServer, seed: int) -> None:
    with closing(RedisConnection(server.path)) as connection:
        pair = Pair(connection, seed)
        for _ in range(CALLS):
            pair.step()
