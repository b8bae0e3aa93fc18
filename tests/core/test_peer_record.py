"""What administrators are told of a peer."""

import json

import msgspec

from twistedsock.core.peer_record import lag_of, peer_record
from twistedsock.core.traffic import Traffic
from twistedsock.testing import FakePolicy, Hall


def test_a_record_tells_who_it_is_and_how_it_fares() -> None:
    hall = Hall(policy=FakePolicy({">": "rw"}, {"t": ("ann", {">": "rw"}, None)}))
    peer = hall.line_peer()
    peer.says("AUTH t", "SUB k", "SUB m")
    peer.outlet.told = Traffic(1234, 56, 7, 0.00123)
    peer.outlet.room = 0
    publisher = hall.line_peer()
    for _ in range(4):
        publisher.says("PUB k x")
        hall.turn()
    record = peer_record(peer.session, hall.now + 12.34)
    assert json.loads(msgspec.json.encode(record)) == {
        "id": "p1",
        "nick": "ann",
        "subject": "ann",
        "dialect": "line",
        "from": "127.0.0.1:50000",
        "to": "127.0.0.1:8081",
        "age": 12.3,
        "state": "open",
        "channels": 2,
        "behind": 1,
        "lag": 3,
        "unsent": 7,
        "sent": 1234,
        "received": 56,
        "rtt_ms": 1.23,
    }
    assert lag_of(peer.session) == 3


def test_what_is_not_known_is_null() -> None:
    record = peer_record(Hall().json_peer().session, 1000.0)
    assert (record.subject, record.dialect, record.lag) == ("", "json", 0)
    assert record.unsent is record.sent is record.received is record.rtt_ms is None
