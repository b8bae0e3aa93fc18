"""The fakes do what they stand for: tests that lean on them, ours and our users', must not lean on air."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.protocol import Protocol

from tests.fakes import FakeReactor, FakeSocket
from twistedsock.errors import CloseReason
from twistedsock.pubsub.subscription import SOCKET_FULL
from twistedsock.server.transport import DirectTCPTransport
from twistedsock.testing import FakeOutlet, FakeServer, Turns, read_frames

steps = st.one_of(
    st.tuples(st.just("offer"), st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("write"), st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("drain"), st.none() | st.integers(0, 20)),
)


@given(st.integers(0, 20), st.lists(steps, max_size=20))
def test_the_fake_outlet_is_like_the_real_one(room, steps):
    """Whatever is offered and written, and however a peer reads: the same bytes leave, and the same is blocked."""
    socket, reactor, fake = FakeSocket(), FakeReactor(), FakeOutlet()
    real = DirectTCPTransport(socket, Protocol(), ("127.0.0.1", 1), None, 1, reactor)
    drained = {"real": 0, "fake": 0}
    real.drain_listener = SimpleNamespace(resume_writing=lambda: drained.update(real=drained["real"] + 1))
    fake.drain_listener = SimpleNamespace(resume_writing=lambda: drained.update(fake=drained["fake"] + 1))
    socket.room = fake.room = room
    for step, what in steps:
        if step == "offer":
            assert real.try_write(what) == fake.try_write(what)
        elif step == "write":
            real.write(what)
            fake.write(what)
        else:
            socket.room = what
            if real.blocked & SOCKET_FULL:
                real.doWrite()
            fake.drain(what)
            reactor.turn()
        assert (fake.sent, fake.blocked, drained["fake"]) == (socket.sent, real.blocked, drained["real"])


def test_turns_run_until_nothing_is_left():
    turns, done = Turns(), []
    turns.schedule(lambda: (done.append(1), turns.schedule(lambda: done.append(2))))
    assert (len(turns), done) == (1, [])
    turns.run()
    assert (len(turns), done) == (0, [1, 2])


def test_turns_that_never_end_are_an_error_of_the_test():
    turns = Turns()

    def again():
        turns.schedule(again)

    again()
    with pytest.raises(AssertionError):
        turns.run(100)


def test_a_hall_is_a_whole_bridge(server):
    ann, bob, cid = server.line_client(), server.json_client(), server.message_client()
    assert [peer.id for peer in (ann, bob, cid)] == ["p1", "p2", "p3"]
    assert ann.received() == ["WELCOME sockbridge/1 id=p1 from=127.0.0.1:50000 to=127.0.0.1:8081"]
    assert bob.received()[0]["type"] == "welcome"
    assert cid.received()[0].startswith("WELCOME ")
    ann.send("SUB kitchen")
    bob.send({"type": "subscribe", "id": 1, "channel": "kitchen"})
    cid.send("SUB kitchen", "PUB kitchen 21.5")
    assert ann.received() == ["OK kitchen offset=0 epoch=e1"]
    server.turn()
    assert ann.received() == ["MSG kitchen 1 p3 21.5"]
    assert ann.received() == []
    assert [message["type"] for message in bob.received()] == ["ok", "event"]
    assert cid.received() == ["OK kitchen offset=0 epoch=e1", "OK 1", "MSG kitchen 1 p3 21.5"]


@pytest.fixture
def server():
    return FakeServer()


def test_time_passes_when_the_test_wants_it():
    server = FakeServer(history_age=60.0)
    server.line_client().send("PUB kitchen 21.5")
    server.turn()
    server.now += 59
    server.broker.expire_histories()
    assert b"kitchen" in server.broker.channels
    server.now += 2
    server.broker.expire_histories()
    assert server.broker.channels == {}


def test_a_peer_can_stall_read_on_and_leave(server):
    peer = server.line_client()
    peer.received()
    peer.outlet.room = 0
    peer.send("PING 1", "PING 2")
    assert peer.paused
    assert peer.received() == []
    peer.outlet.drain()
    assert not peer.paused
    assert peer.received() == ["PONG 1", "PONG 2"]
    peer.disconnect()
    assert len(server.context.sessions) == 0


def test_half_a_line_is_an_error_of_the_test(server):
    peer = server.line_client()
    peer.received()
    peer.outlet.room = 3
    peer.send("PING")
    with pytest.raises(AssertionError):
        peer.received()


def test_bytes_may_come_in_at_any_cut(server):
    peer = server.line_client()
    peer.received()
    peer.send_bytes(b"PI")
    peer.send_bytes(b"NG\r\n")
    assert peer.received() == ["PONG"]


def test_how_a_peer_was_sent_away_is_kept(server):
    peer = server.line_client()
    assert peer.close_reason is None
    peer.send("QUIT")
    assert peer.close_reason is CloseReason.NORMAL


def test_faults_are_counted(server, monkeypatch):
    peer = server.line_client()
    monkeypatch.setattr(server.broker, "members", None)
    peer.send("WHO kitchen")
    assert peer.exceptions == 1


@pytest.mark.parametrize("size", [0, 125, 126, 65_535, 65_536])
def test_frames_of_each_size_are_read(size):
    text = "x" * size
    width = 0 if size < 126 else 2 if size < 65_536 else 8
    head = bytes([0x81, {0: size, 2: 126, 8: 127}[width]]) + (size.to_bytes(width, "big") if width else b"")
    assert read_frames(head + text.encode() + head + text.encode()) == [text, text]


def test_fragments_are_put_together_and_half_a_message_is_an_error_of_the_test():
    parts = [b"\x01\x02on", b"\x00\x01e", b"\x80\x02ly"]
    assert read_frames(b"".join(parts)) == ["onely"]
    for cut in (parts[:2], [parts[0], b"\x80\x02l"]):
        with pytest.raises(AssertionError):
            read_frames(b"".join(cut))


@pytest.fixture
def late():
    """A hall whose backplane is late, and a peer that has published three times."""
    server = FakeServer(late=True)
    peer = server.line_client()
    peer.received()
    peer.send("PUB a 1", "PUB b 2", "PUB c 3")
    assert (len(server.backplane), peer.received()) == (3, [])
    return server, peer


def test_a_late_backplane_answers_when_it_is_released(late):
    server, peer = late
    server.backplane.release(1)
    assert (len(server.backplane), peer.received()) == (2, ["OK 1"])
    server.backplane.release()
    assert (len(server.backplane), peer.received()) == (0, ["OK 1", "OK 1"])


def test_a_late_backplane_can_answer_backwards(late):
    server, peer = late
    server.backplane.release(2, backwards=True)
    server.turn()
    assert set(server.broker.channels) == {b"b", b"c"}
    assert peer.received() == []
    server.backplane.release()
    assert peer.received() == ["OK 1", "OK 1", "OK 1"]


def test_a_late_backplane_fails_as_often_as_it_is_told(late):
    server, peer = late
    server.backplane.failing = 2
    server.backplane.release()
    assert [line.split(" ")[:2] for line in peer.received()] == [
        ["ERR", "unavailable"],
        ["ERR", "unavailable"],
        ["OK", "1"],
    ]
    server.turn()
    assert set(server.broker.channels) == {b"c"}


def test_a_late_publish_keeps_the_name_under_which_it_was_said():
    server = FakeServer(late=True)
    listener, peer = server.line_client(), server.line_client()
    listener.send("SUB kitchen")
    server.backplane.release()
    listener.received()
    peer.send("NICK ann", "PUB kitchen 21.5")
    peer.session.client.nick = b"bob"
    server.backplane.release()
    server.turn()
    assert listener.received() == ["MSG kitchen 1 ann 21.5"]
