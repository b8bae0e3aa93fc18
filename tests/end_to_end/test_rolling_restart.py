"""Two servers on one Redis, behind nginx and HAProxy with the configurations of examples/proxies/several-servers. Each
server is restarted in turn while clients publish and read through the proxy."""

import http.client
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.documents import CHECKOUT
from tests.end_to_end.conftest import LineClient, ServerProcess, unverified_tls
from tests.end_to_end.programs import TIMEOUT_SECONDS, Program, free_ports, wait_until
from tests.end_to_end.proxies import FILES, Proxy, ProxyFolder, replaced
from tests.redis.servers import RedisServer

pytestmark = pytest.mark.end_to_end

CONFIGURATIONS = FILES / "several-servers"
WS = (CHECKOUT / "node_modules" / "ws" / "wrapper.mjs").as_uri()
"""A WebSocket class for versions of Node.js without one."""

JAVASCRIPT = """
import {{ connect }} from '{client}';
import {{ WebSocket }} from '{ws}';
for (const transport of ['websocket', 'stream']) {{
  const client = connect('{page}/ws', {{ WebSocket, transport, firstDelay: 100 }});
  client.subscribe('kitchen', ({{ offset, data }}) => console.log(transport, offset, data), {{
    onLost: (gap) => console.log('lost', JSON.stringify(gap)),
  }});
}}
"""

Event = tuple[int, str]
"""Offset and payload."""

LAST = "last"
"""The payload of the last event."""


class Cluster:
    """Servers on one Redis. ``changes`` are those of the configuration of their proxy."""

    def __init__(self, folder: Path, start: Any, redis: RedisServer) -> None:
        self._start = start
        self._options: list[tuple[str, str]] = []
        self.servers: list[ServerProcess] = []
        self.changes: dict[str, str] = {}
        for name, host in (("one", "10.87.0.11"), ("two", "10.87.0.12")):
            web, lines = free_ports(2)
            changes = {
                "redis://10.87.0.6:6379/0": f"unix://{redis.path}?db=0",
                '"tcp:8083"': f'"tcp:{lines}:interface=127.0.0.1"',
                '"tcp:8082"': f'"tcp:{web}:interface=127.0.0.1"',
                "10.87.0.5": "127.0.0.1",
            }
            file = folder / f"{name}.toml"
            file.write_text(replaced((CONFIGURATIONS / "sockbridge.toml").read_text(), changes))
            ports = tuple(f"tcp:{port}:interface=127.0.0.1" for port in (lines, web))
            self._options.append(("--config", str(file)))
            self.servers.append(start(*self._options[-1], tcp=ports[:1], web=ports[1:]))
            self.changes |= {f"{host}:8082": f"127.0.0.1:{web}", f"{host}:8083": f"127.0.0.1:{lines}"}
        for server in self.servers:
            self.wait_until_ready(server)

    def restart(self, index: int) -> ServerProcess:
        """Stop a server as an operator does, start it on the same ports, and wait until it is ready."""
        self.servers[index].stop()
        server: ServerProcess = self._start.again(self.servers[index], *self._options[index])
        self.servers[index] = server
        self.wait_until_ready(server)
        return server

    def wait_until_ready(self, server: ServerProcess) -> None:
        def is_ready() -> bool:
            with closing(http.client.HTTPConnection(server.authority, timeout=TIMEOUT_SECONDS)) as connection:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200

        wait_until(is_ready, "the server to be ready")


@pytest.fixture
def cluster(tmp_path: Path, start: Any) -> Iterator[Cluster]:
    with TemporaryDirectory() as directory:  # the path of a socket must be short
        redis = RedisServer(Path(directory))
        redis.start()
        yield Cluster(tmp_path, start, redis)
        start.stop_all()
        redis.kill()


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(
    request: pytest.FixtureRequest, cluster: Cluster, tmp_path: Path, run: Callable[..., Program], certificate: str
) -> Proxy:
    """Lines without TLS are on port ``plain_lines``, for the example client."""
    folder = ProxyFolder(tmp_path, run, certificate)
    (plain,) = free_ports(1)
    if request.param == "nginx":
        listen = {"listen 8443 ssl": f"listen 127.0.0.1:{plain};\n        listen 8443 ssl"}
        proxy = folder.nginx(CONFIGURATIONS / "nginx.conf", cluster.changes | listen)
    else:
        listen = {"bind :8443 ssl": f"bind 127.0.0.1:{plain}\n    bind :8443 ssl"}
        proxy = folder.haproxy(CONFIGURATIONS / "haproxy.cfg", cluster.changes | listen)
    proxy.plain_lines = plain  # type: ignore[attr-defined]
    return proxy


class Worker(threading.Thread):
    """Connects again and again, and counts its connections."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(daemon=True)
        self.connections = 0
        self._proxy = proxy
        self._is_stopped = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._is_stopped.wait(0.05):
            with suppress(OSError, EOFError, http.client.HTTPException):
                self.work()

    def work(self) -> None:
        """Connect, and use the connection until it is lost, or the worker is stopped."""
        raise NotImplementedError

    def stop(self) -> None:
        self._is_stopped.set()
        self.join(TIMEOUT_SECONDS)


class LinePublisher(Worker):
    """Publishes an event after the answer to the one before. An event without an answer is not repeated."""

    def __init__(self, proxy: Proxy) -> None:
        self.sent = 0
        self.answered: list[Event] = []
        super().__init__(proxy)

    def work(self) -> None:
        with closing(LineClient(self._proxy.lines, tls=True)) as client:
            self.connections += 1
            while not self._is_stopped.wait(0.01):
                self.sent += 1
                payload = f"line-{self.sent}"
                client.send(f"PUB kitchen {payload}")
                answer = client.receive_until("OK ")[-1]
                self.answered.append((int(answer.split()[1]), payload))


class HTTPPublisher(Worker):
    """Publishes each event on a new connection, and repeats it with the same key until it is answered."""

    def __init__(self, proxy: Proxy) -> None:
        self.answered: list[Event] = []
        super().__init__(proxy)

    def work(self) -> None:
        payload = f"http-{len(self.answered) + 1}"
        with closing(https(self._proxy)) as connection:
            self.connections += 1
            headers = {"Idempotency-Key": payload, "Content-Type": "text/plain"}
            connection.request("POST", "/channels/kitchen/events", payload, headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 201:
                self.answered.append((json.loads(body)["offset"], payload))


class LineReader(Worker):
    """Resumes after the last event that it has received."""

    def __init__(self, proxy: Proxy) -> None:
        self.received: list[Event] = []
        super().__init__(proxy)

    def work(self) -> None:
        position = f" since={self._offset} epoch={self._epoch}" if self.connections else ""
        with closing(LineClient(self._proxy.lines, tls=True)) as client:
            ok, _, offset, epoch, *_ = client.request(f"SUB kitchen{position}").split()
            assert ok == "OK"
            if not self.connections:
                self._offset, self._epoch = offset.partition("=")[2], epoch.partition("=")[2]
            self.connections += 1
            while (line := client.receive()).startswith("MSG "):
                _, _, self._offset, _, payload = line.split()
                self.received.append((int(self._offset), payload))
                if payload == LAST:
                    return


class StreamReader(Worker):
    """Resumes a stream of server-sent events as browsers do."""

    def __init__(self, proxy: Proxy) -> None:
        self._id = ""
        self.received: list[Event] = []
        super().__init__(proxy)

    def work(self) -> None:
        with closing(https(self._proxy)) as connection:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self._id} if self._id else {})
            connection.request("GET", "/channels/kitchen/events", headers=headers)
            with connection.getresponse() as stream:
                id = ""
                for line in stream:
                    field, _, value = line.decode().rstrip().partition(": ")
                    if field == "id":
                        id = value
                    elif field == "data":
                        self._id = id or self._id
                        message = json.loads(value)
                        if message["type"] == "ok":
                            self.connections += 1
                        elif message["type"] == "event":
                            self.received.append((message["offset"], message["data"]))
                            if message["data"] == LAST:
                                return


def https(proxy: Proxy) -> http.client.HTTPSConnection:
    return http.client.HTTPSConnection(proxy.authority, context=unverified_tls(), timeout=TIMEOUT_SECONDS)


class ProgramReader:
    """A program that prints offset and payload of each event."""

    def __init__(self, program: Program, pattern: str) -> None:
        self._program = program
        self._pattern = re.compile(pattern, re.MULTILINE)

    @property
    def received(self) -> list[Event]:
        assert "lost" not in self._program.output() and "missing" not in self._program.output()
        return [(int(offset), payload) for offset, payload in self._pattern.findall(self._program.output())]


@pytest.fixture
def wait_until_used(proxy: Proxy, web_client: Any) -> Callable[[ServerProcess], None]:
    """Wait until the proxy sends new clients of both ports to a server."""

    def node(page: str) -> str:
        """The name of a server, which the ids of its clients begin with."""
        client = web_client(page)
        client.close()
        return str(json.loads(client.welcome)["id"].partition("-")[0])

    def waiting(server: ServerProcess) -> None:
        name = node(server.page)

        def is_used_for_lines() -> bool:
            with closing(LineClient(proxy.lines, tls=True)) as client:
                return client.id.startswith(f"{name}-")

        wait_until(lambda: node(proxy.page) == name, "the proxy to use the server for browsers")
        wait_until(is_used_for_lines, "the proxy to use the server for lines")

    return waiting


@pytest.fixture
def programs(proxy: Proxy, run: Any, tmp_path: Path) -> list[ProgramReader]:
    """The JavaScript client with both of its transports, and the example in Python."""
    client = (CHECKOUT / "twistedsock" / "static" / "sockbridge.js").as_uri()
    (tmp_path / "reader.mjs").write_text(JAVASCRIPT.format(client=client, ws=WS, page=proxy.page))
    # Node.js does not trust the certificate of the test.
    node = run("sh", "-c", "NODE_TLS_REJECT_UNAUTHORIZED=0 exec node --no-warnings reader.mjs")
    example = str(CHECKOUT / "examples" / "python_socket.py")
    python = run(sys.executable, example, "kitchen", "127.0.0.1", str(proxy.plain_lines))  # type: ignore[attr-defined]
    javascript = [ProgramReader(node, rf"^{transport} (\d+) (\S+)$") for transport in ("websocket", "stream")]
    return [*javascript, ProgramReader(python, r"^(\d+) \S+: (\S+)$")]


def test_restarts_lose_and_repeat_no_event(cluster, proxy, programs, wait_until_used, line_client):
    workers = [LineReader(proxy), StreamReader(proxy)]
    readers = [*workers, *programs]
    wait_until(lambda: all(worker.connections for worker in workers), "the readers")
    watcher = line_client(proxy.lines, True)

    def members() -> str:
        watcher.send("WHO kitchen")
        return watcher.receive_until("OK ")[-1]

    wait_until(lambda: members() == "OK 5", "the programs")
    lines, posts = LinePublisher(proxy), HTTPPublisher(proxy)

    def wait_for_events() -> None:
        """Wait until each publisher has published some more."""
        counts = len(lines.answered) + 10, len(posts.answered) + 10
        wait_until(lambda: len(lines.answered) > counts[0] and len(posts.answered) > counts[1], "more events")

    for index in (0, 1):
        wait_for_events()
        wait_until_used(cluster.restart(index))
    wait_for_events()
    lines.stop()
    posts.stop()
    count = int(line_client(proxy.lines, True).request(f"PUB kitchen {LAST}").split()[1])
    for reader in readers:
        wait_until(lambda: (count, LAST) in reader.received, f"the last event in {reader!r}")  # noqa: B023
    for worker in workers:
        worker.stop()
    events = workers[0].received
    assert [offset for offset, _ in events] == list(range(1, count + 1))
    assert len(dict(events).values()) == len({payload for _, payload in events})
    assert [reader.received == events for reader in readers] == [True] * 5
    for publisher in (lines, posts):
        assert publisher.answered == sorted(publisher.answered)
        assert set(publisher.answered) <= set(events)
    # The test would test nothing if the publishers and readers had not noticed the restarts.
    assert min(worker.connections for worker in (lines, *workers)) > 1
