"""The same small conversation over every kind of socket and on every reactor, and what happens when one end stalls or
breaks."""

import json
import re
import signal
import socket
import struct

import pytest

pytestmark = pytest.mark.end_to_end


def talk(typist, browser, channel):
    """A line peer and a browser hear each other."""
    position = typist.ask(f"SUB {channel} presence=on")
    assert re.fullmatch(rf"OK {channel} offset=0 epoch=\w+", position)
    subscribed = browser.ask(type="subscribe", id=1, channel=channel)
    assert (subscribed["type"], subscribed["offset"]) == ("ok", 0)
    me = browser.ask(type="info", id=2)["peer"]["id"]
    assert typist.hear() == f"JOIN {channel} {me} {me}"

    assert typist.ask(f"PUB {channel} 21.5") == "OK 1"
    assert typist.hear() == f"MSG {channel} 1 {typist.id} 21.5"
    event = browser.hear()
    assert event == {
        "type": "event", "channel": channel, "offset": 1, "from": typist.id, "name": "message", "data": "21.5"
    }  # fmt: skip

    browser.say(type="publish", id=3, channel=channel, name="alarm", data={"celsius": 99})
    assert browser.hear() == {"type": "ok", "id": 3, "offset": 2}
    assert browser.hear()["data"] == {"celsius": 99}
    kind, where, offset, sender, name, payload = typist.hear().split(" ", 5)
    assert (kind, where, offset, sender, name) == ("EVENT", channel, "2", me, "alarm")
    assert json.loads(payload) == {"celsius": 99}

    browser.close()
    assert typist.hear() == f"LEAVE {channel} {me} {me}"
    typist.say("QUIT", "PING")
    assert typist.hears_the_end() == ["BYE"]


def publish_much(publisher, channel, count=3_000, size=1_000):
    """Far more than the sockets of a reader that has stopped can hold."""
    publisher.ask("QUIET on")
    for _ in range(count // 200):
        publisher.say(*(f"PUB {channel} {'x' * size}" for _ in range(200)))
    assert publisher.ask("PING done") == "PONG done"
    return range(1, count + 1)


def stall_and_catch_up(listener, publisher, channel):
    """A reader stops, and then it hears all it has missed, in order."""
    listener.ask(f"SUB {channel}")
    for offset in publish_much(publisher, channel):
        assert listener.hear().startswith(f"MSG {channel} {offset} ")
    assert listener.ask("PING still here") == "PONG still here"


def stall_and_catch_up_in_a_browser(browser, publisher, channel):
    browser.ask(type="subscribe", id=1, channel=channel)
    for offset in publish_much(publisher, channel):
        assert browser.hear()["offset"] == offset
    assert browser.ask(type="ping", id=2) == {"type": "pong", "id": 2}


@pytest.mark.parametrize("reactor", ["epoll", "poll", "select", "asyncio"])
def test_on_each_reactor_and_over_each_kind_of_socket(start, call, browse, certificate, tmp_path, reactor):
    tls = f"ssl:0:interface=127.0.0.1:{certificate}"
    unix = f"unix:{tmp_path}/lines"
    tcp = "tcp:0:interface=127.0.0.1"
    bridge = start(tcp=(tcp, "tcp6:0:interface=\\:\\:1", tls, unix), web=(tcp, tls), twistd=(f"--reactor={reactor}",))
    plain, six, secure, local = bridge.lines
    assert six.startswith("[::1]:")
    assert local == unix
    assert [page.split(":")[0] for page in bridge.pages] == ["http", "https"]
    for number, (line, page) in enumerate([(plain, 0), (six, 1), (secure, 0), (secure, 1), (local, 1)]):
        talk(call(line, line == secure), browse(bridge.pages[page]), f"talk{number}")
    for number, line in enumerate([plain, secure, local]):
        stall_and_catch_up(call(line, line == secure), call(plain), f"stall{number}")
    for number, page in enumerate(bridge.pages):
        stall_and_catch_up_in_a_browser(browse(page), call(plain), f"stall-browser{number}")
    if reactor != "epoll":
        assert f".{reactor}reactor." in bridge.log()


def test_a_reader_that_the_log_has_passed_is_told_what_it_lost(start, call):
    bridge = start("--history-events", "100")
    listener, publisher = call(bridge.lines[0]), call(bridge.lines[0])
    listener.ask("SUB kitchen")
    publisher.ask("QUIET on")
    publisher.say(*(f"PUB kitchen {number} {'x' * 1000}" for number in range(1, 5_001)))
    assert publisher.ask("PING done") == "PONG done"
    heard, expected = 0, 1
    while expected <= 5_000:
        words = listener.hear().split(" ")
        if words[0] == "LOST":
            assert int(words[2]) == expected
            expected = int(words[3]) + 1
        else:
            assert int(words[2]) == expected
            expected += 1
            heard += 1
    assert 100 <= heard < 5_000


def test_readers_that_are_too_slow_can_be_sent_away_instead(start, call, browse):
    bridge = start("--history-events", "100", "--lag", "close")
    typist, browser, publisher = call(bridge.lines[0]), browse(bridge.page), call(bridge.lines[0])
    typist.ask("SUB kitchen")
    browser.ask(type="subscribe", id=1, channel="kitchen")
    publish_much(publisher, "kitchen", 5_000)
    *_, notice, bye = typist.hears_the_end()
    assert notice.startswith("NOTICE you read too slowly")
    assert bye == "BYE"
    messages, code = browser.hears_the_end()
    assert (messages[-1]["type"], code) == ("notice", 1013)
    offsets = [message["offset"] for message in messages[:-1]]
    assert offsets == list(range(1, len(offsets) + 1))


def test_lines_over_websocket(bridge, browse, channel):
    by_name = browse(bridge.page, subprotocol="sockbridge.v1.line")
    assert by_name.welcome.startswith("WELCOME sockbridge/1 id=")
    by_name.send_text(f"SUB {channel}\nPING")
    assert by_name.hear_text().startswith(f"OK {channel} offset=0")
    assert by_name.hear_text() == "PONG"
    by_first_word = browse(bridge.page, path="/")
    assert by_first_word.welcome.startswith('{"type":"welcome"')
    by_first_word.send_text(f"PUB {channel} 21.5\n")
    assert by_first_word.hear_text() == "OK 1"
    assert by_name.hear_text().endswith(" 21.5")


def test_both_ends_are_told_their_addresses(bridge, call, browse):
    typist, browser = call(bridge.lines[0]), browse(bridge.page)
    host, port = typist.socket.getsockname()
    assert typist.welcome.split()[3:] == [f"from={host}:{port}", f"to={bridge.lines[0]}"]
    host, port = browser.socket.getsockname()
    welcome = json.loads(browser.welcome)
    assert (welcome["from"], f"http://{welcome['to']}/") == (f"{host}:{port}", bridge.page)


@pytest.mark.parametrize("lingering", [True, False])
def test_an_event_arrives_from_a_socket_that_is_closed_right_behind_it(bridge, call, plain, lingering):
    """The welcome has not been read, so that the kernel breaks the connection; often before it is accepted."""
    channel = f"closed{lingering}"
    listener = call(bridge.lines[0])
    listener.ask(f"SUB {channel}")
    count = 200
    for number in range(count):
        hasty = plain(bridge.lines[0])
        hasty.sendall(f"PUB {channel} {number}\n".encode())
        if not lingering:
            hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        hasty.close()
    heard = {int(listener.hear().split(" ")[4]) for _ in range(count)}
    assert heard == set(range(count))


def test_what_was_received_before_a_reset_is_published(bridge, call, plain, channel):
    """A megabyte of publishes, none of their answers read, and then the connection is thrown away."""
    listener, rude = call(bridge.lines[0]), plain(bridge.lines[0])
    listener.ask(f"SUB {channel}")
    sent = publish_and_reset(rude, channel, 8_000, "x" * 100)
    assert sent
    for number in range(1, sent + 1):
        assert listener.hear().split(" ")[4:] == [str(number), "x" * 100]


def test_what_was_received_before_a_reset_is_published_though_the_bridge_had_stopped_reading(start, call, plain):
    """As many small events as it takes until the answers, which nobody reads, fill the sockets."""
    bridge = start("--send-buffer", "8192", "--history-events", "1000000", "--history-bytes", "1000000000")
    rude = plain(bridge.lines[0])
    rude.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)
    sent = publish_and_reset(rude, "kitchen", 200_000, "")
    assert sent < 200_000, "the bridge went on reading though nobody read its answers"
    watcher = call(bridge.lines[0])
    watcher.say("SUB kitchen last=1000000")
    watcher.hear_until("OK kitchen")
    for number in range(1, sent + 1):
        assert watcher.hear().split(" ")[4] == str(number)


def publish_and_reset(rude, channel, count, filling):
    """Publish until all is sent or the bridge takes no more, and break the connection; gives how many whole lines the
    bridge's kernel had taken."""
    lines = "".join(f"PUB {channel} {number} {filling}\n" for number in range(1, count + 1)).encode()
    rude.settimeout(1)
    sent = 0
    try:
        while sent < len(lines):
            sent += rude.send(lines[sent : sent + 65536])
    except TimeoutError:
        pass
    # What the other side's kernel has acknowledged, it has received.
    acknowledged = sent - unacknowledged(rude)
    rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    rude.close()
    return lines[:acknowledged].count(b"\n")


def unacknowledged(connection):
    """Bytes sent that the other side's kernel does not have yet (SIOCOUTQ)."""
    import array
    import fcntl
    import termios

    count = array.array("i", [0])
    fcntl.ioctl(connection, termios.TIOCOUTQ, count)
    return count[0]


def test_a_browser_that_lost_its_way_is_sent_to_the_web_port(bridge, call, plain, channel):
    listener, lost = call(bridge.lines[0]), plain(bridge.lines[0])
    listener.ask(f"SUB {channel}")
    lost.sendall(
        f"POST / HTTP/1.1\r\nHost: {bridge.lines[0]}\r\nContent-Length: 99\r\n\r\nPUB {channel} boo\n".encode()
    )
    answer = b"".join(iter(lambda: lost.recv(65536), b"")).decode()
    assert re.match(r"WELCOME .*\nHTTP/1\.1 400 Bad Request\r\n", answer)
    assert bridge.page in answer
    assert listener.ask("PING") == "PONG"


def test_two_thousand_connections_hear_one_event_once(start, call, browse):
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4_096)), hard))
    bridge = start()
    typists = [call(bridge.lines[0]) for _ in range(1_000)]
    browsers = [browse(bridge.page) for _ in range(1_000)]
    for typist in typists:
        typist.say("SUB kitchen")
    for browser in browsers:
        browser.say(type="subscribe", channel="kitchen", id=1)
    for typist in typists:
        assert typist.hear().startswith("OK kitchen offset=0")
    for browser in browsers:
        assert browser.hear()["type"] == "ok"
    publisher = call(bridge.lines[0])
    assert publisher.ask("PUB kitchen 21.5") == "OK 1"
    for typist in typists:
        assert typist.hear() == f"MSG kitchen 1 {publisher.id} 21.5"
        typist.say("PING")
    for browser in browsers:
        assert browser.hear()["data"] == "21.5"
        browser.say(type="ping", id=2)
    assert all(typist.hear() == "PONG" for typist in typists)
    assert all(browser.hear() == {"type": "pong", "id": 2} for browser in browsers)
    assert len(publisher.ask("WHO kitchen")) and publisher.hear_until("OK ")[-1] == "OK 2000"
    bridge.process.send_signal(signal.SIGTERM)
    for browser in browsers:
        browser.hears_the_end()
    for client in [*typists, publisher]:
        client.hears_the_end()
        client.close()
    bridge.is_over()
    assert "did not leave in time" not in bridge.log()
