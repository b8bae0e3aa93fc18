"""Streams that are disconnected at any point continue at the right position."""

from collections.abc import Sequence
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.event_streams import ServerSent, Stream
from twistedsock.codecs.sse import parse_event_id
from twistedsock.testing import FakeServer


class Client:
    """Like a browser, it keeps only the last event id of a stream that is disconnected. ``offsets`` has the newest
    offset that it has received in each channel."""

    def __init__(self, server: FakeServer, channels: Sequence[str], presence: bool) -> None:
        self.server = server
        self.channels = channels
        self.presence = presence
        self.id = ""
        self.offsets: dict[str, int] = {}
        self.connect()

    def connect(self) -> None:
        # Events after the last id are sent again.
        known = parse_event_id(self.id, len(self.channels)) if self.id else None
        self.offsets = {}
        if known is not None:
            self.offsets = {
                name: position.offset
                for name, position in zip(self.channels, known, strict=True)
                if position is not None
            }
        self.begun: set[str] = set()
        self.stream = Stream(self.server, self.channels, self.id, presence=self.presence)

    def cut(self, share: float) -> None:
        """The connection is lost, and only a part of the sent bytes has arrived."""
        sent, start = self.stream.outlet.sent, self.stream.read_position
        del sent[start + int(share * (len(sent) - start)) :]
        self.look()
        self.stream.session.connection_lost()
        self.connect()

    def look(self) -> None:
        for event in self.stream.received():
            getattr(self, f"_receive_{event.kind}")(event.message)
            if event.id != self.id:
                self.id = event.id
                self._check_id(event)

    def _check_id(self, event: ServerSent) -> None:
        known = parse_event_id(event.id, len(self.channels))
        assert known is not None
        known_offsets = {
            name: position.offset for name, position in zip(self.channels, known, strict=True) if position is not None
        }
        assert known_offsets == self.offsets, "the event id differs from the received events"

    def _receive_welcome(self, message: Any) -> None:
        assert not self.begun

    def _receive_ok(self, message: Any) -> None:
        channel = message["channel"]
        assert ("recovered" in message) is (channel in self.offsets)
        if channel not in self.offsets:
            self.offsets[channel] = message["offset"]
        self.begun.add(channel)

    def _receive_message(self, message: Any) -> None:
        channel = message["channel"]
        assert channel in self.begun
        assert message["offset"] == self.offsets[channel] + 1, "a gap, or a double"
        assert message["data"].rstrip("x") == f"{channel} {message['offset']}"
        self.offsets[channel] += 1

    def _receive_lost(self, message: Any) -> None:
        channel = message["channel"]
        assert message["first"] == self.offsets[channel] + 1 <= message["last"]
        assert message["last"] < self.server.broker.channels[channel.encode()].history.first
        self.offsets[channel] = message["last"]

    def _receive_join(self, message: Any) -> None:
        assert self.presence

    _receive_leave = _receive_notice = _receive_join


clients = st.integers(0, 3)
CHANNELS = (["a"], ["a", "b"], ["c", "b", "a"], ["b"])


class Streams(RuleBasedStateMachine):
    """Streams of one channel and of several, with a tiny history."""

    late = False

    def __init__(self) -> None:
        super().__init__()
        self.server = FakeServer(self.late, history_events=6, history_age=10.0, history_total_bytes=300_000)
        self.publisher = self.server.line_client()
        self.heads: dict[str, int] = {}
        self.clients = [Client(self.server, channels, presence=index == 2) for index, channels in enumerate(CHANNELS)]

    @rule(channel=st.sampled_from("aabc"), count=st.sampled_from([1, 1, 2, 9]), size=st.sampled_from([0, 0, 0, 30_000]))
    def publish(self, channel: str, count: int, size: int) -> None:
        head = self.heads.get(channel, 0)
        self.heads[channel] = head + count
        self.publisher.send(
            *(f"PUB {channel} {channel} {offset}".ljust(size, "x") for offset in range(head + 1, head + count + 1))
        )

    @rule(client=clients, room=st.sampled_from([0, 1, 100, 300, 1_000, 50_000]))
    def stall(self, client: int, room: int) -> None:
        self.clients[client].stream.outlet.room = room

    @rule(client=clients, room=st.sampled_from([1, 100, 300, 50_000]))
    def read_a_bit(self, client: int, room: int) -> None:
        self.clients[client].stream.outlet.drain(room)

    @rule(client=clients)
    def resume(self, client: int) -> None:
        self.clients[client].stream.outlet.drain()

    @rule()
    def turn(self) -> None:
        self.server.turn()

    @rule(client=clients, share=st.floats(0, 1))
    def cut(self, client: int, share: float) -> None:
        self.clients[client].cut(share)

    @rule(seconds=st.sampled_from([1.0, 11.0]))
    def age(self, seconds: float) -> None:
        self.server.now += seconds
        self.server.broker.expire_histories()

    @rule(client=clients)
    def sleep_until_the_log_is_empty(self, client: int) -> None:
        """Then nothing comes after the LOST, and the next id is that of another channel."""
        first, *_, last = [*CHANNELS[client], CHANNELS[client][-1]]
        self.stall(client, 0)
        for _ in range(2):
            self.publish(first, 1, 0)
            self.turn()
        self.age(11.0)
        self.resume(client)
        self.turn()
        self.publish(last, 1, 0)
        self.turn()

    @precondition(lambda self: self.late)
    @rule(count=st.sampled_from([1, 1, 3]))
    def answer(self, count: int) -> None:
        self.server.backplane.release(count)

    @rule(client=clients)
    def look(self, client: int) -> None:
        self.clients[client].look()

    @invariant()
    def encoding_groups_have_subscribers(self) -> None:
        for channel in self.server.broker.channels.values():
            readers = {subscription.subscriber.encoder for subscription in channel.subscriptions.values()}
            assert set(channel.encoding_groups) <= readers

    def teardown(self) -> None:
        """When all is delivered, each client has reached the end of its channels."""
        for _ in range(60):
            if self.late:
                self.server.backplane.release()
            for client in self.clients:
                client.stream.outlet.drain()
            self.server.turn()
        for client in self.clients:
            client.look()
            assert not client.stream.endings and not client.stream.faults
            assert client.offsets == {channel: self.heads.get(channel, 0) for channel in client.channels}


class LateStreams(Streams):
    """The same with a backplane that answers late."""

    late = True


def case(machine: type[Streams]) -> Any:
    test = machine.TestCase
    test.settings = settings(max_examples=80, stateful_step_count=50, deadline=None, derandomize=True, database=None)
    return test


TestStreams = case(Streams)
TestLateStreams = case(LateStreams)
