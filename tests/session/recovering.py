"""A client that stores its positions and resumes from them, and fails on every gap, repetition or wrong order."""

from collections import deque
from dataclasses import dataclass, field

from twistedsock.pubsub.values import Event
from twistedsock.testing import FakeServer, LineClient

Truth = dict[str, dict[int, Event]]
"""The published events, by channel and offset."""


@dataclass
class Request:
    """A command without its reply."""

    verb: str
    channel: str
    payload: str = ""
    since: int | None = None
    epoch: str = ""
    last: int | None = None
    echo: bool = True


@dataclass
class Reading:
    """The expected events of one subscription."""

    echo: bool
    next: int
    """The next expected offset."""
    earliest: int
    """A replay with ``last`` can begin at any offset from here to ``next``, without a LOST before."""
    excused: set[int]
    """Own events published with ``echo=off``; they can be received or not."""
    must_lose: bool = False
    """The position was not recovered, so a LOST must be next."""


@dataclass
class Client:
    """``positions`` outlive the connection: the last received offset and the epoch, by channel."""

    server: FakeServer
    truth: Truth
    peer: LineClient = field(init=False)
    positions: dict[str, tuple[int, str]] = field(default_factory=dict)
    readings: dict[str, Reading] = field(default_factory=dict)
    requests: deque[Request] = field(default_factory=deque)
    refused: set[str] = field(default_factory=set)
    promised: list[tuple[str, int, str]] = field(default_factory=list)
    """Channel, offset and payload of each publish with an OK."""
    buffer: bytes = b""

    def __post_init__(self) -> None:
        self.connect()

    def connect(self) -> None:
        self.peer = self.server.line_client()
        self.buffer = b""
        self.readings.clear()
        self.requests.clear()
        assert self.peer.received()[0].startswith("WELCOME")

    # Commands

    def publish(self, channel: str, payloads: list[str]) -> None:
        self.requests += [Request("PUB", channel, payload) for payload in payloads]
        self.peer.send(*(f"PUB {channel} {payload}" for payload in payloads))

    def subscribe(
        self, channel: str, since: int | None = None, epoch: str = "", last: int | None = None, echo: bool = True
    ) -> None:
        self.requests.append(Request("SUB", channel, since=since, epoch=epoch, last=last, echo=echo))
        options = "" if since is None else f" since={since} epoch={epoch}"
        options += "" if last is None else f" last={last}"
        self.peer.send(f"SUB {channel}{options}{'' if echo else ' echo=off'}")

    def recover(self, channel: str, echo: bool) -> None:
        """Resume from the stored position."""
        since, epoch = self.positions.get(channel, (None, ""))
        self.subscribe(channel, since, epoch, echo=echo)

    def unsubscribe(self, channel: str) -> None:
        self.requests.append(Request("UNSUB", channel))
        self.peer.send(f"UNSUB {channel}")

    # Received messages

    def look(self) -> None:
        *lines, self.buffer = (self.buffer + self.peer.received_bytes()).split(b"\n")
        for line in lines:
            kind, *words = line.decode().split(" ")
            if kind == "MSG":
                self._receive_event(words[0], int(words[1]), words[2], words[3])
            elif kind == "LOST":
                self._receive_loss(words[0], int(words[1]), int(words[2]))
            else:
                self._receive_reply(kind, words)

    def check_complete(self) -> None:
        """Check that no reply and no event is missing, after the last turn."""
        assert not self.requests and not self.buffer and not self.peer.paused
        for channel, offset, payload in self.promised:
            assert self.truth[channel][offset].payload.decode() == payload
        for channel, reading in self.readings.items():
            assert not reading.must_lose
            self._begin_at(channel, reading, reading.next)
            head = max(self.truth.get(channel, {0: None}))
            assert self._may_lack(channel, reading, range(reading.next, head + 1)), "the end is missing"

    def _receive_event(self, channel: str, offset: int, sender: str, payload: str) -> None:
        event = self.truth[channel][offset]
        assert (event.sender.decode(), event.payload.decode()) == (sender, payload)
        reading = self.readings[channel]
        assert reading.echo or not self._is_own(channel, offset)
        assert not reading.must_lose
        assert all(request.payload != payload for request in self.requests), "its own copy came before its OK"
        self._go_to(channel, reading, offset)
        self._stand_at(channel, offset)

    def _receive_loss(self, channel: str, first: int, last: int) -> None:
        reading = self.readings[channel]
        assert first <= last
        self._go_to(channel, reading, first)
        reading.must_lose = False
        assert self._is_gone(channel, last), "a LOST event is still available"
        self._stand_at(channel, last)

    def _receive_reply(self, kind: str, words: list[str]) -> None:
        request = self.requests.popleft()
        if kind == "ERR":
            assert words[0] == ("not-subscribed" if request.verb == "UNSUB" else "unavailable")
            if request.verb == "PUB":
                self.refused.add(request.payload)
            return
        assert kind == "OK"
        if request.verb == "PUB":
            self.promised.append((request.channel, int(words[0]), request.payload))
        elif request.verb == "UNSUB":
            del self.readings[request.channel]
        else:
            told = dict(word.split("=") for word in words[1:])
            self._subscribed(request, int(told["offset"]), told["epoch"], told.get("recovered"))

    def _subscribed(self, request: Request, head: int, epoch: str, recovered: str | None) -> None:
        channel, known = request.channel, self.readings.get(request.channel)
        assert (recovered is None) is (request.since is None)
        reading = Reading(request.echo, head + 1, head + 1, set())
        if request.since is not None and request.epoch == epoch and request.since <= head:
            reading.next = reading.earliest = request.since + 1
            reading.must_lose = recovered == "no"
        else:
            assert recovered != "yes", "where from?"
            reading.earliest = max(1, head + 1 - (request.last or 0))
        if known is not None:
            assert not known.must_lose
            reading.excused = set(known.excused)
            if not known.echo:
                reading.excused |= {each for each in range(known.next, head + 1) if self._is_own(channel, each)}
            reading.earliest = min(reading.earliest, known.earliest)
            reading.next = min(reading.next, known.next)
        self.readings[channel] = reading
        self.positions[channel] = (reading.next - 1, epoch)

    def _go_to(self, channel: str, reading: Reading, offset: int) -> None:
        """Nothing may be left out before what has come now."""
        self._begin_at(channel, reading, min(reading.next, offset))
        assert offset >= reading.next, "it has had that already"
        assert self._may_lack(channel, reading, range(reading.next, offset)), "a gap"

    def _begin_at(self, channel: str, reading: Reading, begin: int) -> None:
        """A replay begins here, or there was none."""
        assert begin >= reading.earliest, "it has had that already"
        for each in range(reading.earliest, begin):
            assert self._is_gone(channel, each) or self._may_lack(channel, reading, [each]), "a replay is not whole"
        reading.next = reading.earliest = begin

    def _stand_at(self, channel: str, offset: int) -> None:
        reading = self.readings[channel]
        reading.next = reading.earliest = offset + 1
        self.positions[channel] = (offset, self.positions[channel][1])

    def _may_lack(self, channel: str, reading: Reading, offsets: range | list[int]) -> bool:
        return all(each in reading.excused or (not reading.echo and self._is_own(channel, each)) for each in offsets)

    def _is_own(self, channel: str, offset: int) -> bool:
        return self.truth[channel][offset].publisher == self.peer.session.client.id

    def _is_gone(self, channel: str, offset: int) -> bool:
        """Whether the log holds it no longer."""
        known = self.server.broker.channels.get(channel.encode())
        return known is None or known.history.first > offset
