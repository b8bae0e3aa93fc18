"""The owners of channels, and the limits of channels and subscriptions."""

import random

import pytest

from twistedsock.limits.principal import ELSEWHERE, LOCAL
from twistedsock.limits.shares import guaranteed_share, with_reserve
from twistedsock.pubsub import broker, channel_shares
from twistedsock.pubsub.values import Batch, Payloads, Position
from twistedsock.testing import FakeServer, LineClient

A, B, C = b"@192.0.2.1", b"@192.0.2.2", b"=carol"


def comes(server: FakeServer, principal: bytes) -> LineClient:
    """A client that counts as this principal."""
    peer = server.line_client()
    peer.session.client.principal = principal
    peer.received()
    return peer


def asks(peer: LineClient, command: str) -> str:
    """The first word of the answer."""
    peer.send(command)
    if hasattr(peer.server.backplane, "release"):
        peer.server.backplane.release()
    peer.server.turn()
    return peer.received()[-1].split()[0]


def owners(server: FakeServer) -> dict[str, bytes]:
    return {name.decode(): channel.owner for name, channel in server.broker.channels.items()}


@pytest.fixture(params=[False, True], ids=["memory", "late"])
def late(request: pytest.FixtureRequest) -> bool:
    late: bool = request.param
    return late


def test_one_client_alone_can_use_all_channels(late: bool) -> None:
    server = FakeServer(late, max_channels=100)
    alone = comes(server, A)
    assert [asks(alone, f"PUB c{number} x") for number in range(100)] == ["OK"] * 100
    assert asks(alone, "PUB more x") == "ERR" and asks(alone, "SUB more") == "ERR"
    assert asks(alone, "PUB c7 x") == "OK"


def test_largest_owner_loses_unused_channels_first(late: bool) -> None:
    server = FakeServer(late, max_channels=100)
    greedy, modest = comes(server, A), comes(server, B)
    for number in range(100):
        asks(greedy, f"PUB c{number} x")
    assert [asks(modest, f"PUB m{number} x") for number in range(50)] == ["OK"] * 50
    assert "c49" not in owners(server) and "c50" in owners(server)
    assert asks(greedy, "PUB c0 x") == "ERR" and asks(modest, "PUB m50 x") == "ERR"
    assert asks(comes(server, C), "PUB third x") == "OK"


def test_drops_no_history_while_there_is_room() -> None:
    server = FakeServer(max_channels=10)
    greedy, modest = comes(server, A), comes(server, B)
    for number in range(7):
        asks(greedy, f"PUB c{number} x")
    assert [asks(modest, f"PUB m{number} x") for number in range(3)] == ["OK"] * 3
    assert len(owners(server)) == 10


def test_owner_of_one_channel_more_keeps_its_history() -> None:
    """Otherwise the two would take a channel from each other again and again."""
    server = FakeServer(max_channels=41)
    one, other = comes(server, A), comes(server, B)
    for number in range(41):
        asks(other if number % 2 else one, f"PUB c{number} x")
    assert asks(other, "PUB more x") == "ERR" and list(owners(server).values()).count(A) == 21


def test_keeps_channels_with_subscriptions_or_waiters() -> None:
    server = FakeServer(max_channels=10)
    greedy, modest = comes(server, A), comes(server, B)
    for number in range(10):
        asks(greedy, f"PUB c{number} x")
    for number in range(0, 9):
        asks(greedy, f"SUB c{number}")
    server.broker.channels[b"c8"].notify_once(lambda: None)
    asks(greedy, "UNSUB c8")
    assert asks(modest, "PUB m0 x") == "OK" and "c9" not in owners(server)
    assert asks(modest, "PUB m1 x") == "OK", "of the reserve"
    assert asks(modest, "PUB m2 x") == "ERR"
    assert [name for name in owners(server) if name.startswith("c")] == [f"c{number}" for number in range(9)]


def test_keeps_history_of_owners_below_their_share() -> None:
    server = FakeServer(max_channels=90)
    largest, modest, third = comes(server, A), comes(server, B), comes(server, C)
    for number in range(70):
        asks(largest, f"SUB c{number}")
    for number in range(20):
        asks(modest, f"PUB m{number} x")
    assert [asks(third, f"PUB t{number} x") for number in range(12)] == ["OK"] * 8 + ["ERR"] * 4
    assert sum(owner == B for owner in owners(server).values()) == 20


def test_search_skips_owners_whose_channels_have_subscriptions() -> None:
    server = FakeServer(max_channels=60)
    reading, writing, third = comes(server, A), comes(server, B), comes(server, C)
    for number in range(31):
        asks(reading, f"SUB c{number}")
    for number in range(29):
        asks(writing, f"PUB w{number} x")
    assert asks(third, "PUB t x") == "OK" and "w0" not in owners(server)


@pytest.mark.parametrize("seed", range(5))
def test_owner_below_its_share_can_open_channels(seed: int) -> None:
    """Greedy clients make as many channels as they can and read some; each modest one wants eight."""
    chance, server = random.Random(seed), FakeServer(max_channels=200)
    greedy = [comes(server, b"=%d" % number) for number in range(chance.randrange(1, 6))]
    modest = [comes(server, b"@%d" % number) for number in range(14)]
    kept: list[bytes] = []
    for number in range(1_500):
        asks(chance.choice(greedy), f"SUB g{number}" if chance.random() < 0.1 else f"PUB g{number} x")
        if chance.random() < 0.1 and len(kept) < 8 * len(modest):
            name = f"m{number}"
            assert asks(modest[len(kept) % len(modest)], f"PUB {name} x") == "OK"
            kept.append(name.encode())
        assert all(len(server.broker.channels[name].history) == 1 for name in kept)
    assert len(kept) == 8 * len(modest) and 200 <= len(server.broker.channels) <= with_reserve(200)


def test_opening_channels_count_for_their_requester() -> None:
    server = FakeServer(late=True, max_channels=3)
    peers = [comes(server, A) for _ in range(5)]
    for number, peer in enumerate(peers):
        peer.send(f"PUB c{number} x" if number % 2 else f"SUB c{number}")
    assert [peer.received()[:1] for peer in peers[3:]] == [
        ["ERR limit too many channels on this server: try again later"]
    ] * 2
    server.backplane.failing = 1
    server.backplane.release()
    server.turn()
    assert owners(server) == {"c1": A, "c2": A}
    assert asks(peers[0], "PUB c3 x") == "OK" and asks(peers[0], "PUB c4 x") == "ERR"


def test_channel_opened_by_several_clients_counts_once() -> None:
    server = FakeServer(late=True, max_channels=2)
    one, other = comes(server, A), comes(server, B)
    one.send("PUB a x", "PUB a y")
    other.send("PUB a z", "SUB a")
    server.backplane.release()
    server.backplane.release()
    server.turn()
    assert owners(server) == {"a": A}
    assert asks(other, "PUB b x") == "OK" and asks(other, "PUB c x") == "ERR"


def test_failed_open_counts_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> int:
        raise ZeroDivisionError

    server = FakeServer(max_channels=1)
    with monkeypatch.context() as patch:
        patch.setattr(server.backplane, "publish", fails)
        assert asks(comes(server, A), "PUB a x") == "ERR"
    assert asks(comes(server, A), "PUB b x") == "OK"


def test_reserved_channels_have_their_own_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel_shares, "RESERVED_CHANNELS", 8)
    server = FakeServer(max_channels=8)
    one, other, third = comes(server, A), comes(server, B), comes(server, C)
    assert [asks(third, f"PUB {name} x") for name in "abcdefgh"] == ["OK"] * 8
    assert [asks(one, f"SUB $sys/{number}") for number in range(9)] == ["OK"] * 8 + ["ERR"]
    assert asks(other, "SUB $sys/other") == "OK" and asks(other, "SUB $sys/another") == "ERR"
    assert "a" in owners(server), "a channel of clients does not give way to one of the server"
    one.disconnect()
    assert [asks(other, f"SUB $sys/{number}") for number in range(8)] == ["OK"] * 7 + ["ERR"]


# Whose a channel is.


def test_channel_counts_for_its_main_publisher() -> None:
    server = FakeServer()
    opener, writer = comes(server, A), comes(server, B)
    asks(opener, "SUB a")
    assert owners(server) == {"a": A}
    asks(writer, "PUB a x")
    assert owners(server) == {"a": B}, "it had no history"
    for _ in range(9):
        asks(writer, "PUB a x")
    for _ in range(5):
        asks(opener, "PUB a x")
    assert owners(server) == {"a": B}
    for _ in range(5):
        asks(opener, "PUB a x")
    assert owners(server) == {"a": A}


@pytest.mark.parametrize("is_opener", [True, False])
def test_one_event_does_not_make_its_publisher_the_owner(is_opener: bool) -> None:
    server = FakeServer(history_total_bytes=100_000)
    tenant, attacker = comes(server, A), comes(server, B)
    publishers = [tenant] * 50
    publishers.insert(0 if is_opener else 50, attacker)
    for publisher in publishers:
        asks(publisher, "PUB tenant x")
    for _ in range(20):
        asks(attacker, f"PUB flood {'z' * 10_000}")
    assert len(server.broker.channels[b"tenant"].history) == 51


def test_channel_without_history_counts_for_a_subscriber() -> None:
    server = FakeServer(history_age=10.0)
    writer, subscriber = comes(server, A), comes(server, B)
    asks(writer, "PUB a x")
    asks(subscriber, "SUB a")
    assert owners(server) == {"a": A}
    server.now += 11
    server.broker.expire_histories()
    assert owners(server) == {"a": B}


def test_channel_counts_for_another_subscriber_when_its_owner_leaves() -> None:
    server = FakeServer()
    opener, subscriber, other = comes(server, A), comes(server, B), comes(server, A)
    for peer in (opener, subscriber, other):
        asks(peer, "SUB a")
    asks(opener, "UNSUB a")
    assert owners(server) == {"a": A}
    asks(other, "UNSUB a")
    assert owners(server) == {"a": B}
    asks(subscriber, "UNSUB a")
    assert owners(server) == {}


def test_remote_channel_counts_for_its_local_subscribers() -> None:
    server = FakeServer()
    subscriber = comes(server, A)
    asks(subscriber, "SUB a")
    for name in (b"a", b"b"):
        server.broker.deliver(
            name, server.broker.channels[b"a"].epoch, Batch(1, 2, b"q", b"q", b"m", Payloads((b"x",), 1))
        )
    server.turn()
    assert owners(server) == {"a": A, "b": ELSEWHERE}


def test_owner_of_returns_the_owner() -> None:
    server = FakeServer()
    asks(comes(server, A), "PUB a x")
    assert server.broker.channels.owner_of(b"a") == A and server.broker.channels.owner_of(b"b") == ELSEWHERE


def test_channel_opened_by_the_server_counts_as_local() -> None:
    server = FakeServer()
    server.broker.channels.open(b"a")
    assert owners(server) == {"a": LOCAL} and server.broker.channels[b"a"].position == Position(b"e1", 0)


def test_all_shares_are_released(late: bool) -> None:
    server = FakeServer(late, max_channels=20, history_age=10.0)
    peers = [comes(server, principal) for principal in (A, B, C)]
    for number in range(60):
        for peer in peers:
            asks(peer, f"PUB c{number % 25} x")
            asks(peer, f"SUB c{(number + 3) % 25}")
    for peer in peers:
        peer.disconnect()
    server.now += 11
    server.broker.expire_histories()
    server.turn()
    assert owners(server) == {} and server.broker.subscription_shares.total == 0 and server.broker.histories.size == 0
    late_comer = comes(server, A)
    assert [asks(late_comer, f"PUB c{number} x") for number in range(21)] == ["OK"] * 20 + ["ERR"]


# Subscriptions and answers to WHO.


def test_guarantees_subscriptions_when_one_client_has_all() -> None:
    server = FakeServer(max_subscriptions=400)
    greedy, modest = comes(server, A), comes(server, B)
    assert [asks(greedy, f"SUB c{number}") for number in range(401)] == ["OK"] * 400 + ["ERR"]
    assert [asks(modest, f"SUB c{number}") for number in range(26)] == ["OK"] * 25 + ["ERR"]
    third, share = comes(server, C), guaranteed_share(400)
    assert [asks(third, f"SUB c{number}") for number in range(share + 1)] == ["OK"] * share + ["ERR"]
    assert asks(greedy, "UNSUB c0") == "OK" and asks(greedy, "SUB c0") == "ERR"


def test_a_subscription_counts_for_the_identity_that_it_was_made_with() -> None:
    server = FakeServer(max_subscriptions=8)
    peer = comes(server, A)
    for number in range(8):
        asks(peer, f"SUB c{number}")
    peer.session.client.principal = C
    assert asks(peer, "SUB more") == "OK"
    assert server.broker.subscription_shares.of(A) == 8 and server.broker.subscription_shares.of(C) == 1
    peer.disconnect()
    assert server.broker.subscription_shares.total == 0


def test_answers_who_while_one_client_reads_no_replies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(broker, "MAX_MEMBERS_HELD", 4_000)
    server, channel = FakeServer(), "a" * 200
    for _ in range(400):
        comes(server, LOCAL).send(f"SUB {channel}")
    for _ in range(10):
        slow = comes(server, A)
        slow.outlet.room = 0
        slow.send(f"WHO {channel}")
    assert server.broker.member_shares.total == 4_000
    assert asks(comes(server, A), f"WHO {channel}") == "ERR"
    small = comes(server, B)
    asks(small, "SUB b")
    assert asks(small, "WHO b") == "OK"
