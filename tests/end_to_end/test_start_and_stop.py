"""Starting, failing to start, stopping and restarting the server."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from tests.end_to_end.conftest import TCP, TROUBLE

pytestmark = pytest.mark.end_to_end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_clients_are_notified_before_the_end_and_ports_are_free_at_once(
    start, line_client, web_client, open_socket, eventually, number
):
    server = start()
    typist, browser = line_client(server.lines[0]), web_client(server.page)
    typist.request("SUB kitchen")
    typist.request("PUB kitchen last")
    server.process.send_signal(number)
    messages, code = browser.receive_rest()
    assert [message["type"] for message in messages] == ["notice"]
    assert code == 1001
    event, notice, bye = typist.receive_rest()
    assert event.endswith(" last")
    assert (notice, bye) == ("NOTICE the server is going away", "BYE")

    # While a client is connected, no new client is accepted, but another process can listen on the port.
    with pytest.raises(ConnectionRefusedError):
        open_socket(server.lines[0])
    with socket.create_server(("127.0.0.1", server.line_port)):
        typist.close()
    server.wait_for_exit(number)


def test_shutdown_waits_for_clients_up_to_the_timeout(start, line_client):
    server = start("--shutdown-timeout", "0.3")
    stubborn = line_client(server.lines[0])
    server.stop()
    assert "shutdown timeout: aborted clients: 1" in server.log()
    assert stubborn.receive_rest() == ["NOTICE the server is going away", "BYE"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_server_at_once(start, line_client, number):
    """A user presses Ctrl-C again because it takes long."""
    server = start("--shutdown-timeout", "3600")
    stubborn = line_client(server.lines[0])
    server.process.send_signal(number)
    assert stubborn.receive_rest() == ["NOTICE the server is going away", "BYE"]
    server.stop(number)


def test_a_unix_socket_is_free_after_a_kill(start, line_client, tmp_path):
    unix = f"unix:{tmp_path}/lines"
    start(tcp=(unix,)).kill()
    peer = line_client(start(tcp=(unix,)).lines[0])
    assert peer.request("PING") == "PONG"
    peer.close()


def test_queued_events_are_sent_before_the_end(start, line_client):
    server = start("--send-buffer-bytes", "8192")
    slow, publisher = line_client(server.lines[0]), line_client(server.lines[0])
    slow.request("SUB kitchen")
    slow.send("HIST kitchen")
    slow.receive_until("OK ")
    publisher.request(f"PUB kitchen {'x' * 60_000}")
    server.process.send_signal(signal.SIGTERM)
    publisher.receive_rest()
    publisher.close()
    event, *rest = slow.receive_rest()
    assert event.endswith("x" * 60_000)
    assert rest == ["NOTICE the server is going away", "BYE"]
    slow.close()
    server.wait_for_exit()


def test_after_a_kill_it_restarts_on_the_same_ports_and_reports_no_recovery(start, line_client, web_client):
    first = start()
    typist, browser = line_client(first.lines[0]), web_client(first.page)
    epoch = typist.request("SUB kitchen").split("epoch=")[1]
    browser.request(type="subscribe", id=1, channel="kitchen")
    for number in range(1, 4):
        typist.request(f"PUB kitchen {number}")
        typist.receive()
        assert browser.receive()["offset"] == number
    first.kill()
    for client in (typist, browser):
        with pytest.raises((EOFError, ConnectionResetError)):
            client.receive()

    second = start.again(first)
    assert (second.lines, second.pages) == (first.lines, first.pages)
    typist, browser = line_client(second.lines[0]), web_client(second.page)
    answer = typist.request(f"SUB kitchen since=3 epoch={epoch}")
    found = re.fullmatch(r"OK kitchen offset=0 epoch=(\w+) recovered=no", answer)
    assert found and found[1] != epoch
    answer = browser.request(type="subscribe", id=1, channel="kitchen", since=3, epoch=epoch)
    assert (answer["offset"], answer["recovered"]) == (0, False)
    assert typist.request("PUB kitchen 4") == "OK 1"
    assert typist.receive().startswith("MSG kitchen 1 ")
    assert browser.receive()["offset"] == 1
    assert typist.request("PING") == "PONG"
    assert browser.request(type="ping", id=2) == {"type": "pong", "id": 2}


def test_a_returning_client_gets_the_missed_events(server, line_client, web_client, channel):
    publisher, browser = line_client(server.lines[0]), web_client(server.page)
    epoch = browser.request(type="subscribe", id=1, channel=channel)["epoch"]
    publisher.request(f"PUB {channel} 1")
    assert browser.receive()["offset"] == 1
    browser.close()
    publisher.request(f"PUB {channel} 2")
    publisher.request(f"PUB {channel} 3")
    again = web_client(server.page)
    answer = again.request(type="subscribe", id=1, channel=channel, since=1, epoch=epoch)
    assert (answer["offset"], answer["recovered"]) == (3, True)
    publisher.request(f"PUB {channel} 4")
    assert [again.receive()["offset"] for _ in range(3)] == [2, 3, 4]


def test_as_a_daemon(start_daemon, eventually, line_client):
    daemon = start_daemon("--tcp", TCP)
    peer = line_client(daemon.logs(r"lines on (\S+): telnet")[1])
    assert peer.request("PUB kitchen 21.5") == "OK 1"
    os.kill(daemon.pid, signal.SIGTERM)
    assert peer.receive_rest() == ["NOTICE the server is going away", "BYE"]
    peer.close()
    eventually(lambda: not daemon.pidfile.exists(), "the end of the pid file")
    eventually(daemon.has_ended, "the end of the daemon")
    assert not TROUBLE.search(daemon.log.read_text())


FAULTS = {
    "unknown option": (["--colour", "blue"], "colour"),
    "stray word": (["8081"], "8081"),
    "bad endpoint": (["--tcp", "carrier-pigeon:8081"], "carrier-pigeon"),
    "bad port": (["--tcp", "tcp:http-alt-or-so"], "http-alt-or-so"),
    "missing certificate": (["--tcp", "ssl:0:privateKey=key.pem:certKey=cert.pem"], "key.pem"),
    "no number": (["--max-line-bytes", "long"], "max-line-bytes"),
    "out of bounds": (["--max-line-bytes", "1"], "max-line-bytes"),
    "no such policy": (["--slow-consumer", "panic"], "slow-consumer"),
    "reachable": (["--tcp", "tcp:0"], "allow-insecure"),
    "no file": (["--config", "none.toml"], "none.toml"),
    "no TOML": (["--config", "bad.toml"], "bad.toml"),
    "unknown key": (["--config", "unknown.toml"], "colour"),
    "bad value": (["--config", "value.toml"], "max-line-bytes"),
}


@pytest.fixture
def refuses_to_start(twistd, environment, tmp_path):
    """The output when the server does not start: one sentence, and exit status 1."""
    (tmp_path / "bad.toml").write_text("tcp = [")
    (tmp_path / "unknown.toml").write_text('colour = "blue"')
    (tmp_path / "value.toml").write_text('max-line-bytes = "long"')

    def check(*options, how=("-n",)):
        command = [twistd, *how, "--pidfile=bridge.pid", "sockbridge", *options]
        finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30)
        assert finished.returncode == 1, finished
        assert "Traceback" not in finished.stdout + finished.stderr
        assert not (tmp_path / "bridge.pid").exists()
        (said,) = finished.stderr.splitlines()
        assert said.startswith("sockbridge: ")
        return said

    return check


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_start_prints_one_sentence(refuses_to_start, fault):
    options, word = FAULTS[fault]
    assert word in refuses_to_start("--web", "none", *options)


@pytest.mark.parametrize("fault", ["unknown option", "missing certificate", "unknown key"])
def test_it_refuses_to_daemonize_if_the_daemon_could_not_run(refuses_to_start, fault):
    options, word = FAULTS[fault]
    assert word in refuses_to_start("--web", "none", *options, how=())


@pytest.fixture
def taken():
    """An endpoint whose port is in use."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"


def test_a_port_in_use_is_reported_in_one_sentence(refuses_to_start, taken):
    said = refuses_to_start("--web", "none", "--tcp", taken)
    assert said == f"sockbridge: cannot listen on {taken}: Address already in use"


def test_a_daemon_that_cannot_start_reports_it_before_its_parent_exits(
    twistd, environment, tmp_path, taken, eventually
):
    command = [twistd, "--pidfile=bridge.pid", "sockbridge", "--web", "none", "--tcp", taken]
    finished = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30)
    words = f"sockbridge: cannot listen on {taken}: Address already in use"
    assert finished.returncode == 1
    assert words in finished.stderr
    assert "Traceback" not in finished.stderr
    log, pidfile = tmp_path / "twistd.log", tmp_path / "bridge.pid"
    eventually(lambda: words in log.read_text(), "the reason in the log")
    eventually(lambda: not pidfile.exists(), "the end of the pid file")
    assert "Traceback" not in log.read_text()


def test_systemd_can_hand_over_the_sockets(tmp_path, twistd, environment, start, line_client, web_client):
    """As systemd does it (sd_listen_fds(3)): the sockets are 3 and 4, and the environment names the process."""
    launcher = (
        "import os, sys\n"
        "listeners = [os.dup(int(number)) for number in sys.argv[1:3]]\n"
        "moved = [os.dup2(os.dup2(fd, 20 + place), 3 + place) for place, fd in enumerate(listeners)]\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='lines:web')\n"
        "os.execv(sys.argv[3], sys.argv[3:])\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as lines, socket.create_server(("127.0.0.1", 0)) as web:
        numbers = (lines.fileno(), web.fileno())
        server = start(
            tcp=("systemd:domain=INET:index=0",),
            web=("systemd:domain=INET:name=web",),
            launcher=[sys.executable, "-c", launcher, *map(str, numbers)],
            pass_fds=numbers,
        )
        assert server.lines == [f"127.0.0.1:{lines.getsockname()[1]}"]
        typist, browser = line_client(server.lines[0]), web_client(server.page)
        browser.request(type="subscribe", id=1, channel="kitchen")
        assert typist.request("PUB kitchen 21.5") == "OK 1"
        assert browser.receive()["data"] == "21.5"
    for client in (typist, browser):
        client.close()
    server.stop()
