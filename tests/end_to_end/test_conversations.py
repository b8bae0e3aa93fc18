"""The same small conversation over every kind of socket and on every reactor, and stalled or broken connections."""

import array
import fcntl
import json
import re
import resource
import signal
import socket
import struct
import termios
import time
from contextlib import suppress

import pytest

from tests.end_to_end.conftest import TCP

pytestmark = pytest.mark.end_to_end


def talk(typist, browser, channel):
    """A line client and a browser receive the events of each other."""
    position = typist.request(f"SUB {channel} presence=on")
    assert re.fullmatch(rf"OK {channel} offset=0 epoch=\w+", position)
    subscribed = browser.request(type="subscribe", id=1, channel=channel)
    assert (subscribed["type"], subscribed["offset"]) == ("ok", 0)
    me = browser.request(type="info", id=2)["peer"]["id"]
    assert typist.receive() == f"JOIN {channel} {me} {me}"

    assert typist.request(f"PUB {channel} 21.5") == "OK 1"
    assert typist.receive() == f"MSG {channel} 1 {typist.id} 21.5"
    event = browser.receive()
    assert abs(time.time() - event.pop("time") / 1000) < 60
    assert event == {
        "type": "event", "channel": channel, "offset": 1, "from": typist.id, "name": "message", "data": "21.5"
    }  # fmt: skip

    browser.send(type="publish", id=3, channel=channel, name="alarm", data={"celsius": 99})
    assert browser.receive() == {"type": "ok", "id": 3, "offset": 2}
    assert browser.receive()["data"] == {"celsius": 99}
    kind, where, offset, sender, name, payload = typist.receive().split(" ", 5)
    assert (kind, where, offset, sender, name) == ("EVENT", channel, "2", me, "alarm")
    assert json.loads(payload) == {"celsius": 99}

    browser.close()
    assert typist.receive() == f"LEAVE {channel} {me} {me}"
    typist.send("QUIT", "PING")
    assert typist.receive_rest() == ["BYE"]


def publish_much(publisher, channel, count=3_000, size=1_000):
    """Far more than the sockets of a stalled reader can hold."""
    publisher.request("QUIET on")
    for _ in range(count // 200):
        publisher.send(*(f"PUB {channel} {'x' * size}" for _ in range(200)))
    assert publisher.request("PING done") == "PONG done"
    return range(1, count + 1)


def stall_and_catch_up(listener, publisher, channel):
    """A reader stops. Later it receives all events that it missed, in order."""
    listener.request(f"SUB {channel}")
    for offset in publish_much(publisher, channel):
        assert listener.receive().startswith(f"MSG {channel} {offset} ")
    assert listener.request("PING still here") == "PONG still here"


def stall_and_catch_up_in_a_browser(browser, publisher, channel):
    browser.request(type="subscribe", id=1, channel=channel)
    for offset in publish_much(publisher, channel):
        assert browser.receive()["offset"] == offset
    assert browser.request(type="ping", id=2) == {"type": "pong", "id": 2}


@pytest.mark.parametrize("reactor", ["epoll", "poll", "select", "asyncio", "sockbridge"])
def test_conversations_on_each_reactor_and_kind_of_socket(
    start, line_client, web_client, certificate, tmp_path, reactor
):
    tls = f"ssl:0:interface=127.0.0.1:{certificate}"
    unix = f"unix:{tmp_path}/lines"
    server = start(tcp=(TCP, "tcp6:0:interface=\\:\\:1", tls, unix), web=(TCP, tls), twistd=(f"--reactor={reactor}",))
    open_socket, six, secure, local = server.lines
    assert six.startswith("[::1]:")
    assert local == unix
    assert [page.split(":")[0] for page in server.pages] == ["http", "https"]
    for number, (line, page) in enumerate([(open_socket, 0), (six, 1), (secure, 0), (secure, 1), (local, 1)]):
        talk(line_client(line, line == secure), web_client(server.pages[page]), f"talk{number}")
    for number, line in enumerate([open_socket, secure, local]):
        stall_and_catch_up(line_client(line, line == secure), line_client(open_socket), f"stall{number}")
    for number, page in enumerate(server.pages):
        stall_and_catch_up_in_a_browser(web_client(page), line_client(open_socket), f"stall-browser{number}")
    if reactor != "epoll":
        name = "twistedsock.server.reactor." if reactor == "sockbridge" else f".{reactor}reactor."
        assert re.search(rf"reactor class: \S*{re.escape(name)}\w+\.$", server.log(), re.MULTILINE)
    for round_ in range(3):  # hang-ups, half-closes and what they leave behind
        clients = [line_client(open_socket) for _ in range(20)]
        assert {client.request("SUB hall").split()[1] for client in clients} == {"hall"}
        clients[0].send("PUB hall hello")
        assert all(client.receive_until("MSG")[-1].endswith(" hello") for client in clients), round_
        for client in clients:
            client.close()


def test_a_reader_slower_than_the_history_gets_lost_ranges(start, line_client):
    server = start("--history-events", "100")
    listener, publisher = line_client(server.lines[0]), line_client(server.lines[0])
    listener.request("SUB kitchen")
    publisher.request("QUIET on")
    publisher.send(*(f"PUB kitchen {number} {'x' * 1000}" for number in range(1, 5_001)))
    assert publisher.request("PING done") == "PONG done"
    heard, expected = 0, 1
    while expected <= 5_000:
        words = listener.receive().split(" ")
        if words[0] == "LOST":
            assert int(words[2]) == expected
            expected = int(words[3]) + 1
        else:
            assert int(words[2]) == expected
            expected += 1
            heard += 1
    assert 100 <= heard < 5_000


def test_slow_readers_can_be_disconnected_instead(start, line_client, web_client):
    server = start("--history-events", "100", "--slow-consumer", "close")
    typist, browser, publisher = line_client(server.lines[0]), web_client(server.page), line_client(server.lines[0])
    typist.request("SUB kitchen")
    browser.request(type="subscribe", id=1, channel="kitchen")
    publish_much(publisher, "kitchen", 5_000)
    *_, notice, bye = typist.receive_rest()
    assert notice.startswith("NOTICE client reads too slowly")
    assert bye == "BYE"
    messages, code = browser.receive_rest()
    assert (messages[-1]["type"], code) == ("notice", 1013)
    offsets = [message["offset"] for message in messages[:-1]]
    assert offsets == list(range(1, len(offsets) + 1))


def test_lines_over_websocket(server, web_client, channel):
    by_name = web_client(server.page, subprotocol="sockbridge.v1.line")
    assert by_name.welcome.startswith("WELCOME sockbridge/1 id=")
    by_name.send_text(f"SUB {channel}\nPING")
    assert by_name.receive_text().startswith(f"OK {channel} offset=0")
    assert by_name.receive_text() == "PONG"
    by_first_word = web_client(server.page, path="/")
    assert by_first_word.welcome.startswith('{"type":"welcome"')
    by_first_word.send_text(f"PUB {channel} 21.5\n")
    assert by_first_word.receive_text() == "OK 1"
    assert by_name.receive_text().endswith(" 21.5")


def test_the_welcome_contains_both_addresses(server, line_client, web_client):
    typist, browser = line_client(server.lines[0]), web_client(server.page)
    host, port = typist.socket.getsockname()
    assert typist.welcome.split()[3:] == [f"from={host}:{port}", f"to={server.lines[0]}"]
    host, port = browser.socket.getsockname()
    welcome = json.loads(browser.welcome)
    assert (welcome["from"], f"http://{welcome['to']}/") == (f"{host}:{port}", server.page)


@pytest.mark.parametrize("lingering", [True, False])
def test_an_event_sent_right_before_close_is_published(server, line_client, open_socket, lingering):
    """The client has not read the welcome, so its kernel resets the connection, often before it is accepted."""
    channel = f"closed{lingering}"
    listener = line_client(server.lines[0])
    listener.request(f"SUB {channel}")
    count = 200
    for number in range(count):
        hasty = open_socket(server.lines[0])
        hasty.sendall(f"PUB {channel} {number}\n".encode())
        if not lingering:
            hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        hasty.close()
    heard = {int(listener.receive().split(" ")[4]) for _ in range(count)}
    assert heard == set(range(count))


def test_publications_received_before_a_reset_are_published(server, line_client, open_socket, channel):
    """A megabyte of publications, no reply read, and then a reset."""
    listener, rude = line_client(server.lines[0]), open_socket(server.lines[0])
    listener.request(f"SUB {channel}")
    sent = publish_and_reset(rude, channel, 8_000, "x" * 100)
    assert sent
    for number in range(1, sent + 1):
        assert listener.receive().split(" ")[4:] == [str(number), "x" * 100]


def test_publications_before_a_reset_are_published_although_reading_was_paused(start, line_client, open_socket):
    """As many small events as it takes until the unread replies fill the sockets."""
    server = start("--send-buffer-bytes", "8192", "--history-events", "1000000", "--history-bytes", "1000000000")
    rude = open_socket(server.lines[0])
    rude.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    sent = publish_and_reset(rude, "kitchen", 200_000, "")
    assert sent < 200_000, "the server went on reading although the client did not read its answers"
    watcher = line_client(server.lines[0])
    watcher.send("SUB kitchen last=1000000")
    watcher.receive_until("OK kitchen")
    for number in range(1, sent + 1):
        assert watcher.receive().split(" ")[4] == str(number)


def publish_and_reset(rude, channel, count, filling):
    """Publish until all is sent or the server reads no more, then reset the connection. Returns how many whole lines
    the kernel of the server had received."""
    lines = "".join(f"PUB {channel} {number} {filling}\n" for number in range(1, count + 1)).encode()
    rude.settimeout(1)
    sent = 0
    with suppress(TimeoutError):
        while sent < len(lines):
            sent += rude.send(lines[sent : sent + 65536])
    # The other side has received the bytes that its kernel acknowledged.
    acknowledged = sent - unacknowledged(rude)
    rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    rude.close()
    return lines[:acknowledged].count(b"\n")


def unacknowledged(connection):
    """Bytes sent that the kernel of the other side does not have yet (SIOCOUTQ)."""
    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, count)
    return count[0]


def test_two_thousand_connections_receive_one_event_once(start, line_client, web_client):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4_096)), hard))
    server = start()
    typists = [line_client(server.lines[0]) for _ in range(1_000)]
    browsers = [web_client(server.page) for _ in range(1_000)]
    for typist in typists:
        typist.send("SUB kitchen")
    for browser in browsers:
        browser.send(type="subscribe", channel="kitchen", id=1)
    for typist in typists:
        assert typist.receive().startswith("OK kitchen offset=0")
    for browser in browsers:
        assert browser.receive()["type"] == "ok"
    publisher = line_client(server.lines[0])
    assert publisher.request("PUB kitchen 21.5") == "OK 1"
    for typist in typists:
        assert typist.receive() == f"MSG kitchen 1 {publisher.id} 21.5"
        typist.send("PING")
    for browser in browsers:
        assert browser.receive()["data"] == "21.5"
        browser.send(type="ping", id=2)
    assert all(typist.receive() == "PONG" for typist in typists)
    assert all(browser.receive() == {"type": "pong", "id": 2} for browser in browsers)
    assert len(publisher.request("WHO kitchen")) and publisher.receive_until("OK ")[-1] == "OK 2000"
    server.process.send_signal(signal.SIGTERM)
    for browser in browsers:
        browser.receive_rest()
    for client in [*typists, publisher]:
        client.receive_rest()
        client.close()
    server.wait_for_exit()
    assert "aborted clients" not in server.log()
