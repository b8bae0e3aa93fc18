"""The behaviour that every backplane must have.

A backplane is run through it by a test class that inherits ``BackplaneContract`` (and ``FailingContract`` if it can
fail) and has a fixture ``stage``. A ``Stage`` is a backplane, its node, and a way to let time pass.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from twistedsock.errors import KEY_REUSED, Error, ErrorCode
from twistedsock.pubsub.backplane import SendsToNodes
from twistedsock.pubsub.future import on_result
from twistedsock.pubsub.subscription import Client
from twistedsock.pubsub.values import (
    JSON,
    Batch,
    ChannelState,
    DisconnectClient,
    Event,
    Member,
    NodeCommand,
    PayloadKind,
    Payloads,
    Position,
    PresenceChange,
    Publication,
    RepeatedOffset,
)


class Stage:
    """A backplane and its node. ``story`` lists deliveries and answers in their order."""

    def __init__(self, backplane: Any) -> None:
        self.backplane = backplane
        self.story: list[tuple[Any, ...]] = []
        self.breaks: list[str] = []
        """Deliveries that did not follow the one before, or had another epoch."""
        self.commands: list[NodeCommand] = []
        self._positions: dict[bytes, Position] = {}
        self._here: dict[bytes, dict[bytes, Member]] = {}
        backplane.start(self)

    def step(self) -> bool:
        """Let the backplane do a bit of what it was asked; whether there is more."""
        return False

    def settle(self) -> None:
        """Let it do all."""
        while self.step():
            pass

    def fail_next(self) -> None:
        """Let the next question fail."""
        raise NotImplementedError

    # Calls of the backplane, by the node.

    def publish(self, channel: bytes, *payloads: bytes, by: bytes = b"p1", settle: bool = True) -> None:
        publication = Publication(channel, Payloads(payloads, sum(map(len, payloads))))
        answer = self.backplane.publish(Client(by), publication)
        on_result(answer, lambda outcome: self.story.append(("answered", channel, outcome)))
        if settle:
            self.settle()

    def open(self, channel: bytes) -> Position | Error:
        """The position of the channel."""
        answer = self._ask_to_open(channel)
        return answer if isinstance(answer, Error) else answer.position

    def state(self, channel: bytes) -> ChannelState:
        """Open the channel."""
        answer = self._ask_to_open(channel)
        assert isinstance(answer, ChannelState)
        return answer

    def _ask_to_open(self, channel: bytes) -> ChannelState | Error:
        answers: list[ChannelState | Error] = []
        on_result(self.backplane.open(channel), answers.append)
        self.settle()
        (answer,) = answers
        if isinstance(answer, ChannelState):
            self._positions[channel] = answer.position
        return answer

    def close(self, channel: bytes) -> None:
        self._positions.pop(channel, None)  # it may be delivered or not
        self.backplane.close(channel)
        self.settle()

    def members(self, channel: bytes) -> list[Member]:
        answers: list[list[Member]] = []
        on_result(self.backplane.members(channel), answers.append)
        self.settle()
        assert len(answers) == 1
        return sorted(answers[0], key=lambda member: member.id)

    def join(self, channel: bytes, member: Member) -> None:
        self._here.setdefault(channel, {})[member.id] = member
        self.backplane.join(channel, member)
        self.settle()

    def rename(self, channel: bytes, member: Member) -> None:
        self._here[channel][member.id] = member
        self.backplane.rename(channel, member)
        self.settle()

    def leave(self, channel: bytes, member: Member) -> None:
        del self._here[channel][member.id]
        self.backplane.leave(channel, member)
        self.settle()

    # Calls of the node, by the backplane.

    def deliver(self, name: bytes, epoch: bytes, batch: Batch) -> None:
        assert len(batch) == len(batch.payloads) > 0
        before = self._positions.get(name)
        if before is not None and (epoch, batch.first) != (before.epoch, before.offset + 1):
            self.breaks.append(f"{name!r}: {epoch!r} {batch.first} after {before}")
        self._positions[name] = Position(epoch, batch.end - 1)
        self.story += [("delivered", name, epoch, event) for event in batch.events()]

    def reset(self, name: bytes, state: ChannelState) -> None:
        self._positions[name] = state.position
        self.story.append(("reset", name, state))

    def run_command(self, command: NodeCommand) -> None:
        self.commands.append(command)

    def presence_changed(self, name: bytes, change: PresenceChange) -> None:
        self.story.append(("changed", name, change))

    def members_changed(self, name: bytes, change: PresenceChange, members: int) -> None:
        self.story.append(("counted", name, change, members))

    def local_members(self, name: bytes) -> list[Member]:
        return list(self._here.get(name, {}).values())

    # Results.

    def events(self, channel: bytes) -> list[Event]:
        return [entry[3] for entry in self.story if entry[:2] == ("delivered", channel)]

    def offsets(self, channel: bytes) -> list[int]:
        return [event.offset for event in self.events(channel)]

    def epochs(self, channel: bytes) -> set[bytes]:
        return {entry[2] for entry in self.story if entry[:2] == ("delivered", channel)}

    def answers(self, channel: bytes) -> list[int | Error]:
        return [entry[2] for entry in self.story if entry[:2] == ("answered", channel)]

    def changes(self, channel: bytes) -> list[PresenceChange]:
        return [entry[2] for entry in self.story if entry[:2] == ("changed", channel)]


ANN, BOB = Member(b"p1", b"ann"), Member(b"p2", b"bob")


class BackplaneContract:
    @pytest.fixture(autouse=True)
    def _deliveries_follow_each_other(self, stage: Stage) -> Iterator[None]:
        """Whatever else a test looks at: each delivery follows the one before it, in the same epoch, and comes once."""
        yield
        assert stage.breaks == []

    def test_new_channel_is_at_offset_zero(self, stage: Stage) -> None:
        position = stage.open(b"a")
        assert isinstance(position, Position) and position.offset == 0 and position.epoch

    def test_offsets_are_consecutive(self, stage: Stage) -> None:
        stage.open(b"a")
        for payload in (b"x", b"y", b"z"):
            stage.publish(b"a", payload)
        assert stage.answers(b"a") == [1, 2, 3]
        assert [(event.offset, event.payload) for event in stage.events(b"a")] == [(1, b"x"), (2, b"y"), (3, b"z")]

    def test_batch_gets_consecutive_offsets(self, stage: Stage) -> None:
        stage.open(b"a")
        stage.publish(b"a", b"v")
        stage.publish(b"a", b"w", b"x", b"y")
        stage.publish(b"a", b"z")
        assert stage.answers(b"a") == [1, 2, 5]
        assert [event.payload for event in stage.events(b"a")] == [b"v", b"w", b"x", b"y", b"z"]
        assert stage.offsets(b"a") == [1, 2, 3, 4, 5]

    def test_channels_have_separate_offsets(self, stage: Stage) -> None:
        stage.open(b"a"), stage.open(b"b")
        for channel in (b"a", b"b", b"a"):
            stage.publish(channel, b"x")
        assert (stage.offsets(b"a"), stage.offsets(b"b")) == ([1, 2], [1])

    def test_events_have_times_that_never_decrease(self, stage: Stage) -> None:
        stage.open(b"a")
        for _ in range(3):
            stage.publish(b"a", b"x", b"y")
        times = [event.time for event in stage.events(b"a")]
        assert times[0] > 0 and times == sorted(times)

    def test_delivers_events_unchanged(self, stage: Stage) -> None:
        stage.open(b"a")
        peer = Client(b"p7")
        peer.nick = "änn".encode()
        stage.backplane.publish(peer, Publication(b"a", Payloads((b'{"a": [1, 2.50]}',), 16, JSON), b"alarm"))
        peer.nick = b"bob"
        stage.settle()
        events = [replace(event, time=0) for event in stage.events(b"a")]
        assert events == [Event(1, b"p7", "änn".encode(), b"alarm", b'{"a": [1, 2.50]}', JSON)]

    @pytest.mark.parametrize("payload", [b"", b" x ", b"\x00\r\n\xc2\x85", "🌡".encode(), b'"', b"x" * 100_000])
    def test_delivers_payloads_unchanged(self, stage: Stage, payload: bytes) -> None:
        stage.open(b"a")
        stage.publish(b"a", payload)
        assert stage.events(b"a")[0].payload == payload

    @pytest.mark.parametrize("kind", PayloadKind)
    def test_delivers_the_kind_of_payloads(self, stage: Stage, kind: PayloadKind) -> None:
        """Also when the channel is opened again."""
        stage.open(b"a")
        payload = b"\xff\xd8" if kind is PayloadKind.BYTES else b"[1]"
        stage.backplane.publish(Client(b"p7"), Publication(b"a", Payloads((payload,), len(payload), kind)))
        stage.settle()
        stage.close(b"a")
        kept = [event for batch in stage.state(b"a").tail for event in batch.events()]
        for event in (*stage.events(b"a"), *kept):
            assert (event.payload, event.kind) == (payload, kind)

    def test_open_returns_the_epoch_of_the_events(self, stage: Stage) -> None:
        position = stage.open(b"a")
        assert isinstance(position, Position)
        for _ in range(3):
            stage.publish(b"a", b"x")
        assert stage.epochs(b"a") == {position.epoch}
        assert stage.open(b"a") == Position(position.epoch, 3)

    def test_concurrent_publications_are_delivered_once_in_order(self, stage: Stage) -> None:
        stage.open(b"a")
        for number in range(20):
            stage.publish(b"a", b"%d" % number, by=b"p%d" % (number % 3), settle=False)
        stage.settle()
        assert stage.answers(b"a") == stage.offsets(b"a") == [*range(1, 21)]
        assert [event.payload for event in stage.events(b"a")] == [b"%d" % number for number in range(20)]

    def test_answer_follows_the_delivery_in_the_same_step(self, stage: Stage) -> None:
        """A session writes its replies before the events of a turn, so its OK comes before its own copy."""
        stage.open(b"a")
        for number in range(5):
            stage.publish(b"a", b"x", by=b"p%d" % number, settle=False)
        more = True
        while more:
            more = stage.step()
            assert {*stage.offsets(b"a")} <= {*stage.answers(b"a")}
        assert len(stage.answers(b"a")) == 5

    def test_a_channel_that_is_not_open_can_be_published_to(self, stage: Stage) -> None:
        stage.publish(b"a", b"x")
        stage.publish(b"a", b"y")
        assert stage.answers(b"a") == [1, 2]
        position = stage.open(b"a")
        assert isinstance(position, Position) and position.offset == 2
        assert stage.epochs(b"a") <= {position.epoch}
        stage.publish(b"a", b"z")
        assert stage.offsets(b"a")[-1:] == [3]

    def test_reopened_channel_continues_at_its_offset(self, stage: Stage) -> None:
        before = stage.open(b"a")
        stage.publish(b"a", b"x")
        stage.close(b"a")
        after = stage.open(b"a")
        assert isinstance(before, Position) and after == Position(before.epoch, 1)
        stage.publish(b"a", b"y")
        assert stage.answers(b"a") == [1, 2] and stage.offsets(b"a") == [1, 2]

    def test_closed_channel_continues_with_the_next_event(self, stage: Stage) -> None:
        before = stage.open(b"a")
        stage.close(b"a")
        stage.publish(b"a", b"x")
        assert isinstance(before, Position) and stage.open(b"a") == Position(before.epoch, 1)

    def test_presence_changes_are_delivered_in_order(self, stage: Stage) -> None:
        stage.open(b"a"), stage.open(b"b")
        stage.join(b"a", ANN)
        stage.join(b"a", BOB)
        stage.join(b"b", BOB)
        stage.leave(b"a", ANN)
        assert stage.changes(b"a") == [
            PresenceChange(ANN, True),
            PresenceChange(BOB, True),
            PresenceChange(ANN, False),
        ]
        assert stage.changes(b"b") == [PresenceChange(BOB, True)]

    def test_members_follow_joins_and_leaves(self, stage: Stage) -> None:
        stage.open(b"a")
        assert stage.members(b"a") == []
        stage.join(b"a", ANN)
        stage.join(b"a", BOB)
        assert stage.members(b"a") == [ANN, BOB]
        stage.leave(b"a", ANN)
        assert stage.members(b"a") == [BOB]
        assert stage.members(b"b") == []

    def test_new_nick_is_listed_and_is_no_join(self, stage: Stage) -> None:
        stage.open(b"a")
        stage.join(b"a", ANN)
        stage.rename(b"a", Member(b"p1", b"anna"))
        assert stage.members(b"a") == [Member(b"p1", b"anna")]
        assert stage.changes(b"a") == [PresenceChange(ANN, True)]


class SharedContract:
    """Of a backplane that connects several nodes."""

    def test_publications_with_the_same_key_are_one(self, stage: Stage) -> None:
        stage.open(b"a")
        stage.open(b"b")
        results: list[int | Error] = []
        for channel, payload, key in ((b"a", b"x", b"1"), (b"a", b"y", b"1"), (b"b", b"z", b"1"), (b"a", b"z", b"2")):
            publication = Publication(channel, Payloads((payload,), 1), key=key)
            on_result(stage.backplane.publish(Client(b"p1"), publication), results.append)
            stage.settle()
        assert results == [1, 1, 1, 2]
        assert [isinstance(result, RepeatedOffset) for result in results] == [False, True, False, False]
        assert [event.payload for event in stage.events(b"a")] == [b"x", b"z"]

    def test_key_of_another_request_is_an_error(self, stage: Stage) -> None:
        stage.open(b"a")
        results: list[int | Error] = []
        for fingerprint in (b"\0 first", b"\0 second", b"\0 first", b""):
            publication = Publication(b"a", Payloads((b"x",), 1), key=b"1", fingerprint=fingerprint)
            on_result(stage.backplane.publish(Client(b"p1"), publication), results.append)
            stage.settle()
        assert results == [1, KEY_REUSED, 1, KEY_REUSED] and stage.offsets(b"a") == [1]


class TwoNodesContract:
    """Of a backplane that connects several nodes. ``stages`` are two of them; ``pass_lease`` lets the lease of a node
    end that has failed, but not that of the other one."""

    def test_events_reach_both_nodes_in_the_same_order(self, stages: tuple[Stage, Stage]) -> None:
        one, other = stages
        assert one.open(b"a") == other.open(b"a")
        for number in range(10):
            (one, other)[number % 2].publish(b"a", b"%d" % number, settle=False)
        one.settle()
        payloads = [event.payload for event in one.events(b"a")]
        assert sorted(payloads) == [b"%d" % number for number in range(10)]
        assert [payload for payload in payloads if payload in b"02468"] == [b"0", b"2", b"4", b"6", b"8"]
        assert one.events(b"a") == other.events(b"a") and one.breaks == other.breaks == []
        assert one.epochs(b"a") == other.epochs(b"a")

    def test_a_node_that_opens_a_channel_later_gets_its_newest_events(self, stages: tuple[Stage, Stage]) -> None:
        one, other = stages
        position = one.open(b"a")
        assert isinstance(position, Position)
        for payload in (b"v", b"w", b"x"):
            one.publish(b"a", payload)
        state = other.state(b"a")
        assert state.position == Position(position.epoch, 3)
        assert [event for batch in state.tail for event in batch.events()] == one.events(b"a")[3 - len(state.tail) :]

    def test_joins_and_leaves_are_reported_to_both_nodes(self, stages: tuple[Stage, Stage]) -> None:
        one, other = stages
        one.open(b"a"), other.open(b"a")
        one.join(b"a", ANN)
        other.join(b"a", BOB)
        assert one.members(b"a") == other.members(b"a") == [ANN, BOB]
        one.rename(b"a", Member(b"p1", b"anna"))
        assert other.members(b"a") == [Member(b"p1", b"anna"), BOB]
        one.leave(b"a", Member(b"p1", b"anna"))
        assert other.changes(b"a")[:2] == [PresenceChange(ANN, True), PresenceChange(BOB, True)]
        assert [change.joined for change in one.changes(b"a")] == [True, True, False]

    def test_members_of_a_node_that_has_failed_leave(
        self, stages: tuple[Stage, Stage], pass_lease: Callable[[], None]
    ) -> None:
        one, other = stages
        one.open(b"a"), other.open(b"a")
        one.join(b"a", ANN)
        other.join(b"a", BOB)
        pass_lease()
        assert other.members(b"a") == [BOB] and other.changes(b"a")[-1] == PresenceChange(ANN, False)

    def test_commands_reach_the_other_node(self, stages: tuple[Stage, Stage]) -> None:
        one, other = stages
        command = DisconnectClient(b"n2-abc", b"bye", b"")
        one.backplane.send(command)
        one.settle()
        assert (one.commands, other.commands) == ([], [command])

    def test_keys_are_shared(self, stages: tuple[Stage, Stage]) -> None:
        results: list[int | Error] = []
        for stage in stages:
            publication = Publication(b"a", Payloads((b"x",), 1), key=b"1")
            on_result(stage.backplane.publish(Client(b"p1"), publication), results.append)
            stage.settle()
        assert results == [1, 1]


class Mailbox:
    """Receives the messages to one node. ``unreached`` are nodes that could not be reached."""

    def __init__(self, stage: Stage) -> None:
        self.messages: list[tuple[bytes, bytes]] = []
        self.unreached: list[bytes] = []
        stage.backplane.receiver = self

    def received(self, node: bytes, content: bytes) -> None:
        self.messages.append((node, content))

    def unreachable(self, node: bytes) -> None:
        self.unreached.append(node)


class MessagesContract:
    """What ``SendsToNodes`` promises."""

    def test_messages_reach_only_their_node_in_order_and_unchanged(self, stages: tuple[Stage, Stage]) -> None:
        one, other = stages
        sent, reached = Mailbox(one), Mailbox(other)
        contents = [b"", b" a\n\x00", b"\xff" * 1_000_000, b"last"]
        assert isinstance(one.backplane, SendsToNodes)
        assert all(one.backplane.send_to(other.backplane.node_name, content) for content in contents)
        one.settle()
        assert reached.messages == [(one.backplane.node_name, content) for content in contents]
        assert (sent.messages, sent.unreached, reached.unreached) == ([], [], [])

    def test_messages_to_an_absent_node_are_reported(self, stages: tuple[Stage, Stage]) -> None:
        one, other = stages
        sent, others = Mailbox(one), Mailbox(other)
        one.backplane.send_to(b"zz", b"a")
        one.settle()
        assert sent.unreached == [b"zz"] and others.messages == []

    def test_messages_are_ignored_without_a_receiver(self, stages: tuple[Stage, Stage]) -> None:
        one, other = stages
        one.backplane.receiver = other.backplane.receiver = None
        for name in (other.backplane.node_name, b"zz"):
            one.backplane.send_to(name, b"a")
        one.settle()


class KeepingContract:
    """Of a backplane that keeps the history."""

    def read(self, stage: Stage, after: Position, limit: int = 1_000_000) -> list[Event]:
        answers: list[Any] = []
        on_result(stage.backplane.read(b"a", after, limit), answers.append)
        stage.settle()
        return [event for batch in answers[0] for event in batch.events()]

    def test_reads_the_events_after_a_position(self, stage: Stage) -> None:
        position = stage.open(b"a")
        assert isinstance(position, Position)
        for payloads in ((b"v",), (b"w", b"x", b"y"), (b"z",)):
            stage.publish(b"a", *payloads)
        for offset in range(6):
            assert self.read(stage, Position(position.epoch, offset)) == stage.events(b"a")[offset:]

    def test_reads_at_least_one_event_and_about_the_limit(self, stage: Stage) -> None:
        position = stage.open(b"a")
        assert isinstance(position, Position)
        for _ in range(20):
            stage.publish(b"a", b"x" * 1_000)
        assert [event.offset for event in self.read(stage, position, 1)] == [1]
        assert 2 <= len(self.read(stage, position, 5_000)) <= 6

    def test_reads_nothing_of_another_epoch_or_after_the_newest_event(self, stage: Stage) -> None:
        position = stage.open(b"a")
        assert isinstance(position, Position)
        stage.publish(b"a", b"x")
        assert self.read(stage, Position(b"another", 0)) == self.read(stage, Position(position.epoch, 1)) == []

    @pytest.mark.parametrize("rows", [1, 3, 10])
    def test_finds_the_newest_event_before_a_time(self, stage: Stage, rows: int) -> None:
        position = stage.open(b"a")
        assert isinstance(position, Position)
        for _ in range(rows):
            stage.publish(b"a", b"x", b"y", settle=False)
            stage.publish(b"a", b"z", by=b"p2")
        events = stage.events(b"a")
        for time in {event.time + more for event in events for more in (0, 1)}:
            before = [event.offset for event in events if event.time < time]
            assert self.offset_before(stage, position.epoch, time) == max(before, default=0)
        assert self.offset_before(stage, b"another", 10**13) == 0
        stage.close(b"a")
        assert self.offset_before(stage, position.epoch, 10**13) == 3 * rows

    def offset_before(self, stage: Stage, epoch: bytes, time: int) -> int:
        answers: list[Any] = []
        on_result(stage.backplane.offset_before(b"a", epoch, time), answers.append)
        stage.settle()
        (answer,) = answers
        assert isinstance(answer, int)
        return answer

    def test_reads_closed_channels(self, stage: Stage) -> None:
        position = stage.open(b"a")
        assert isinstance(position, Position)
        stage.publish(b"a", b"x")
        stage.close(b"a")
        assert [event.payload for event in self.read(stage, position)] == [b"x"]


class FailingContract:
    def test_failed_publication_returns_an_error_and_creates_no_event(self, stage: Stage) -> None:
        stage.open(b"a")
        stage.fail_next()
        stage.publish(b"a", b"x")
        (answer,) = stage.answers(b"a")
        assert isinstance(answer, Error) and answer.code is ErrorCode.UNAVAILABLE
        assert stage.events(b"a") == []

    def test_failure_does_not_affect_later_publications(self, stage: Stage) -> None:
        stage.open(b"a")
        stage.publish(b"a", b"w", settle=False)
        stage.settle()
        stage.fail_next()
        stage.publish(b"a", b"x", settle=False)
        stage.publish(b"a", b"y", settle=False)
        stage.publish(b"a", b"z", settle=False)
        stage.settle()
        assert [event.payload for event in stage.events(b"a")] == [b"w", b"y", b"z"]
        assert stage.offsets(b"a") == [1, 2, 3]
        assert [answer for answer in stage.answers(b"a") if not isinstance(answer, Error)] == [1, 2, 3]

    def test_failed_open_can_be_repeated(self, stage: Stage) -> None:
        stage.fail_next()
        answer = stage.open(b"a")
        assert isinstance(answer, Error) and answer.code is ErrorCode.UNAVAILABLE
        assert isinstance(stage.open(b"a"), Position)
