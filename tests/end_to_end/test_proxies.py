"""The configurations in examples/proxies/, run by real proxies in front of a real server."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import Starter, receive_until, running_programs, unverified_tls
from tests.end_to_end.programs import free_ports, path_of
from tests.end_to_end.proxies import FILES, Proxy, ProxyFolder, replaced
from tests.fuzz.grammars import HANDSHAKE

pytestmark = pytest.mark.end_to_end

CLIENT = "127.0.0.5"
"""The address of clients, which differs from that of the proxy."""
STRANGER = "127.0.0.9"


class Place:
    """The server of sockbridge.toml. ``lines`` is the endpoint without a PROXY header. ``web_port`` and ``lines_port``
    are the ports for the proxy."""

    def __init__(self, folder: Path, start: Callable[..., Any]) -> None:
        open_port, self.web_port, self.lines_port = free_ports(3)
        changes = {"8081": str(open_port), "8082": str(self.web_port), "8083": str(self.lines_port)}
        (folder / "sockbridge.toml").write_text(replaced((FILES / "sockbridge.toml").read_text(), changes))
        # Endpoints on the command line override those of the file.
        self.server = start(
            "--config",
            str(folder / "sockbridge.toml"),
            tcp=tuple(f"tcp:{port}:interface=127.0.0.1" for port in (open_port, self.lines_port)),
            web=(f"tcp:{self.web_port}:interface=127.0.0.1",),
        )
        self.lines = f"127.0.0.1:{open_port}"

    @property
    def changes(self) -> dict[str, str]:
        """What differs in the configuration of a proxy for browsers and lines."""
        return {"127.0.0.1:8082": f"127.0.0.1:{self.web_port}", "127.0.0.1:8083": f"127.0.0.1:{self.lines_port}"}


def start_nginx(place: Place, folder: ProxyFolder) -> Proxy:
    return folder.nginx(FILES / "nginx.conf", place.changes)


def start_caddy(place: Place, folder: ProxyFolder) -> Proxy:
    (page,) = free_ports(1)
    site = f"https://127.0.0.1:{page} {{\n\ttls {folder.certificate} {folder.key}\n"
    text = replaced(
        (FILES / "Caddyfile").read_text(),
        {"bridge.example.org {\n": site, "127.0.0.1:8082": f"127.0.0.1:{place.web_port}"},
    )
    # No administration port, and no redirect from http to https.
    (folder.path / "Caddyfile").write_text(
        "{\n\tadmin off\n\tauto_https disable_redirects\n\tdefault_sni localhost\n}\n" + text
    )
    return folder.start(page, 0, "caddy", "run", "--config", "Caddyfile", "--adapter", "caddyfile")


def start_haproxy(place: Place, folder: ProxyFolder) -> Proxy:
    return folder.haproxy(FILES / "haproxy.cfg", place.changes)


STARTERS = {"nginx": start_nginx, "caddy": start_caddy, "haproxy": start_haproxy}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    starter = Starter(folder)
    yield Place(folder, starter)
    starter.stop_all()


@pytest.fixture(scope="module")
def proxy(
    request: pytest.FixtureRequest, place: Place, tmp_path_factory: pytest.TempPathFactory, certificate: str
) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp(request.param)
    with running_programs(folder) as run:
        yield STARTERS[request.param](place, ProxyFolder(folder, run, certificate))


everywhere = pytest.mark.parametrize("proxy", STARTERS, indirect=True)
for_lines = pytest.mark.parametrize("proxy", ["nginx", "haproxy"], indirect=True)


@everywhere
def test_websocket_through_a_proxy(proxy, place, web_client, line_client):
    """The origin equals the host only if the proxy forwards the host of the request."""
    page = web_client(proxy.page, origin=proxy.page, source=CLIENT)
    assert f'"from":"{CLIENT}:0"' in page.welcome
    assert page.request(type="subscribe", channel="kitchen", id=1)["type"] == "ok"
    line_client(place.lines).request("PUB kitchen 21.5")
    assert page.receive()["data"] == "21.5"
    assert page.request(type="info", id=2)["from"] == f"{CLIENT}:0"


@everywhere
def test_proxy_replaces_a_forged_client_address(proxy, web_client):
    for headers in (
        ["X-Forwarded-For: 203.0.113.66"],
        ["X-Forwarded-For: 203.0.113.66", "X-Forwarded-For: 127.0.0.1"],
        ["X-Forwarded-For: nonsense"],
        ["Forwarded: for=203.0.113.66"],
    ):
        assert f'"from":"{CLIENT}:0"' in web_client(proxy.page, headers=headers, source=CLIENT).welcome


@everywhere
def test_websocket_after_requests_for_pages(proxy, open_socket):
    """A proxy that keeps connections to the server must not send a handshake on one of them."""
    client = open_socket(proxy.authority, True)
    for path, last in (("/", b"</html>"), ("/bridge.json", b"}"), ("/none", b'"unknown-command"}')):
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: {proxy.authority}\r\n\r\n".encode())
        answer = b""
        while not re.search(last + rb"\s*(0\s*)?$", answer):
            data = client.recv(65536)
            assert data, answer
            answer += data
    client.sendall(HANDSHAKE.replace(b"127.0.0.1:8082", proxy.authority.encode()))
    assert client.recv(65536).startswith(b"HTTP/1.1 101 ")


@everywhere
def test_proxy_forwards_events_at_once(proxy, web_client):
    page = web_client(proxy.page)
    for number in range(20):
        assert page.request(type="ping", data=number)["type"] == "pong"
    large = "x" * 60_000
    page.request(type="subscribe", channel="kitchen", id=1)
    page.request(type="publish", channel="kitchen", data=large, id=2)
    assert page.receive()["data"] == large


@everywhere
def test_proxy_forwards_a_stream_without_buffering(proxy, place, line_client, open_socket):
    client, peer = open_socket(proxy.authority, True), line_client(place.lines)
    client.sendall(f"GET /events?channel=kitchen HTTP/1.1\r\nHost: {proxy.authority}\r\n\r\n".encode())
    assert b"text/event-stream" in receive_until(client, b"event: ok")
    for number in "12":
        peer.request(f"PUB kitchen {number}")
        receive_until(client, b'"data":"%b"' % number.encode())
    client.close()  # Caddy would wait for the end of the stream


@for_lines
def test_line_protocol_through_a_proxy(proxy, place, line_client):
    peer = line_client(proxy.lines, True, CLIENT)
    here = "{}:{}".format(*peer.socket.getsockname())
    assert f" from={here} " in peer.welcome
    assert f" from={here} " in peer.request("INFO")
    peer.send("SUB kitchen")
    assert peer.receive().startswith("OK kitchen ")
    offset = line_client(place.lines).request("PUB kitchen 21.5").removeprefix("OK ")
    assert peer.receive().startswith(f"MSG kitchen {offset} ")


def test_ignores_a_proxy_header_of_an_untrusted_client(place, line_client):
    peer = line_client(f"127.0.0.1:{place.lines_port}", source=STRANGER)
    assert f" from={STRANGER}:" in peer.welcome
    assert peer.request("PROXY TCP4 203.0.113.66 127.0.0.1 1 2\r").startswith("ERR unknown-command ")


def test_ignores_a_forwarded_address_of_an_untrusted_client(place, web_client):
    page = f"http://127.0.0.1:{place.web_port}"
    stranger = web_client(page, headers=["X-Forwarded-For: 203.0.113.66"], source=STRANGER)
    assert f'"from":"{STRANGER}:' in stranger.welcome
    assert '"from":"203.0.113.66:0"' in web_client(page, headers=["X-Forwarded-For: 203.0.113.66"]).welcome


def test_proxy_header_precedes_tls(start, open_socket, certificate):
    """HAProxy with ``ssl`` and ``send-proxy`` sends it so."""
    endpoint = f"ssl:0:interface=127.0.0.1:{certificate}"
    server = start(
        "--proxy-protocol", endpoint, "--trusted-proxy", "127.0.0.1", "--allow-insecure", tcp=(endpoint,), web=("none",)
    )
    connection = open_socket(server.lines[0])
    connection.sendall(b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n")
    with unverified_tls().wrap_socket(connection) as secure:
        assert b" from=203.0.113.7:4711 " in secure.recv(200)


def test_logs_a_proxy_that_sends_no_header(place, open_socket):
    with open_socket(f"127.0.0.1:{place.lines_port}") as connection:
        connection.sendall(b"SUB kitchen\n")
        with pytest.raises(ConnectionResetError):
            while connection.recv(200):
                pass
    assert "the proxy at 127.0.0.1 sends no PROXY header" in place.server.log()


@pytest.mark.parametrize(
    "check", ["option httpchk", "option httpchk GET /healthz", "option httpchk GET /readyz HTTP/1.1\\r\\nHost:\\ a"]
)
def test_haproxy_finds_the_server_healthy(start, run, tmp_path, eventually, check):
    """By default it sends ``OPTIONS / HTTP/1.0`` without a host; with a path, ``GET`` likewise."""
    server = start(tcp=("none",))
    host = tmp_path / "haproxy.socket"
    check = check.replace(r"Host:\ a", rf"Host:\ {server.authority}")
    (tmp_path / "haproxy.cfg").write_text(
        f"global\n stats socket {host}\ndefaults\n mode http\n timeout connect 5s\n timeout client 5s\n"
        f" timeout server 5s\nlisten bridge\n bind 127.0.0.1:{free_ports(1)[0]}\n {check}\n"
        f" server one {server.authority} check inter 50ms\n"
    )
    haproxy = run(path_of("haproxy"), "-db", "-f", "haproxy.cfg")

    def status() -> str:
        assert haproxy.process.poll() is None, haproxy.output()
        with socket.socket(socket.AF_UNIX) as admin:
            if admin.connect_ex(str(host)):
                return ""
            admin.sendall(b"show stat\n")
            names, *rows = b"".join(iter(lambda: admin.recv(65536), b"")).decode().splitlines()
        [row] = [row.split(",") for row in rows if row.startswith("bridge,one,")]
        return dict(zip(names.split(","), row, strict=True))["check_status"].removeprefix("* ")

    # A check that takes longer than 50 ms on a busy machine fails; the next one is as good.
    eventually(lambda: status() == "L7OK", "a check that succeeds")
