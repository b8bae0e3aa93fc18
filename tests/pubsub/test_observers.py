"""Who looks on at the channels hears of each event, and of who comes and goes on this node."""

from twistedsock.pubsub.values import Batch, Member
from twistedsock.testing import FakeServer


class Onlooker:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def published(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        self.seen.append(f"{channel.decode()} {epoch.decode()} {batch.first}-{batch.end - 1}")

    def joined(self, channel: bytes, member: Member, readers: int) -> None:
        self.seen.append(f"{channel.decode()} +{member.id.decode()} {readers}")

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        self.seen.append(f"{channel.decode()} -{member.id.decode()} {readers}")


def test_an_onlooker_sees_what_happens_in_its_order() -> None:
    server, onlooker = FakeServer(), Onlooker()
    server.broker.observers.append(onlooker)
    first, second = server.line_client(), server.json_client()
    first.send("SUB a")
    second.send({"type": "subscribe", "channel": "a"})
    first.send("PUB a x", "PUB a y")
    first.send("UNSUB a")
    second.session.connection_lost()
    server.turn()
    assert onlooker.seen == ["a +p1 1", "a +p2 2", "a e1 1-2", "a -p1 1", "a -p2 0"]


def test_who_looks_at_readers_only_is_not_told_of_events() -> None:
    server, onlooker = FakeServer(), Onlooker()
    server.broker.presence_observers.append(onlooker)
    peer = server.line_client()
    peer.send("SUB a", "PUB a x", "UNSUB a")
    assert onlooker.seen == ["a +p1 1", "a -p1 0"]
