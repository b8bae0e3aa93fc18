"""Real servers that are joined by a real Redis: lines, WebSockets and streams on different servers."""

import json
import random
import signal
import subprocess
import threading
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.authority import Authority
from tests.documents import CHECKOUT
from tests.end_to_end.conftest import TCP, TIMEOUT_SECONDS, TWISTD, receive_until
from tests.end_to_end.programs import free_ports, wait_until
from tests.redis.servers import ClusterGroup, RedisServer, SentinelServer

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def new_redis(tmp_path_factory):
    """Start a Redis on a port with some options. It is killed at the end."""
    servers = []

    def start(*options):
        (port,) = free_ports(1)
        server = RedisServer(tmp_path_factory.mktemp("redis"), "--port", str(port), *options)
        server.port = port
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def start_on(start):
    """Start a server on a Redis, and wait until it is ready."""

    def start_on(redis, *options, **how):
        server = start("--backplane", f"redis://127.0.0.1:{redis.port}/0", *options, **how)
        wait_until_ready(server)
        return server

    return start_on


def status(server, path="readyz"):
    try:
        return urlopen(server.page + path, timeout=TIMEOUT_SECONDS).status
    except OSError as error:
        return getattr(error, "code", 0)


def read(server, path):
    return json.loads(urlopen(server.page + path, timeout=TIMEOUT_SECONDS).read())


def wait_until_ready(server):
    wait_until(lambda: status(server) == 200, "the server to be ready")


def test_clients_of_two_servers_are_on_the_same_channels(new_redis, start_on, line_client, web_client):
    redis = new_redis()
    one, other = start_on(redis), start_on(redis)
    lines = line_client(one.lines[0])
    lines.request("NICK ann")
    lines.request("SUB a presence=on")
    socket = web_client(other.page)
    assert socket.request(type="subscribe", channel="a", id=1)["type"] == "ok"
    joined, _, id, _ = lines.receive().split()
    assert joined == "JOIN" and id.split("-")[0] != lines.id.split("-")[0]
    request = Request(other.page + "channels/a/events", headers={"Accept": "text/event-stream"})
    stream = urlopen(request, timeout=TIMEOUT_SECONDS)
    assert lines.receive().startswith("JOIN a ")  # the stream
    assert lines.request("PUB a 21.5") == "OK 1"
    event = socket.receive()
    assert (event["type"], event["channel"], event["data"], event["from"]) == ("event", "a", "21.5", "ann")
    assert any(b"21.5" in line for line in stream)
    stream.close()
    socket.send(type="publish", channel="a", data="from the page", id=2)
    lines.receive_until("MSG a 1")
    assert lines.receive_until("MSG a 2")[-1].endswith("from the page")


def test_a_session_over_http_is_used_through_another_server(new_redis, start_on, open_socket):
    redis = new_redis()
    one, other = start_on(redis), start_on(redis)
    stream = open_socket(one.authority)
    stream.sendall(f"GET /stream HTTP/1.1\r\nHost: {one.authority}\r\nAccept: text/event-stream\r\n\r\n".encode())
    welcome = receive_until(stream, b'"}\n\n').decode()
    key = welcome.partition('"key":"')[2].partition('"')[0]

    def send(command):
        headers = {"Sockbridge-Stream": key, "Content-Type": "application/json"}
        try:
            return urlopen(Request(other.page + "stream", command.encode(), headers), timeout=TIMEOUT_SECONDS).status
        except HTTPError as error:
            return error.code

    assert send('{"type":"subscribe","id":1,"channel":"a"}') == 204
    assert send('{"type":"publish","id":2,"channel":"a","data":"21.5"}') == 204
    receive_until(stream, b'"data":"21.5"')
    assert b"sockbridge:0:node:" + key.partition("-")[0].encode() in redis.ask("PUBSUB", "CHANNELS", "*:node:*")
    key += "x"
    assert send('{"type":"ping"}') == 404
    one.kill()
    assert send('{"type":"ping"}') == 503


def test_each_server_answers_for_all_and_names_one_that_does_not(new_redis, start_on, line_client):
    redis = new_redis()
    one, other = start_on(redis), start_on(redis)
    ann, bob = line_client(one.lines[0]), line_client(other.lines[0])
    ann.request("SUB $sys/figures")

    def running():
        """The servers that answer, and those that do not, as far as the next event knows."""
        figures = json.loads(ann.receive_until("EVENT $sys/figures")[-1].split(" ", 5)[5])
        processes = figures.get("processes", [])
        assert sum(process["peers"] for process in processes) in (0, figures["peers"]["total"])
        return {process["name"]: process["is_running"] for process in processes}

    names = sorted(client.id.partition("-")[0] for client in (ann, bob))
    wait_until(lambda: running() == dict.fromkeys(names, True), "the figures of both servers")
    for server in (one, other):
        peers = read(server, "peers")
        assert {ann.id, bob.id} <= {peer["id"] for peer in peers["peers"]} and "missing" not in peers
        for client in (ann, bob):
            assert read(server, f"peers/{client.id}")["id"] == client.id
        # The log ends a second ago.
        wait_until(
            lambda: {ann.id, bob.id} <= {entry["id"] for entry in read(server, "log?kind=connect")["log"]},  # noqa: B023
            "the log of both servers",
        )
    ann.request("SUB $sys/peers/newest/0")
    assert bob.id in ann.receive_until("EVENT $sys/peers")[-1]
    assert b'process="' not in urlopen(one.page + "metrics").read(), "Prometheus adds metrics up"
    other.process.send_signal(signal.SIGSTOP)
    wait_until(lambda: running() == {names[0]: names[0] in ann.id, names[1]: names[1] in ann.id}, "one to be missing")
    assert read(one, "peers")["missing"] == [bob.id.partition("-")[0]]
    assert status(one, f"peers/{bob.id}") == 503 and status(one, f"peers/{ann.id}x") == 404
    other.process.send_signal(signal.SIGCONT)
    wait_until(lambda: running() == dict.fromkeys(names, True), "both to answer again")


def test_connections_of_an_address_are_counted_over_all_servers(new_redis, start_on, open_socket):
    redis = new_redis()
    proxies = ("--trusted-proxy", "127.0.0.1", "--proxy-protocol", TCP, "--allow-insecure")
    options = (*proxies, "--max-connections-per-address", "3")
    web = ("tcp:0:backlog=50:interface=127.0.0.1",)  # another endpoint, because its requests have no PROXY header
    one, other = start_on(redis, *options, web=web), start_on(redis, *options, web=web)

    def opens(server):
        stream = open_socket(server.lines[0])
        stream.sendall(b"PROXY TCP4 10.0.0.1 10.0.0.2 5000 80\r\nPING\r\n")
        if stream.recv(1024).startswith(b"WELCOME"):
            return stream
        return None

    streams = [opens(one) for _ in range(3)]
    assert all(streams) and opens(one) is None

    def is_rejected():
        stream = opens(other)
        if stream is not None:  # it was accepted before the server knew about the others
            stream.close()
        return stream is None

    wait_until(is_rejected, "the limit on the other server")
    streams[0].close()
    wait_until(lambda: opens(other), "room for another connection")


SOCKETIO_CLIENTS = """
import { io } from 'socket.io-client';
for (const transport of ['websocket', 'polling']) {
  const options = { transports: [transport], reconnectionDelay: 100, auth: { recover: true } };
  const socket = io('URL/b', { ...options, forceNew: true });
  const offsets = [];
  socket.on('connect', () => console.log(transport, socket.recovered));
  socket.on('message', (data, meta) => {
    offsets.push(meta.offset);
    if (data !== 'end') return;
    console.log(transport, offsets.join());
    socket.disconnect();
  });
}
"""
"""They print whether they have recovered when they connect, and at the end the offsets of all events."""


def test_clients_recover_on_another_server_after_their_own_was_killed(
    new_redis, start_on, line_client, cutting_proxy, run
):
    redis = new_redis()
    one, other = start_on(redis), start_on(redis)
    proxy = cutting_proxy(one.web_port)
    program = SOCKETIO_CLIENTS.replace("URL", proxy.origin)
    clients = run("node", "--input-type=module", "--eval", program, cwd=CHECKOUT)
    for transport in ("websocket", "polling"):
        clients.prints(f"^{transport} false$")
    ann, bob = line_client(one.lines[0]), line_client(other.lines[0])
    bob.request("SUB a presence=on")
    epoch = ann.request("SUB a").partition("epoch=")[2].split()[0]
    assert bob.receive() == f"JOIN a {ann.id} {ann.id}"  # a member that Redis does not have yet would not leave
    for number in range(1, 6):
        bob.send(f"PUB b {number}", f"PUB a {number}")
    bob.receive_until("MSG a 5 ")
    one.kill()
    bob.send("PUB b 6", "PUB b 7")
    proxy.port = other.web_port
    recovered = line_client(other.lines[0])
    assert recovered.request(f"SUB a since=2 epoch={epoch}").startswith(f"OK a offset=5 epoch={epoch} recovered=yes")
    assert [recovered.receive().split()[-1] for _ in range(3)] == ["3", "4", "5"]
    bob.socket.settimeout(2 * TIMEOUT_SECONDS)  # the lease of the killed server ends after up to 15 seconds
    left = bob.receive_until("LEAVE")[-1]
    assert left == f"LEAVE a {ann.id} {ann.id}"
    for transport in ("websocket", "polling"):
        clients.prints(f"^{transport} true$")
    bob.send("PUB b end")
    for transport in ("websocket", "polling"):
        clients.prints(f"^{transport} 1,2,3,4,5,6,7,8$")


def test_events_answered_before_a_kill_are_there_once_and_no_others(new_redis, start_on, line_client):
    """A server is killed while it publishes, several times. Answered events are there, and none is there twice."""
    redis = new_redis()
    watcher_server = start_on(redis)
    watcher = line_client(watcher_server.lines[0])
    watcher.request("SUB a")
    chance, answered, number = random.Random(7), {}, 0
    for _ in range(4):
        server = start_on(redis)
        publisher = line_client(server.lines[0])
        end = time.monotonic() + chance.uniform(0.1, 0.4)
        killer = threading.Timer(end - time.monotonic(), server.kill)
        killer.start()
        try:
            while True:
                number += 1
                publisher.send(f"PUB a {number}")
                answer = publisher.receive()
                assert answer.startswith("OK "), answer
                answered[int(answer.split()[1])] = str(number)
        except (EOFError, OSError):
            killer.join()
    watcher.send("PUB a end")
    received, lines = {}, watcher.receive_until("OK ")
    while not lines[-1].endswith(" end"):
        lines.append(watcher.receive())
    for line in lines:
        if line.startswith("MSG"):
            _, _, offset, _, payload = line.split()
            received[int(offset)] = payload
    assert list(received) == list(range(1, len(received) + 1))
    assert len(set(received.values())) == len(received)
    assert answered.items() <= received.items() and len(answered) > 20


def test_commands_in_flight_are_answered_before_a_server_stops(
    new_redis, start_on, line_client, web_client, open_socket
):
    redis = new_redis()
    server = start_on(redis)
    ann, page, http = line_client(server.lines[0]), web_client(server.page), open_socket(server.authority)
    other = line_client(server.lines[0])
    ann.request("SUB a")
    redis.pause()
    ann.send("PUB a 1", "WHO a", "PING never answered")
    page.send(type="publish", channel="b", data=2, id=1)
    http.sendall(f"POST /channels/c/events HTTP/1.1\r\nHost: {server.authority}\r\nContent-Length: 1\r\n\r\n3".encode())
    other.request("PING")  # the server has read all that was sent before
    server.process.terminate()
    assert other.receive_rest() == ["NOTICE the server is going away", "BYE"]
    redis.resume()
    assert ann.receive_rest() == [
        "OK 1",
        f"MSG a 1 {ann.id} 1",
        f"MEMBER a {ann.id} {ann.id}",
        "OK 1",
        "NOTICE the server is going away",
        "BYE",
    ]
    answer, notice = page.receive(), page.receive()
    assert (answer["type"], answer["offset"], notice["type"]) == ("ok", 1, "notice")
    assert http.recv(1024).startswith(b"HTTP/1.1 201 ")
    server.process.wait()


def test_a_redis_that_is_away_is_reported_and_clients_stay_connected(new_redis, start_on, line_client):
    redis = new_redis("--appendonly", "yes", "--appendfsync", "always")
    one, other = start_on(redis), start_on(redis)
    ann, bob = line_client(one.lines[0]), line_client(other.lines[0])
    ann.request("SUB a"), bob.request("SUB a")
    assert ann.request("PUB a 1") == "OK 1"
    redis.kill()
    wait_until(lambda: status(one) == 503 and status(other) == 503, "the servers to notice it")
    assert status(one, "healthz") == 200
    ann.receive_until("MSG a 1")
    assert ann.request("PUB a 2").startswith("ERR unavailable")
    assert ann.receive().startswith("NOTICE the server cannot reach its backplane")
    redis.start()
    for server in (one, other):
        wait_until_ready(server)
    assert bob.receive_until("RESET")[-1].endswith(" good=1 offset=1")
    ann.receive_until("RESET")
    ann.send("PUB a 3")
    assert bob.receive_until("MSG")[-1].split()[-1] == "3"


def test_a_server_without_redis_starts_and_is_not_ready(start, line_client):
    (port,) = free_ports(1)
    server = start("--backplane", f"redis://127.0.0.1:{port}/0")
    assert status(server) == 503
    assert line_client(server.lines[0]).request("SUB a").startswith("ERR unavailable")
    assert "backplane: cannot connect: Connection refused: publications are rejected until it" in server.log()


def test_a_redis_that_is_not_suitable_is_refused_in_words(new_redis, start):
    redis = new_redis("--cluster-enabled", "yes")
    server = start("--backplane", f"redis://127.0.0.1:{redis.port}/0")
    wait_until(lambda: "is a node of a Cluster: use an address such as redis+cluster://" in server.log(), "the words")
    assert status(server) == 503


def test_passwords_are_read_from_a_file_or_the_environment_and_never_shown(new_redis, start, tmp_path, monkeypatch):
    redis = new_redis("--requirepass", "f7Kq-secret", *"--user ann on >hidden ~* &* +@all".split())
    url = f"127.0.0.1:{redis.port}/0"
    (tmp_path / "password").write_text("f7Kq-secret\n")
    (tmp_path / "inline.toml").write_text(f'backplane = "redis://ann:hidden@{url}"')
    servers = [
        start("--backplane", f"redis://{url}", "--backplane-password-file", "password"),
        start("--config", "inline.toml"),
    ]
    monkeypatch.setenv("SOCKBRIDGE_BACKPLANE_PASSWORD", "f7Kq-secret")
    servers.append(start("--backplane", f"redis://{url}"))
    monkeypatch.setenv("SOCKBRIDGE_BACKPLANE_PASSWORD", "wr0ng")
    wrong = start("--backplane", f"redis://{url}")
    for server in servers:
        wait_until_ready(server)
    wait_until(lambda: "the server refuses the connection: WRONGPASS" in wrong.log(), "the error in the log")
    for server in [*servers, wrong]:
        for secret in ("f7Kq", "hidden", "wr0ng"):
            assert secret not in server.log() and secret not in " ".join(server.process.args)
    refused = subprocess.run(
        [TWISTD, "-n", "--pidfile=", "sockbridge", "--backplane", f"redis://ann:hidden@{url}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    assert refused.returncode == 1 and "contains a password, which all users" in refused.stderr
    assert "hidden" not in refused.stderr + refused.stdout


def test_finds_redis_through_a_sentinel_with_a_password_of_its_own(new_redis, start, tmp_path_factory, line_client):
    redis = new_redis("--requirepass", "f7Kq-secret")
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("sentinel")
    passwords = ("requirepass s3ntinel", "sentinel auth-pass mymaster f7Kq-secret")
    sentinel = SentinelServer(folder, port, redis.port, *passwords, program="redis-server")
    sentinel.start()
    (folder / "redis").write_text("f7Kq-secret\n")
    (folder / "sentinel").write_text("s3ntinel\n")
    files = ("--backplane-password-file", folder / "redis", "--backplane-sentinel-password-file", folder / "sentinel")
    server = start("--backplane", f"redis+sentinel://127.0.0.1:{port}/mymaster", *map(str, files))
    wait_until_ready(server)
    assert line_client(server.lines[0]).request("PUB a 1") == "OK 1"
    wrong = start("--backplane", f"redis+sentinel://127.0.0.1:{port}/mymaster", *map(str, files[:2]))
    wait_until(lambda: "the Sentinel refuses the connection" in wrong.log(), "the words")
    sentinel.kill()
    for log in (server.log(), wrong.log()):
        assert "f7Kq" not in log and "s3ntinel" not in log


def test_uses_all_servers_of_a_cluster(start, tmp_path_factory, line_client):
    cluster = ClusterGroup(tmp_path_factory.mktemp("cluster"), "redis-server")
    try:
        cluster.start()
        server = start("--backplane", f"redis+cluster://127.0.0.1:{cluster.masters[0].port}")
        wait_until_ready(server)
        lines = line_client(server.lines[0])
        for number in range(10):
            lines.request(f"SUB c{number}")
            assert lines.request(f"PUB c{number} x") == "OK 1"
            lines.receive_until(f"MSG c{number} 1")
        assert all(master.ask("DBSIZE") > 0 for master in cluster.masters)
    finally:
        cluster.kill()


def test_connects_with_tls(new_redis, start, line_client, tmp_path):
    Authority(tmp_path).issue("redis", "redis", host="127.0.0.1")
    (port,) = free_ports(1)
    files = ("--tls-cert-file", tmp_path / "redis.pem", "--tls-key-file", tmp_path / "redis.key")
    new_redis("--tls-port", str(port), "--tls-auth-clients", "no", *map(str, files))
    server = start("--backplane", f"rediss://127.0.0.1:{port}?ca={tmp_path}/authority.pem")
    wait_until_ready(server)
    assert line_client(server.lines[0]).request("PUB a 1") == "OK 1"


def test_a_client_of_another_server_is_disconnected_by_an_operator(new_redis, start_on, line_client):
    redis = new_redis()
    one, other = start_on(redis), start_on(redis)
    ann = line_client(one.lines[0])
    request = Request(f"{other.page}peers/{ann.id}", method="DELETE")
    assert urlopen(request, timeout=TIMEOUT_SECONDS).status == 202
    assert ann.receive_rest()[-1] == "BYE"
