"""The scripts of the Redis backplane in Python, for the simulated Redis.

``tests/redis/test_simulated_scripts.py`` holds them equal to the Lua scripts, on a real server. Values in ``Data`` are
never changed but replaced, so a copy of the dictionary is a copy of everything.
"""

from collections.abc import Callable, Iterator, Sequence
from math import ceil
from typing import Any, NamedTuple

from twistedsock.redis import event_scripts, presence_scripts
from twistedsock.redis.scripts import KEY_MEMORY_SECONDS, MAX_FORMER_EPOCHS, REST_SECONDS, Script

Arguments = Sequence[bytes]

ENTRIES = 8
"""Entries that the scripts look at in one command."""


class Entry(NamedTuple):
    """Of a log."""

    epoch: int
    last: int
    fence: bytes
    chain: bytes
    count: int
    time: int
    total: int
    token: bytes
    events: bytes

    @property
    def id(self) -> bytes:
        return b"%d-%d" % (self.epoch, self.last)

    @property
    def first(self) -> int:
        return self.last - self.count + 1

    @property
    def as_reply(self) -> list[Any]:
        return [self.first, self.count, b"%d" % self.time, self.events]


Log = tuple[Entry, ...]


class Place(NamedTuple):
    """The place after the newest entry, in the epoch that holds under a fence."""

    epoch: int
    offset: int
    chain: bytes
    time: int
    total: int
    is_new: bool


def former_epochs(chain: bytes) -> list[tuple[int, int]]:
    """The epochs of a chain, newest first, each with its last valid offset."""
    links = [link.split(b"-") for link in chain.split(b",")] if chain else []
    return [(int(epoch), int(offset)) for epoch, offset in links]


class Data:
    """The data of a server. Times are its own, in seconds."""

    def __init__(self, values: dict[bytes, Any] | None = None, ends: dict[bytes, float] | None = None) -> None:
        self.values: dict[bytes, Any] = values or {}
        self.ends = ends or {}
        """When keys expire."""

    def copy(self) -> "Data":
        return Data(dict(self.values), dict(self.ends))

    def get(self, key: bytes, default: Any) -> Any:
        return self.values.get(key, default)

    def set(self, key: bytes, value: Any) -> None:
        """An empty collection is deleted."""
        if value or value == b"":
            self.values[key] = value
        else:
            self.values.pop(key, None)
            self.ends.pop(key, None)

    def expire(self, now: float) -> list[bytes]:
        """Delete what has expired. Returns the keys."""
        expired = [key for key, end in self.ends.items() if end <= now]
        for key in expired:
            del self.values[key], self.ends[key]
        return expired


class Call:
    """One call of a script. ``microseconds`` is the clock of the server. ``publish`` is called with messages, ``added``
    with the key of each log that gets an entry, the entry, and whether its epoch begins with it."""

    def __init__(
        self,
        data: Data,
        microseconds: int,
        publish: Callable[[bytes, bytes], None],
        added: Callable[[bytes, Entry, bool], None],
    ) -> None:
        self.data = data
        self.microseconds = microseconds
        self.now = microseconds // 1000
        self.publish = publish
        self.added = added

    # Logs.

    def log(self, key: bytes) -> Log:
        log: Log = self.data.get(key, ())
        return log

    def head(self, key: bytes, fence: bytes) -> Place:
        log = self.log(key)
        if not log:
            return Place(self.microseconds, 0, b"", 0, 0, True)
        newest = log[-1]
        if newest.fence == fence:
            return Place(newest.epoch, newest.last, newest.chain, newest.time, newest.total, False)
        links = [newest.id, *newest.chain.split(b",")[: MAX_FORMER_EPOCHS - 1]]
        chain = b",".join([link for link in links if link])
        epoch = max(self.microseconds, newest.epoch + 1 + int(fence[:6], 16))
        return Place(epoch, newest.last, chain, newest.time, newest.total, is_new=True)

    def add(self, key: bytes, place: Place, fence: bytes, count: int, token: bytes, events: bytes) -> Entry:
        time, total = max(place.time, self.now), place.total + len(events)
        entry = Entry(place.epoch, place.offset + count, fence, place.chain, count, time, total, token, events)
        self.data.set(key, (*self.log(key), entry))
        self.added(key, entry, place.is_new)
        return entry

    def trim(self, key: bytes, newest: Entry, events: int, size: int, age: int) -> None:
        """Drop entries that are too old or too many, at most 16 times 8 of them, but never the newest entry."""
        log = self.log(key)

        def is_surplus(entry: Entry) -> bool:
            is_large = newest.total - entry.total >= size
            return entry.last <= newest.last - events or is_large or entry.time < self.now - age

        surplus = 0
        while surplus < min(len(log) - 1, 16 * ENTRIES) and is_surplus(log[surplus]):
            surplus += 1
        self.data.set(key, log[surplus:])

    def rest(self, key: bytes, age: int) -> None:
        if key in self.data.values:
            self.data.ends[key] = self.microseconds / 1e6 + ceil(age / 1000) + REST_SECONDS


def publish(call: Call, keys: Arguments, arguments: Arguments) -> list[Any]:
    log_key, key = keys[0], keys[1] if len(keys) > 1 else None
    fence, topic, node, *numbers = arguments
    kept, size, age, count = map(int, numbers[:4])
    token, since, events, fingerprint = numbers[4:8]
    if key is not None and key in call.data.values:
        known_first, known_token, known_fingerprint = call.data.values[key].split(b" ", 2)
        if known_fingerprint != fingerprint:
            return [0, b"", b"0", event_scripts.OTHER_FINGERPRINT, b"%d" % call.now]
        is_same = known_token == token
        source = event_scripts.THIS_REQUEST if is_same else event_scripts.OTHER_REQUEST
        return [int(known_first), b"", b"0", source, b"%d" % call.now]
    if since:
        known = _find_token(call.log(log_key), token, int(since))
        if known is not None:
            return [*known, b"%d" % call.now]
    place = call.head(log_key, fence)
    entry = call.add(log_key, place, fence, count, token, events)
    first = place.offset + 1
    if entry.last // 64 > place.offset // 64 or entry.total // 65536 > place.total // 65536:
        call.trim(log_key, entry, kept, size, age)
    call.rest(log_key, age)
    if key is not None:
        call.data.set(key, b"%d %b %b" % (first, token, fingerprint))
        call.data.ends[key] = call.microseconds / 1e6 + KEY_MEMORY_SECONDS
    call.publish(topic, b"E%d %d %d %b\n%b" % (entry.epoch, first, entry.time, node, events))
    return [first, b"%d" % entry.epoch, b"%d" % entry.time, event_scripts.THIS_REQUEST, b"%d" % call.now]


def _find_token(log: Log, token: bytes, since: int) -> list[Any] | None:
    """The reply if an entry has this token, or if it may have been trimmed. None if it was never written."""
    for entry in reversed(log):
        if entry.token == token:
            return [entry.first, b"%d" % entry.epoch, b"%d" % entry.time, event_scripts.THIS_REQUEST]
        if entry.time < since:
            return None
    return [0, b"", b"0", event_scripts.THIS_REQUEST] if log and log[0].last > log[0].count else None


def open_log(call: Call, keys: Arguments, arguments: Arguments) -> list[Any]:
    key, fence, known_epoch = keys[0], arguments[0], arguments[5]
    kept, size, age, limit, known_offset = map(int, (*arguments[1:5], arguments[6]))
    place = call.head(key, fence)
    newest = call.add(key, place, fence, 0, b"", b"") if place.is_new else call.log(key)[-1]
    call.trim(key, newest, kept, size, age)
    call.rest(key, age)
    after = known_offset if known_epoch == b"%d" % newest.epoch else -1
    tail: list[Entry] = []
    before = 0
    for entry in reversed(call.log(key)):
        if entry.last <= after or newest.last <= after:
            break
        if entry.count:
            is_surplus = entry.last <= newest.last - kept or entry.time < call.now - age
            if sum(len(one.events) for one in tail) >= limit or is_surplus:
                before = entry.time
                break
            tail.append(entry)
    return [b"%d" % newest.epoch, newest.last, newest.chain, b"%d" % before, [entry.as_reply for entry in tail]]


def _after(log: Log, offset: int, oldest: int) -> Iterator[Entry]:
    """The entries after an offset, in the sequence of epochs to which the newest entry belongs."""
    start = log[-1].epoch
    for epoch, valid in former_epochs(log[-1].chain):
        if offset < valid:
            start = epoch
    for entry in log:
        if (entry.epoch, entry.last) > (start, offset) and entry.count and entry.time >= oldest:
            yield entry


def read(call: Call, keys: Arguments, arguments: Arguments) -> list[Any]:
    log, found = call.log(keys[0]), list[Any]()
    after, age, limit = map(int, arguments[1:])
    if not log or b"%d" % log[-1].epoch != arguments[0] or log[-1].last <= after:
        return []
    for entry in _after(log, after, call.now - age):
        found.append(entry.as_reply)
        limit -= len(entry.events)
        if limit <= 0:
            break
    return found


def find(call: Call, keys: Arguments, arguments: Arguments) -> int:
    log = call.log(keys[0])
    time, age = map(int, arguments[1:])
    if not log or b"%d" % log[-1].epoch != arguments[0]:
        return 0
    older, newer = 0, log[-1].last
    while older < newer:
        middle = (older + newer) // 2
        entry = next(_after(log, middle, call.now - age), None)
        if entry is not None and entry.time < time:
            older = entry.last
        else:
            newer = middle
    return older


def change_members(call: Call, keys: Arguments, arguments: Arguments) -> int:
    topic, channel, *changes = arguments
    members, reports = dict(call.data.get(keys[0], {})), list[bytes]()
    for operation, id, nick in zip(changes[::3], changes[1::3], changes[2::3], strict=True):
        is_known = id in members
        if operation in (b"-", b"!"):
            members.pop(id, None)
            if is_known or operation == b"!":
                reports.append(b"-%b %b" % (id, nick))
        elif operation != b"=" or is_known:
            members[id] = nick
            if not is_known and operation == b"+":
                reports.append(b"+%b %b" % (id, nick))
    call.data.set(keys[0], members)
    channels = dict.fromkeys(call.data.get(keys[1], ()))
    if members:
        channels[channel] = None
    else:
        channels.pop(channel, None)
    call.data.set(keys[1], tuple(channels))
    if reports:
        call.publish(topic, b"P" + b"\n".join(reports))
    return 1


def list_members(call: Call, keys: Arguments, arguments: Arguments) -> list[Any]:
    prefix, channel = arguments
    nodes = sorted(call.data.get(keys[0], {}).items(), key=lambda item: (item[1], item[0]))
    found = [call.data.get(b"%b%b:%b" % (prefix, node, channel), {}) for node, _ in nodes]
    return [[part for item in members.items() for part in item] for members in found]


def renew_lease(call: Call, keys: Arguments, arguments: Arguments) -> list[Any]:
    node, lease, name, can_register = arguments[0], int(arguments[1]), arguments[2], arguments[3] == b"1"
    leases, registry = dict(call.data.get(keys[0], {})), dict(call.data.get(keys[1], {}))
    registry.setdefault(b"name", name)
    renewed = registry.get(b"renewed")
    registry[b"renewed"] = call.now
    end, was_registered = call.now + lease, node in leases
    is_being_removed = leases.get(node) == 0
    if not is_being_removed and (was_registered or can_register):
        leases[node] = end
    if renewed is None or call.now - renewed > lease / 2:
        leases = {name: end if until else 0 for name, until in leases.items()}
    call.data.set(keys[0], leases)
    call.data.set(keys[1], registry)
    ended = sorted([(until, name) for name, until in leases.items() if until < call.now])
    is_registered = int(was_registered and not is_being_removed)
    return [registry[b"name"], is_registered, [name for _, name in ended]]


def remove_node(call: Call, keys: Arguments, arguments: Arguments) -> int:
    node, members_prefix, topic_prefix, is_forced = arguments
    leases = dict(call.data.get(keys[0], {}))
    if is_forced == b"0" and (node not in leases or leases[node] > call.now):
        return 0
    channels = list(call.data.get(keys[1], ()))
    for channel in channels[:100]:
        members = call.data.get(members_prefix + channel, {})
        call.data.set(members_prefix + channel, {})
        if members:
            reports = [b"-%b %b" % (id, nick) for id, nick in members.items()]
            call.publish(topic_prefix + channel, b"P" + b"\n".join(reports))
    leases[node] = 0
    if not channels[100:]:
        del leases[node]
    call.data.set(keys[0], leases)
    call.data.set(keys[1], tuple(channels[100:]))
    return len(channels[100:])


Run = Callable[[Call, Arguments, Arguments], Any]

MODELS: dict[Script, Run] = {
    event_scripts.PUBLISH: publish,
    event_scripts.OPEN: open_log,
    event_scripts.READ: read,
    event_scripts.FIND: find,
    presence_scripts.CHANGE_MEMBERS: change_members,
    presence_scripts.LIST_MEMBERS: list_members,
    presence_scripts.RENEW_LEASE: renew_lease,
    presence_scripts.REMOVE_NODE: remove_node,
}

WRITING = {script for script in MODELS if script not in (event_scripts.READ, event_scripts.FIND)} - {
    presence_scripts.LIST_MEMBERS
}
"""Scripts that a replica rejects."""
