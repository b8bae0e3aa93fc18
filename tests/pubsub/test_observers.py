"""Who looks on at the channels hears of each event, and of who comes and goes on this node."""

from twistedsock.pubsub.values import Batch, Member
from twistedsock.testing import FakeServer


class Onlooker:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def published(self, channel: bytes, epoch: bytes, batch: Batch) -> None:
        self.seen.append(f"{channel.decode()} {epoch.decode()} {batch.first}-{batch.end - 1}")

    def entered(self, channel: bytes, member: Member, readers: int) -> None:
        self.seen.append(f"{channel.decode()} +{member.id.decode()} {readers}")

    def left(self, channel: bytes, member: Member, readers: int) -> None:
        self.seen.append(f"{channel.decode()} -{member.id.decode()} {readers}")


def test_an_onlooker_sees_what_happens_in_its_order() -> None:
    hall, onlooker = FakeServer(), Onlooker()
    hall.broker.observers.append(onlooker)
    first, second = hall.line_peer(), hall.json_peer()
    first.says("SUB a")
    second.says({"type": "subscribe", "channel": "a"})
    first.says("PUB a x", "PUB a y")
    first.says("UNSUB a")
    second.session.lost()
    hall.turn()
    assert onlooker.seen == ["a +p1 1", "a +p2 2", "a e1 1-2", "a -p1 1", "a -p2 0"]


def test_who_looks_at_readers_only_is_not_told_of_events() -> None:
    hall, onlooker = FakeServer(), Onlooker()
    hall.broker.reader_observers.append(onlooker)
    peer = hall.line_peer()
    peer.says("SUB a", "PUB a x", "UNSUB a")
    assert onlooker.seen == ["a +p1 1", "a -p1 0"]
