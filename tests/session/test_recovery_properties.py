"""Whatever the interleaving of publish, read, stall, resume, disconnect, reconnect, subscribe again and ageing: each
client receives every offset once and in order, or a LOST with exactly the missing offsets."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.session.recovering import Client, Truth
from twistedsock.pubsub.values import Batch
from twistedsock.testing import FakeServer

clients = st.integers(0, 2)
channels = st.sampled_from("aab")
rooms = st.sampled_from([0, 1, 10, 40, 200, 50_000])
echoes = st.booleans()


class Bridge(RuleBasedStateMachine):
    """Three clients on two channels, whose logs are tiny."""

    late = False

    def __init__(self) -> None:
        super().__init__()
        self.server = FakeServer(self.late, history_events=4, history_age=10.0, history_total_bytes=150_000)
        self.truth: Truth = {}
        self.epochs: dict[str, bytes] = {}
        self.deliver, self.server.broker.deliver = self.server.broker.deliver, self.witness  # type: ignore[method-assign]
        self.published = 0
        self.clients = [Client(self.server, self.truth) for _ in range(3)]

    def witness(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        channel = name.decode()
        truth = self.truth.setdefault(channel, {})
        for event in batch.events():
            assert event.offset == len(truth) + 1
            truth[event.offset] = event
        assert self.epochs.setdefault(channel, epoch) == epoch
        self.deliver(name, epoch, batch)

    @rule(
        client=clients, channel=channels, count=st.sampled_from([1, 1, 2, 6]), size=st.sampled_from([0, 0, 0, 30_000])
    )
    def publish(self, client: int, channel: str, count: int, size: int) -> None:
        numbers = range(self.published, self.published + count)
        self.published += count
        self.clients[client].publish(channel, [str(number).ljust(size, "x") for number in numbers])

    @precondition(lambda self: self.late)
    @rule(client=clients)
    def publish_and_be_answered_backwards(self, client: int) -> None:
        """Then the second event is there before the answer to the first."""
        self.publish(client, "b", 1, 0)
        self.publish(client, "a", 1, 0)
        self.answer(most=1, backwards=True, failing=0, turn=True)

    @rule(client=clients, channel=channels, echo=echoes)
    def subscribe_live(self, client: int, channel: str, echo: bool) -> None:
        self.clients[client].subscribe(channel, echo=echo)

    @rule(client=clients, channel=channels, echo=echoes, last=st.integers(0, 6))
    def subscribe_to_the_last(self, client: int, channel: str, echo: bool, last: int) -> None:
        self.clients[client].subscribe(channel, last=last, echo=echo)

    @rule(client=clients, channel=channels, echo=echoes)
    def recover(self, client: int, channel: str, echo: bool) -> None:
        self.clients[client].recover(channel, echo)

    @rule(
        client=clients,
        channel=channels,
        echo=echoes,
        since=st.integers(0, 12),
        last=st.none() | st.integers(0, 6),
        known=st.booleans(),
    )
    def subscribe_since(self, client: int, channel: str, echo: bool, since: int, last: int | None, known: bool) -> None:
        """From any offset, also an unknown one, and of this or another epoch."""
        epoch = self.epochs.get(channel, b"e99").decode() if known else "e99"
        self.clients[client].subscribe(channel, since, epoch, last, echo)

    @rule(client=clients, channel=channels)
    def unsubscribe(self, client: int, channel: str) -> None:
        self.clients[client].unsubscribe(channel)

    @rule(client=clients, room=rooms)
    def stall(self, client: int, room: int) -> None:
        self.clients[client].peer.outlet.room = room

    @rule(client=clients, room=rooms)
    def read_a_bit(self, client: int, room: int) -> None:
        self.clients[client].peer.outlet.drain(room)

    @rule(client=clients)
    def resume(self, client: int) -> None:
        self.clients[client].peer.outlet.drain()

    @rule()
    def turn(self) -> None:
        self.server.turn()

    @rule(client=clients, echo=echoes)
    def reconnect(self, client: int, echo: bool) -> None:
        again = self.clients[client]
        reading = list(again.readings)
        again.peer.disconnect()
        again.connect()
        for channel in reading:
            again.recover(channel, echo)

    @rule(seconds=st.sampled_from([1.0, 5.0, 11.0]))
    def age(self, seconds: float) -> None:
        self.server.now += seconds
        self.server.broker.expire_histories()

    @precondition(lambda self: self.late)
    @rule(
        most=st.sampled_from([1, 1, 2, 5]),
        backwards=st.booleans(),
        failing=st.sampled_from([0, 0, 0, 1, 2]),
        turn=st.booleans(),
    )
    def answer(self, most: int, backwards: bool, failing: int, turn: bool) -> None:
        self.server.backplane.failing = failing
        self.server.backplane.release(most, backwards)
        self.server.backplane.failing = 0
        if turn:
            self.server.turn()

    @invariant()
    def nobody_hears_anything_wrong(self) -> None:
        for client in self.clients:
            client.look()

    def teardown(self) -> None:
        """After the last turn, every client has received every event."""
        for _ in range(60):
            if self.late:
                self.server.backplane.release()
            for client in self.clients:
                client.peer.outlet.drain()
                client.look()
            self.server.turn()
        payloads = {event.payload.decode() for events in self.truth.values() for event in events.values()}
        for client in self.clients:
            client.look()
            client.check_complete()
            assert not client.refused & payloads
        broker = self.server.broker
        assert broker.histories.size == sum(channel.history.size for channel in broker.channels.values()) <= 150_000


class LateBridge(Bridge):
    """The same over a backplane that answers late, in bursts, in any order, and sometimes not."""

    late = True


def case(machine: type[Bridge]) -> Any:
    test = machine.TestCase
    test.settings = settings(max_examples=80, stateful_step_count=60, deadline=None, derandomize=True, database=None)
    return test


TestBridge = case(Bridge)
TestLateBridge = case(LateBridge)
