"""Sessions of Engine.IO: long polling, WebSocket, the move from one to the other, heartbeat and closing."""

import math

import pytest
from hypothesis import strategies as st

from tests.codecs.engineio_fakes import FakeClient, FakePoll, FakeSocket
from tests.fuzz.properties import holds
from twistedsock.codecs.engineio import HandshakeError, Packet, PacketType
from twistedsock.codecs.engineio_session import (
    CLOSE_TIMEOUT_SECONDS,
    PACKET_BYTES,
    CloseCause,
    EngineSettings,
)
from twistedsock.codecs.websocket import binary_frame, text_fragment, text_frame
from twistedsock.limits.settings import CHUNK_BYTES

OPENING = '0{"sid":"sid","upgrades":[%s],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}'


def message(text: str) -> Packet:
    return Packet(PacketType.MESSAGE, text.encode())


@pytest.fixture
def polling() -> FakeClient:
    """A client that polls."""
    client = FakeClient()
    client.open_with_poll()
    return client


@pytest.fixture
def client() -> FakeClient:
    """A client without a transport yet."""
    return FakeClient()


# Messages that arrive together.


def test_texts_that_arrive_together_are_passed_on_as_they_are(client: FakeClient) -> None:
    socket = client.open_with_socket()
    assert client.session.receive_texts(socket, [b"4a", b"4"], client.now)
    assert client.listener.messages == ["together: 4a", "together: 4"]


@pytest.mark.parametrize("packet", [b"3", b"", b"\x004", Packet(PacketType.MESSAGE, b"4", True)])
def test_other_packets_are_received_one_by_one(client: FakeClient, packet: bytes | Packet) -> None:
    socket = client.open_with_socket()
    assert not client.session.receive_texts(socket, [b"4a", packet], client.now)
    assert client.listener.messages == []


def test_only_the_open_websocket_of_a_session_has_messages(client: FakeClient) -> None:
    socket = client.open_with_socket()
    assert not client.session.receive_texts(FakeSocket(), [b"4a"], client.now)
    client.session.close(CloseCause.SERVER, client.now)
    assert not client.session.receive_texts(socket, [b"4a"], client.now)
    assert client.listener.messages == []


def test_texts_that_arrive_together_extend_the_time_for_a_pong(client: FakeClient) -> None:
    socket = client.open_with_socket()
    client.wait(26)
    assert client.session.receive_texts(socket, [b"4a"], client.now)
    client.wait(19.5)
    assert client.session.is_open
    client.wait(1)
    assert client.cause is CloseCause.TIMEOUT


# Messages that are WebSocket frames already.


def test_frames_wait_for_a_flush_and_leave_together(polling: FakeClient) -> None:
    assert not polling.session.is_writable
    poll = polling.poll()
    assert polling.session.is_writable
    polling.session.send_frames(text_frame(b"4a"))
    polling.session.send_frames(binary_frame(b"\x01"))
    assert poll.body is None
    polling.session.flush()
    assert poll.body == b"4a\x1ebAQ==" and not polling.session.is_writable


def test_released_poll_is_answered_and_the_session_goes_on(polling: FakeClient) -> None:
    first = polling.poll()
    polling.session.release_poll(first)
    assert first.body == b"6"
    second = polling.poll()
    polling.session.release_poll(first)
    assert second.body is None and polling.session.is_open


def test_poll_is_full_after_a_chunk_unless_a_message_is_unfinished(polling: FakeClient) -> None:
    """The rest of the message must follow, because nothing else can."""
    polling.poll()
    polling.session.send_frames(text_fragment(b"4" + bytes(CHUNK_BYTES), True, False))
    assert not polling.session.is_writable
    polling.listener.is_in_message = True
    assert polling.session.is_writable


def test_unfinished_message_is_not_sent(polling: FakeClient) -> None:
    poll = polling.poll()
    polling.listener.is_in_message = True
    polling.session.send_frames(text_fragment(b"4a", True, False))
    polling.session.flush()
    assert poll.body is None
    polling.session.send_frames(text_fragment(b"b", False, True))
    polling.listener.is_in_message = False
    polling.session.message_completed()
    assert poll.body == b"4ab"


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_ping_waits_for_the_end_of_a_message(client: FakeClient, transport: str) -> None:
    socket = client.open_with_socket() if transport == "websocket" else None
    poll = None if socket is not None else client.open_with_poll() and client.poll()
    client.listener.is_in_message = True
    client.wait(25)
    client.session.message_completed()
    client.listener.is_in_message = False
    assert client.session.is_writable
    client.session.message_completed()
    assert socket is None or socket.sent[-1] == "2"
    assert poll is None or poll.body == b"2"
    client.wait(20)
    assert client.cause is CloseCause.TIMEOUT


def test_frames_on_a_websocket(client: FakeClient) -> None:
    socket = client.open_with_socket()
    client.session.send_frames(text_frame(b"4a"))
    socket.is_blocked = True
    assert not client.session.is_writable
    client.session.send(message("b"))
    client.session.send_frames(text_frame(b"4c"))
    assert socket.sent[1:] == ["4a"]
    socket.is_blocked = False
    client.session.flush()
    assert socket.sent[1:] == ["4a", "4b", "4c"] and client.session.buffered_bytes == 0


def test_frames_move_to_the_websocket(polling: FakeClient) -> None:
    polling.session.send_frames(text_frame(b"4a"))
    socket = polling.upgrade()
    assert polling.session.socket is None
    polling.send(socket, "2probe", "5")
    assert socket.sent == ["3probe", "4a"] and polling.session.socket is socket


def test_frames_are_limited(client: FakeClient) -> None:
    small = FakeClient(EngineSettings(max_buffered_bytes=1_000))
    small.open_with_poll()
    small.session.send_frames(bytes(1_000))
    assert small.cause is CloseCause.TOO_SLOW
    small.session.send_frames(text_frame(b"4a"))
    assert small.session.buffered_bytes == 0 and not small.session.is_writable


def test_paused_session_does_not_read_its_websocket(polling: FakeClient) -> None:
    polling.session.pause()
    polling.session.resume()
    polling.session.pause()
    socket = polling.upgrade()
    polling.send(socket, "2probe", "5")
    assert socket.is_paused
    polling.session.resume()
    assert not socket.is_paused
    polling.session.pause()
    assert socket.is_paused and polling.session.is_paused


def test_pong_that_is_not_read_is_not_missed(client: FakeClient) -> None:
    """A client that does not read is closed nevertheless."""
    socket = client.open_with_socket()
    client.session.pause()
    client.wait(100)
    assert client.cause is None and socket.sent.count("2") == 1
    socket.is_blocked = True
    client.wait(20)
    assert client.cause is CloseCause.TIMEOUT


# Opening.


def test_first_request_opens_a_session(client: FakeClient) -> None:
    assert client.open_with_poll() == (OPENING % '"websocket"').encode()
    assert client.session.transport == "polling" and client.session.is_open


def test_packets_of_the_listener_leave_with_the_opening(client: FakeClient) -> None:
    poll = FakePoll()
    client.session.open_with_poll(poll)
    client.session.send(message("hello"))
    assert poll.body is None
    client.session.flush()
    assert poll.body is not None and poll.body.endswith(b"\x1e4hello")


def test_websocket_opens_a_session_without_upgrades(client: FakeClient) -> None:
    socket = client.open_with_socket()
    assert socket.sent == [OPENING % ""]
    assert client.session.transport == "websocket"


# Long polling.


def test_poll_waits_for_a_packet(polling: FakeClient) -> None:
    poll = polling.poll()
    assert poll.body is None and polling.session.has_poll
    polling.session.send(message("hello"))
    assert poll.body == b"4hello" and not polling.session.has_poll


def test_packets_wait_for_a_poll(polling: FakeClient) -> None:
    for text in ("a", "b"):
        polling.session.send(message(text))
    polling.session.send(Packet(PacketType.MESSAGE, b"\x01\x02\x03\x04", True))
    assert polling.session.buffered_bytes == 6 + 3 * PACKET_BYTES
    assert polling.poll().body == b"4a\x1e4b\x1ebAQIDBA=="
    assert polling.session.buffered_bytes == 0


def test_answers_to_one_payload_leave_together(polling: FakeClient) -> None:
    polling.listener.on_message = lambda data, is_binary: polling.session.send(message(data.decode()))
    poll = polling.poll()
    polling.post(b"4a\x1e4b\x1e4c")
    assert polling.listener.messages == ["a", "b", "c"]
    assert poll.body == b"4a\x1e4b\x1e4c"


def test_second_poll_closes_the_session(polling: FakeClient) -> None:
    first = polling.poll()
    assert polling.session.poll(FakePoll()) is HandshakeError.BAD_REQUEST
    assert (first.body, polling.cause) == (b"1", CloseCause.TRANSPORT)
    assert polling.session.poll(FakePoll()) is HandshakeError.UNKNOWN_SESSION


def test_second_post_closes_the_session(polling: FakeClient) -> None:
    assert polling.session.begin_post() is None and polling.session.is_posting
    assert polling.session.begin_post() is HandshakeError.BAD_REQUEST
    assert polling.cause is CloseCause.TRANSPORT
    polling.session.end_post()
    assert polling.session.begin_post() is HandshakeError.BAD_REQUEST


def test_lost_poll_closes_the_session(polling: FakeClient) -> None:
    polling.session.poll_lost(FakePoll())  # one that has been answered
    assert polling.session.is_open
    polling.session.poll_lost(polling.poll())
    assert polling.cause is CloseCause.TRANSPORT and polling.listener.is_finished


@pytest.mark.parametrize("body", [b"abc", b"2", b"2probe", b"0", b"5", b"", b"4a\x1eb!!"])
def test_invalid_packet_closes_the_session(polling: FakeClient, body: bytes) -> None:
    poll = polling.poll()
    polling.post(body)
    assert (poll.body, polling.cause) == (b"1", CloseCause.INVALID)


def test_packets_after_the_end_are_ignored(polling: FakeClient) -> None:
    polling.post(b"4a\x1e1\x1e4b\x1e2")
    assert polling.listener.messages == ["a"] and polling.cause is CloseCause.CLIENT
    polling.session.send(message("late"))
    assert polling.session.buffered_bytes == 0


def test_noop_is_ignored(polling: FakeClient) -> None:
    polling.post(b"6")
    assert polling.session.is_open and polling.listener.messages == []


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_client_that_reads_too_slowly_is_closed(transport: str) -> None:
    client = FakeClient(EngineSettings(max_buffered_bytes=1000))
    if transport == "polling":
        client.open_with_poll()
    else:
        client.open_with_socket().is_blocked = True
    for _ in range(9):
        client.session.send(message("x" * 10))
    assert client.session.is_open
    client.session.send(message("x" * 11))
    assert client.cause is CloseCause.TOO_SLOW and client.session.buffered_bytes == 0


def test_empty_packets_are_counted(client: FakeClient) -> None:
    client = FakeClient(EngineSettings(max_buffered_bytes=1000))
    client.open_with_poll()
    for _ in range(1000 // PACKET_BYTES + 1):
        client.session.send(message(""))
    assert client.cause is CloseCause.TOO_SLOW


# WebSocket.


def test_websocket_carries_text_and_bytes(client: FakeClient) -> None:
    socket = client.open_with_socket()
    client.send(socket, "4hello", b"\x01\x02")
    assert client.listener.messages == ["hello", b"\x01\x02"]
    client.session.send(Packet(PacketType.MESSAGE, b"\x03", True))
    assert socket.sent[1:] == [b"\x03"]


@pytest.mark.parametrize("text", ["abc", "", "2", "0{}", "5"])
def test_invalid_packet_closes_the_websocket(client: FakeClient, text: str) -> None:
    socket = client.open_with_socket()
    client.send(socket, text)
    assert socket.is_closed and client.cause is CloseCause.INVALID


@pytest.mark.parametrize("how", ["packet", "connection"])
def test_client_closes_the_websocket(client: FakeClient, how: str) -> None:
    socket = client.open_with_socket()
    if how == "packet":
        client.send(socket, "1")
        assert socket.is_closed
    else:
        client.session.socket_lost(socket)
    assert client.cause is CloseCause.CLIENT and client.listener.is_finished
    client.session.socket_lost(socket)
    client.session.fail(CloseCause.INVALID)
    assert client.cause is CloseCause.CLIENT


def test_packets_wait_while_the_websocket_is_blocked(client: FakeClient) -> None:
    socket = client.open_with_socket()
    socket.is_blocked = True
    client.session.send(message("a"))
    assert len(socket.sent) == 1 and client.session.buffered_bytes
    socket.is_blocked = False
    client.session.flush()
    assert socket.sent[1:] == ["4a"] and client.session.buffered_bytes == 0


def test_requests_of_a_websocket_session_are_rejected(client: FakeClient) -> None:
    socket = client.open_with_socket()
    assert client.session.poll(FakePoll()) is HandshakeError.BAD_REQUEST
    assert client.session.begin_post() is HandshakeError.BAD_REQUEST
    assert not client.session.upgrade(FakeSocket(), "4", client.now)
    assert not socket.is_closed and client.session.is_open


# Upgrade.


def test_upgrade(polling: FakeClient) -> None:
    poll = polling.poll()
    socket = polling.upgrade()
    polling.send(socket, "2probe")
    assert socket.sent == ["3probe"] and poll.body == b"6"
    polling.session.send(message("before"))
    assert polling.session.transport == "polling"
    polling.send(socket, "5")
    assert polling.session.transport == "websocket" and socket.sent == ["3probe", "4before"]
    polling.send(socket, "4after")
    assert polling.listener.messages == ["after"]
    assert polling.session.poll(FakePoll()) is HandshakeError.BAD_REQUEST


def test_poll_during_the_upgrade_is_answered_at_once(polling: FakeClient) -> None:
    socket = polling.upgrade()
    waiting = polling.poll()
    assert waiting.body is None
    polling.send(socket, "2probe")
    assert waiting.body == b"6"
    assert polling.poll().body == b"6"
    polling.session.send(message("a"))
    assert polling.poll().body == b"4a"


def test_second_websocket_is_rejected_and_the_first_continues(polling: FakeClient) -> None:
    socket = polling.upgrade()
    assert not polling.session.upgrade(FakeSocket(), "4", polling.now)
    polling.send(socket, "2probe", "5", "4hello")
    assert not polling.session.upgrade(FakeSocket(), "4", polling.now)
    assert polling.listener.messages == ["hello"] and not socket.is_closed


@pytest.mark.parametrize("revision", ["3", "", "5"])
def test_upgrade_with_another_revision_is_rejected(polling: FakeClient, revision: str) -> None:
    assert not polling.session.upgrade(FakeSocket(), revision, polling.now)
    assert polling.session.is_open and polling.poll().body is None


@pytest.mark.parametrize(
    "messages", [["4early"], ["5"], ["2"], ["abc"], [b"\x01"], ["2probe", "2probe"], ["2probe", "4x"]]
)
def test_failed_probe_leaves_the_session_on_polling(polling: FakeClient, messages: list[str | bytes]) -> None:
    socket = polling.upgrade()
    polling.send(socket, *messages)
    assert socket.is_closed and polling.session.is_open and polling.listener.messages == []
    assert polling.poll().body is None
    polling.send(socket, "4ignored")
    polling.session.socket_lost(socket)
    assert polling.session.is_open and polling.listener.messages == []
    polling.upgrade()


def test_upgrade_during_a_post_fails(polling: FakeClient) -> None:
    """Packets of the WebSocket could overtake those of the request."""
    socket = polling.upgrade()
    polling.send(socket, "2probe")
    assert polling.session.begin_post() is None
    polling.send(socket, "5")
    assert socket.is_closed and polling.session.transport == "polling"


def test_upgrade_that_takes_too_long_fails(polling: FakeClient) -> None:
    socket = polling.upgrade()
    polling.send(socket, "2probe")
    polling.wait(9.9)
    assert not socket.is_closed
    polling.wait(0.2)
    assert socket.is_closed and polling.session.is_open and polling.poll().body is None


def test_lost_candidate_leaves_the_session_on_polling(polling: FakeClient) -> None:
    polling.session.socket_lost(polling.upgrade())
    assert polling.session.is_open and polling.poll().body is None
    polling.upgrade()


def test_end_of_the_session_closes_the_candidate(polling: FakeClient) -> None:
    socket = polling.upgrade()
    polling.post(b"1")
    assert socket.is_closed and polling.cause is CloseCause.CLIENT
    assert not polling.session.upgrade(FakeSocket(), "4", polling.now)


# Heartbeat.


def test_pings_at_the_interval(polling: FakeClient) -> None:
    for _ in range(3):
        poll = polling.poll()
        polling.wait(24.9)
        assert poll.body is None
        polling.wait(0.1)
        assert poll.body == b"2"
        polling.post(b"3")
    assert polling.session.is_open


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_missing_pong_closes_the_session(client: FakeClient, transport: str) -> None:
    if transport == "polling":
        client.open_with_poll()
    else:
        client.open_with_socket()
    client.wait(44.9)
    assert client.session.is_open
    client.wait(0.2)
    assert client.cause is CloseCause.TIMEOUT and client.listener.is_finished
    assert client.session.deadline == math.inf


def test_other_packets_postpone_the_timeout_once(client: FakeClient) -> None:
    socket = client.open_with_socket()
    client.wait(25)
    client.wait(19)
    client.send(socket, "4a")
    client.wait(19)
    client.send(socket, "4b")
    assert client.session.is_open
    client.wait(1.1)
    assert client.cause is CloseCause.TIMEOUT


def test_pongs_that_are_not_owed_are_ignored(client: FakeClient) -> None:
    socket = client.open_with_socket()
    client.wait(20)
    client.send(socket, *["3"] * 100)
    client.wait(5)
    assert socket.sent[1:] == ["2"]


def test_short_interval_and_long_timeout() -> None:
    client = FakeClient(EngineSettings(ping_interval=1.0, ping_timeout=60.0))
    socket = client.open_with_socket()
    for count in range(1, 4):
        client.wait(1)
        assert socket.sent[1:] == ["2"] * count
        client.send(socket, "3")


# Closing.


def test_client_closes_while_a_poll_waits(polling: FakeClient) -> None:
    poll = polling.poll()
    polling.post(b"1")
    assert (poll.body, polling.cause) == (b"6", CloseCause.CLIENT)


def test_server_closes_while_a_poll_waits(polling: FakeClient) -> None:
    poll = polling.poll()
    polling.session.close(CloseCause.SERVER, polling.now)
    assert (poll.body, polling.cause) == (b"1", CloseCause.SERVER)
    assert polling.session.is_finished and polling.listener.is_finished
    polling.session.close(CloseCause.SERVER, polling.now)


def test_server_delivers_packets_with_the_next_poll_before_it_closes(polling: FakeClient) -> None:
    polling.session.send(message("last"))
    polling.session.close(CloseCause.SERVER, polling.now)
    assert polling.cause is CloseCause.SERVER and not polling.session.is_finished
    assert polling.session.begin_post() is HandshakeError.BAD_REQUEST
    polling.wait(CLOSE_TIMEOUT_SECONDS - 1)
    assert polling.poll().body == b"4last\x1e1"
    assert polling.listener.is_finished


def test_packets_of_one_answer_leave_with_the_close(polling: FakeClient) -> None:
    poll = polling.poll()
    polling.session.is_corked = True
    polling.session.send(message("last"))
    polling.session.close(CloseCause.SERVER, polling.now)
    assert poll.body == b"4last\x1e1" and polling.session.is_finished


def test_closed_session_is_forgotten_if_the_client_does_not_poll(polling: FakeClient) -> None:
    polling.session.close(CloseCause.SERVER, polling.now)
    polling.wait(CLOSE_TIMEOUT_SECONDS - 0.1)
    assert not polling.listener.is_finished
    polling.wait(0.2)
    assert polling.listener.is_finished
    assert polling.session.poll(FakePoll()) is HandshakeError.UNKNOWN_SESSION


def test_server_closes_a_websocket(client: FakeClient) -> None:
    socket = client.open_with_socket()
    client.session.is_corked = True
    client.session.send(message("last"))
    client.session.close(CloseCause.SERVER, client.now)
    assert socket.sent[1:] == ["4last"] and socket.is_closed and client.listener.is_finished


ACTIONS = st.one_of(
    st.sampled_from(["poll", "upgrade", "send", "close", "lose"]),
    st.sampled_from([b"3", b"4a", b"4a\x1e4b", b"1", b"abc", b"6"]),
    st.sampled_from(["2probe", "5", "3", "4x", "1", "abc", "2"]).map(lambda text: ("frame", text)),
    st.sampled_from([1.0, 11.0, 25.0, 46.0]),
)


@holds(actions=st.lists(ACTIONS, max_size=20))
def test_any_conversation(actions: list[object]) -> None:
    """Whatever a client does, the session answers each request at most once, delivers each packet once and in order,
    and ends once."""
    client = FakeClient()
    opening, polls, sockets, sent = client.open_with_poll(), list[FakePoll](), list[FakeSocket](), 0
    for action in actions:
        if action == "poll":
            poll = FakePoll()
            if client.session.poll(poll) is None:
                polls.append(poll)
        elif action == "upgrade":
            socket = FakeSocket()
            if client.session.upgrade(socket, "4", client.now):
                sockets.append(socket)
        elif action == "send":
            client.session.send(message(f"n{sent}"))
            sent += 1
        elif action == "close":
            client.session.close(CloseCause.SERVER, client.now)
        elif action == "lose" and sockets:
            client.session.socket_lost(sockets[-1])
        elif isinstance(action, bytes) and client.session.begin_post() is None:
            client.session.end_post()
            client.post(action) if client.session.is_open else None
        elif isinstance(action, tuple) and sockets:
            client.send(sockets[-1], action[1])
        elif isinstance(action, float):
            client.wait(action)
    assert opening is not None
    bodies = b"\x1e".join([poll.body for poll in polls if poll.body is not None]).split(b"\x1e")
    texts = [body.decode() for body in bodies] + [text for socket in sockets for text in socket.sent if text]
    numbers = [int(text[2:]) for text in map(str, texts) if text.startswith("4n")]
    assert numbers == list(range(len(numbers)))
    assert client.session.is_open is (client.cause is None)
    client.wait(100)
    assert client.listener.is_finished
