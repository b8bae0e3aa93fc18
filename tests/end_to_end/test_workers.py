"""``--workers``: several real processes on the same ports, and what happens when one of them is killed."""

import json
import os
import re
import signal
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.documents import CHECKOUT
from tests.end_to_end.conftest import TCP, TWISTD, LineClient, ServerProcess, Starter, clean_environment
from tests.end_to_end.programs import Program, run_node, wait_until

pytestmark = pytest.mark.end_to_end

WORKERS = ("--workers", "2")


def processes_of(parent: int) -> dict[str, int]:
    """The processes that a supervisor has started: hub, worker 1, worker 2, and their ids."""
    found = {}
    for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with suppress(FileNotFoundError):
            words = Path(f"/proc/{number}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
            if "twistedsock.process" in words:  # else it is about to become one
                found[" ".join(words[words.index("twistedsock.process") + 1 :])] = int(number)
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def unix_sockets(process: int) -> list[str]:
    """The paths of the Unix sockets that a process has bound."""
    open_files = [os.readlink(file) for file in Path(f"/proc/{process}/fd").iterdir()]
    table = [line.split() for line in Path(f"/proc/{process}/net/unix").read_text().splitlines()[1:]]
    return [row[7] for row in table if len(row) > 7 and f"socket:[{row[6]}]" in open_files]


def wait_for_the_end(processes: dict[str, int]) -> None:
    wait_until(lambda: not any(map(is_running, processes.values())), f"the end of {processes}")


def get(page: str, path: str) -> Any:
    with urllib.request.urlopen(page + path) as response:
        return json.loads(response.read())


def next_figures(client: LineClient) -> Any:
    """The next event of ``$sys/figures``, which the client has subscribed to."""
    return json.loads(client.receive_until("EVENT $sys/figures")[-1].split(" ", 5)[5])


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Two workers, for all tests that only exchange events."""
    starter = Starter(tmp_path_factory.mktemp("workers"))
    yield starter(*WORKERS)
    starter.stop_all()


@pytest.fixture
def on_each(line_client: Callable[..., LineClient]) -> Callable[[str], list[LineClient]]:
    """A line client on each of two workers. Its id begins with the name of its worker."""

    def on_each(address: str) -> list[LineClient]:
        found: dict[str, LineClient] = {}

        def connects() -> bool:
            client = line_client(address)
            if found.setdefault(client.id[0], client) is not client:
                client.close()
            return len(found) == 2

        wait_until(connects, "a client on each worker")
        return [found["1"], found["2"]]

    return on_each


def test_clients_of_different_workers_receive_each_others_events(
    workers: ServerProcess, on_each: Any, web_client: Any, open_socket: Any, channel: str
) -> None:
    one, two = on_each(workers.lines[0])
    page = web_client(workers.page)
    stream = open_socket(workers.authority)
    opened = two.request(f"SUB {channel} presence=on")
    assert opened.startswith(f"OK {channel} offset=0 epoch="), opened
    one.request(f"SUB {channel}")
    page.request(type="subscribe", id=1, channel=channel)
    head = f"GET /channels/{channel}/events HTTP/1.1\r\nHost: {workers.authority}\r\nAccept: text/event-stream\r\n\r\n"
    stream.sendall(head.encode())
    assert {two.receive().split()[0] for _ in range(3)} == {"JOIN"}
    one.send(f"PUB {channel} 21.5")
    assert one.receive_until("MSG")[-2:] == ["OK 1", f"MSG {channel} 1 {one.id} 21.5"]
    assert two.receive_until("MSG")[-1] == f"MSG {channel} 1 {one.id} 21.5"
    message = page.receive()
    assert (message["offset"], message["data"]) == (1, "21.5"), message
    received = b""
    while b"21.5" not in received:
        received += stream.recv(65_536)
    two.send(f"WHO {channel}")
    assert two.receive_until("OK")[-1] == "OK 4"
    assert one.request(f"NICK {two.id}").startswith("ERR bad-name")


def test_each_worker_answers_for_all(workers: ServerProcess, on_each: Any, channel: str) -> None:
    one, two = on_each(workers.lines[0])
    for client in (one, two):
        client.request(f"SUB {channel}")
    one.send(f"PUB {channel} x")
    one.receive_until("MSG"), two.receive_until("MSG")
    for _ in range(3):  # whichever of them is asked
        ids = {peer["id"] for peer in get(workers.page, "peers?limit=1000")["peers"]}
        assert {one.id, two.id} <= ids
        assert get(workers.page, f"peers/{one.id}")["id"] == one.id
        log = get(workers.page, "log?kind=connect&limit=1000")
        assert {one.id, two.id} <= {entry["id"] for entry in log["log"]}
        assert get(workers.page, f"log?after={log['newest']}")["log"] == []
        assert get(workers.page, "readyz") == {"ready": True}
        metrics = urllib.request.urlopen(workers.page + "metrics").read().decode()
        assert re.search(r'^process_resident_memory_bytes\{process="hub"\}', metrics, re.MULTILINE)
        assert int(float(re.search(r"^sockbridge_connections (\S+)$", metrics, re.MULTILINE)[1])) >= 2  # type: ignore[index]
    for name, words in (
        (f"$sys/channels/find/{channel}", f'"channel":"{channel}","readers":2,'),
        ("$sys/peers/id/0", f'"id":"{two.id}"'),
        (f"$sys/peer/{two.id}", f'"id":"{two.id}"'),
        (f"$sys/log/find/{two.id}", f'"id":"{two.id}"'),
    ):
        one.send(f"SUB {name}")
        wait_until(lambda name=name, words=words: words in one.receive_until(f"EVENT {name}")[-1], words)
        one.send(f"UNSUB {name}")
    one.send("SUB $sys/figures")

    def running_processes() -> list[str]:
        figures = next_figures(one)
        assert figures["peers"]["total"] == sum(process["peers"] for process in figures["processes"])
        return [process["name"] for process in figures["processes"] if process["is_running"]]

    wait_until(lambda: running_processes() == ["1", "2", "hub"], "the figures of all processes")


SESSIONS = """
import {{ connect }} from '{client}';
const received = [];
const closed = [];
const clients = Array.from({{ length: 10 }}, () => connect('{page}ws', {{ transport: 'stream' }}));
for (const client of clients) client.addEventListener('closed', ({{ detail }}) => closed.push(detail.reason));
await Promise.all(clients.map((client) => client.subscribe('{channel}', ({{ data }}) => received.push(data)).ready));
await Promise.all(clients.map((client, number) => client.publish('{channel}', number)));
while (received.length < 100) await new Promise((resolve) => setTimeout(resolve, 10));
console.log(received.sort().join(''), closed);
process.exit();
"""
"""Ten sessions over HTTP, whose requests are on other connections, so that some of them reach another worker."""


def test_sessions_over_http_are_used_through_either_worker(workers: ServerProcess, channel: str) -> None:
    client = (CHECKOUT / "twistedsock" / "static" / "sockbridge.js").as_uri()
    program = SESSIONS.format(client=client, page=workers.page, channel=channel)
    assert run_node(program) == "".join([digit * 10 for digit in "0123456789"]) + " []\n"


SOCKETIO_SESSIONS = """
import {{ io }} from 'socket.io-client';
const received = [];
const closed = [];
const open = () => io('{page}{channel}', {{ transports: {transports}, forceNew: true }});
const sockets = Array.from({{ length: 10 }}, open);
for (const socket of sockets) socket.on('message', (data) => received.push(data));
for (const socket of sockets) socket.on('disconnect', (reason) => closed.push(reason));
await Promise.all(sockets.map((socket) => new Promise((resolve) => socket.on('connect', resolve))));
await Promise.all(sockets.map((socket, number) => socket.emitWithAck('message', number)));
while (received.length < 100) await new Promise((resolve) => setTimeout(resolve, 10));
console.log(received.sort().join(''), closed);
process.exit();
"""
"""The same over Socket.IO."""


@pytest.mark.parametrize("transports", [["polling"], ["polling", "websocket"]], ids="+".join)
def test_socketio_sessions_are_used_through_either_worker(
    workers: ServerProcess, channel: str, transports: list[str]
) -> None:
    program = SOCKETIO_SESSIONS.format(page=workers.page, channel=channel, transports=transports)
    assert run_node(program) == "".join([digit * 10 for digit in "0123456789"]) + " []\n"


def test_idempotency_keys_are_those_of_all_workers(workers: ServerProcess, channel: str) -> None:
    def request(body: bytes) -> urllib.request.Request:
        headers = {"Idempotency-Key": "k", "Content-Type": "text/plain"}
        return urllib.request.Request(f"{workers.page}channels/{channel}/events", body, headers)

    replayed = []
    for _ in range(12):  # some of them to the other worker
        with urllib.request.urlopen(request(b"x")) as response:
            assert json.loads(response.read())["offset"] == 1
            replayed.append(response.headers["Idempotency-Replayed"])
        if len(replayed) > 1:
            with pytest.raises(urllib.error.HTTPError, match="422"):
                urllib.request.urlopen(request(b"y"))
    assert replayed == [None, *["true"] * 11]


def test_client_is_disconnected_through_either_worker(workers: ServerProcess, line_client: Any) -> None:
    for _ in range(6):
        client = line_client(workers.lines[0])
        request = urllib.request.Request(f"{workers.page}peers/{client.id}?reason=bye", method="DELETE")
        with urllib.request.urlopen(request) as response:
            assert response.status in (202, 204)
        assert client.receive_rest()[-1].startswith("BYE")


def test_killed_processes_are_started_again_and_clients_of_the_others_stay(
    start: Starter, on_each: Any, line_client: Any, tmp_path: Path
) -> None:
    lines = tmp_path / "lines"
    server = start(*WORKERS, tcp=(TCP, f"unix:{lines}"))
    processes = processes_of(server.process.pid)
    assert sorted(processes) == ["hub", "worker 1", "worker 2"]
    one, two = on_each(server.lines[0])
    two.request("SUB a presence=on"), one.request("SUB a")
    assert two.receive() == f"JOIN a {one.id} {one.id}"
    os.kill(processes["worker 1"], signal.SIGKILL)
    assert two.receive() == f"LEAVE a {one.id} {one.id}"
    wait_until(
        lambda: processes_of(server.process.pid).get("worker 1") not in (None, processes["worker 1"]), "worker 1"
    )
    again, _ = on_each(f"unix:{lines}")
    again.request("SUB a")
    assert two.receive() == f"JOIN a {again.id} {again.id}", "nothing was announced twice"

    os.kill(processes["hub"], signal.SIGKILL)
    two.receive_until("RESET a epoch="), again.receive_until("RESET a epoch=")
    assert two.request("PUB a 1") == "OK 1"
    assert (two.receive(), again.receive()) == (f"MSG a 1 {two.id} 1",) * 2
    two.send("WHO a")
    assert two.receive_until("OK")[-1] == "OK 2"

    processes = processes_of(server.process.pid)
    server.stop()
    assert two.receive_rest()[-1].startswith("BYE") and again.receive_rest()[-1].startswith("BYE")
    assert not any(map(is_running, processes.values())) and not lines.exists()


def test_publications_in_flight_to_the_hub_are_answered_before_the_stop(start: Starter, on_each: Any) -> None:
    server = start(*WORKERS)
    one, two = on_each(server.lines[0])
    one.request("SUB a")
    hub = processes_of(server.process.pid)["hub"]
    os.kill(hub, signal.SIGSTOP)
    two.send("PUB a 1", "HIST a")
    one.request("PING")
    server.process.terminate()
    assert one.receive_rest()[-1] == "BYE"
    os.kill(hub, signal.SIGCONT)
    assert two.receive_rest() == ["OK 1", f"MSG a 1 {two.id} 1", "OK 1", "NOTICE the server is going away", "BYE"]
    server.process.wait()


def test_connections_of_an_address_are_counted_over_all_workers(start: Starter, open_socket: Any) -> None:
    proxies = ("--trusted-proxy", "127.0.0.1", "--proxy-protocol", TCP, "--allow-insecure")
    server = start(*WORKERS, *proxies, "--max-connections-per-address", "5", web=("none",))
    streams: list[Any] = []

    def opens() -> bool:
        stream = open_socket(server.lines[0])
        stream.sendall(b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 80\r\nPING\r\n")
        if not stream.recv(1024).startswith(b"WELCOME"):
            return False
        streams.append(stream)
        return True

    assert [opens() for _ in range(4)] == [True] * 4, "less than the limit, whatever is known"

    def is_rejected() -> bool:
        if not opens():
            return True
        if len(streams) > 5:  # it was accepted before the workers knew about the others
            streams.pop().close()
        return False

    wait_until(is_rejected, "the limit")
    assert len(streams) == 5
    processes = processes_of(server.process.pid)
    for name in ("worker 1", "worker 2"):
        os.kill(processes[name], signal.SIGKILL)
    assert opens(), "they gave their shares back"


def test_processes_that_hang_are_killed_and_started_again(start: Starter, on_each: Any) -> None:
    server = start(*WORKERS, "--worker-timeout", "3")
    stopped = processes_of(server.process.pid)
    one, two = on_each(server.lines[0])
    two.request("SUB a")
    for name in ("worker 1", "hub"):
        os.kill(stopped[name], signal.SIGSTOP)
        wait_until(
            lambda name=name: processes_of(server.process.pid).get(name) not in (None, stopped[name]), f"another {name}"
        )
    assert one.receive_rest() == []
    two.receive_until("RESET a")
    assert re.findall(r"(worker \w+|hub) has not responded for (\S+) s: killed$", server.log(), re.MULTILINE) == [
        ("worker 1", "3"),
        ("hub", "3"),
    ]
    again, _ = on_each(server.lines[0])
    again.request("SUB a")
    two.send("PUB a 1")
    again.receive_until(f"MSG a 1 {two.id} 1")
    again.send("SUB $sys/figures")

    def restarts() -> dict[str, int]:
        return {process["name"]: process["restarts"] for process in next_figures(again)["processes"]}

    wait_until(lambda: restarts() == {"1": 1, "2": 0, "hub": 1}, "the figures of all processes")
    processes = processes_of(server.process.pid)
    server.kill()  # its log has errors
    wait_for_the_end(processes)


def test_workers_end_with_a_supervisor_that_was_killed(start: Starter, line_client: Any) -> None:
    server = start(*WORKERS, "--shutdown-timeout", "1")
    client = line_client(server.lines[0])
    processes = processes_of(server.process.pid)
    (path,) = {path for path in unix_sockets(processes["hub"]) if path.endswith("/hub")}
    assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
    server.kill()
    assert client.receive_rest()[-1].startswith("BYE")
    wait_for_the_end(processes)
    assert not os.path.exists(os.path.dirname(path))


def test_state_survives_a_restart_of_all(start: Starter, on_each: Any, line_client: Any, tmp_path: Path) -> None:
    server = start(*WORKERS, "--state", str(tmp_path / "state"))
    one, two = on_each(server.lines[0])
    epoch = one.request("SUB a").rpartition("=")[2]
    assert two.request("PUB a 1") == "OK 1" and one.receive().endswith(" 1")
    os.kill(processes_of(server.process.pid)["hub"], signal.SIGKILL)

    def publishes() -> bool:
        return two.request("PUB a 2") == "OK 2"

    wait_until(publishes, "the hub")
    assert one.receive() == f"MSG a 2 {two.id} 2", "no RESET: the epoch is on the disk"
    server.stop()
    again = start.again(server, *WORKERS, "--state", str(tmp_path / "state"))
    assert line_client(again.lines[0]).request(f"SUB a since=1 epoch={epoch}") == (
        f"OK a offset=2 epoch={epoch} recovered=yes"
    )


def test_reload_changes_all_workers(start: Starter, tmp_path: Path, web_client: Any) -> None:
    (tmp_path / "bridge.toml").write_text("workers = 2\n")
    server = start("--config", "bridge.toml")
    (tmp_path / "bridge.toml").write_text('workers = 2\nallow-origin = ["https://example.org"]\n')
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(re.findall(r"worker [12]: .*#info\] reloaded: configuration", server.log())) == 2, "reloads")
    os.kill(processes_of(server.process.pid)["worker 2"], signal.SIGKILL)
    wait_until(lambda: "worker 2 has ended (signal SIGKILL)" in server.log(), "the end of a worker")
    for _ in range(6):
        web_client(server.page, origin="https://example.org").close()
    (tmp_path / "bridge.toml").write_text("workers = what\n")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload failed, configuration unchanged" in server.log(), "the error")


def test_daemon_stops_with_all_workers(tmp_path: Path) -> None:
    command = (str(TWISTD), "--pidfile=bridge.pid", "sockbridge", *WORKERS, "--tcp", TCP, "--web", "none")
    starter = Program(tmp_path, command, tmp_path / "output", env=clean_environment())
    assert starter.process.wait(20) == 0, starter.output()
    log = tmp_path / "twistd.log"
    wait_until(lambda: log.exists() and "2 workers serve" in log.read_text(), "the log of the daemon")
    pid = int((tmp_path / "bridge.pid").read_text())
    processes = processes_of(pid)
    address = re.search(r"lines on (\S+):", log.read_text())
    assert address is not None
    client = LineClient(address[1])
    os.kill(pid, signal.SIGTERM)
    assert client.receive_rest()[-1].startswith("BYE")
    client.close()
    wait_for_the_end({**processes, "supervisor": pid})
    assert not (tmp_path / "bridge.pid").exists()
    assert not re.search(r"Traceback|Unhandled|#(?:error|critical)\]", log.read_text())


def test_wrong_settings_are_reported_as_without_workers(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for options, words in (
        (("--state", "file"), "cannot start the backplane"),
        (("--plugin", "x:y"), "no plugin|not available with several workers"),
        (("--workers", "33"), "workers: expected `?int`? <= 32"),
    ):
        program = Program(
            tmp_path,
            (str(TWISTD), "-n", "--pidfile=", "sockbridge", "--tcp", TCP, "--web", "none", *WORKERS, *options),
            tmp_path / "output",
            env=clean_environment(),
        )
        assert program.process.wait(20) == 1, program.output()
        assert re.search(words, program.output()), program.output()


def test_second_signal_stops_at_once(start: Starter, line_client: Any) -> None:
    server = start(*WORKERS, "--shutdown-timeout", "60")
    client = line_client(server.lines[0])  # it does not disconnect
    server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "waiting up to 60 s for 1 client" in server.log(), "the wait")
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 10 and client.receive_rest()[-1].startswith("BYE")
