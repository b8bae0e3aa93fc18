"""A real server delivers webhooks to real receivers."""

import ssl
import sys
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority
from tests.documents import DOCS, fenced
from tests.end_to_end.programs import free_ports
from tests.end_to_end.receiving import Receiver

pytestmark = pytest.mark.end_to_end

SECRET = "it is a secret to everybody"
ALL = '["channel-occupied", "channel-vacated", "member-joined", "member-left", "event-published"]'


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    """Start receivers: ``receive(port=…)``."""
    receivers: list[Receiver] = []

    def receiving(**how: Any) -> Receiver:
        receivers.append(Receiver(SECRET, **how))
        return receivers[-1]

    yield receiving
    for receiver in receivers:
        receiver.close()
        assert receiver.errors == []


@pytest.fixture
def configure(tmp_path: Path) -> Callable[..., None]:
    """Write the configuration file: ``configure(url, *more lines)``."""
    secret = tmp_path / "hook.secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)

    def configure(url: str, *lines: str, events: str = ALL) -> None:
        options = ["[[webhook]]", f'url = "{url}"', f"events = {events}", 'secret-file = "hook.secret"', *lines]
        (tmp_path / "bridge.toml").write_text("\n".join(options))

    return configure


@pytest.fixture
def server_with(configure: Any, start: Any) -> Callable[..., Any]:
    """A server with one webhook: ``server_with(url, *lines)``."""

    def server_with(url: str, *lines: str, events: str = ALL, options: tuple[str, ...] = ()) -> Any:
        configure(url, *lines, events=events)
        return start("--config", "bridge.toml", *options, web=("none",))

    return server_with


def test_delivers_signed_events_in_order(receive, server_with, line_client, eventually):
    receiver = receive()
    server = server_with(receiver.url, "debounce = 0", 'channels = ["kitchen.*"]')
    ann, bob = line_client(server.lines[0]), line_client(server.lines[0])
    ann.request("NICK ann")
    ann.request("SUB cellar")
    subscribed = ann.request("SUB kitchen.oven")
    for number in range(200):
        bob.request(f"PUB kitchen.oven {number}")
    bob.request('PUB kitchen.oven {"celsius": [200.5]}')
    bob.request("PUB cellar not matched")
    ann.send_bytes(b"QUIT\n")
    # Without debouncing, all events are delivered in order.
    eventually(lambda: receiver.summaries[-1:] == ["channel-vacated"], "all of it")
    assert receiver.summaries == [
        *("channel-occupied", "member-joined ann"),
        *map(str, range(200)),
        {"celsius": [200.5]},
        *("member-left ann", "channel-vacated"),
    ]
    event = receiver.events[2]
    assert (event["channel"], event["offset"], event["from"], event["name"]) == ("kitchen.oven", 1, bob.id, "message")
    assert f"epoch={event['epoch']}" in subscribed
    assert receiver.deliveries[0]["webhook"] == f"127.0.0.1:{receiver.port}"
    assert len(receiver.deliveries) < 200


def test_does_not_deliver_a_quick_reconnect(receive, server_with, line_client, eventually):
    receiver = receive()
    server = server_with(receiver.url, "debounce = 2", "delay = 0")
    for number in range(5):
        ann = line_client(server.lines[0])
        ann.request("NICK ann")
        ann.request("SUB kitchen")
        ann.request(f"PUB kitchen {number}")
        ann.close()
    ann = line_client(server.lines[0])
    ann.request("NICK ann")
    ann.request("SUB kitchen")
    eventually(lambda: "member-joined ann" in receiver.summaries, "that ann has come")
    assert receiver.summaries.count("channel-occupied") == receiver.summaries.count("member-joined ann") == 1
    assert {"member-left ann", "channel-vacated"}.isdisjoint(receiver.summaries)


def test_retries_failed_deliveries(receive, server_with, line_client, eventually):
    receiver = receive()
    receiver.statuses = [503, 500]
    server = server_with(receiver.url, events='["event-published"]')
    peer = line_client(server.lines[0])
    peer.request("PUB kitchen first")
    eventually(lambda: receiver.deliveries, "the first attempt")
    peer.request("PUB kitchen second")
    eventually(lambda: receiver.summaries == ["first", "second"], "both")
    first, second, third, *_ = receiver.deliveries
    assert first["delivery"] == second["delivery"] == third["delivery"]
    assert first["sent"] < second["sent"] < third["sent"]
    assert server.log().count("the receiver responded with 503: retrying") == 1
    eventually(lambda: "deliveries succeed again" in server.log(), "the word in the log")


def test_reports_dropped_events_to_a_recovered_receiver(receive, server_with, line_client, eventually):
    receiver = receive()
    server = server_with(receiver.url, "queue-events = 10", events='["event-published"]')
    peer = line_client(server.lines[0])
    peer.request("PUB kitchen before")
    eventually(lambda: receiver.summaries == ["before"], "the first")
    receiver.close()
    peer.request("PUB kitchen under way")
    eventually(lambda: ": retrying" in server.log(), "the failure")
    for number in range(100):
        peer.request(f"PUB kitchen {number}")
    receiver = receive(port=receiver.port)
    eventually(lambda: receiver.summaries[-1:] == ["99"], "the last")
    assert receiver.summaries == ["under way", "dropped", *map(str, range(90, 100))]
    (dropped,) = (event for event in receiver.events if event["type"] == "dropped")
    assert dropped["count"] == 90


def test_shutdown_delivers_queued_events(receive, server_with, line_client):
    receiver = receive()
    server = server_with(
        receiver.url, "delay = 60", "debounce = 60", "batch-events = 3", options=("--shutdown-timeout", "1")
    )
    peer = line_client(server.lines[0])
    peer.request("NICK ann")
    peer.request("SUB kitchen")
    peer.request("PUB kitchen 1")
    server.stop()
    assert sorted(map(str, receiver.summaries)) == [
        *("1", "channel-occupied", "channel-vacated", "member-joined ann", "member-left ann")
    ]
    assert "not delivered" not in server.log()


def test_shutdown_logs_undelivered_events(receive, server_with, line_client):
    receiver = receive()
    receiver.close()
    server = server_with(receiver.url, "delay = 60", "debounce = 60", events='["event-published"]')
    peer = line_client(server.lines[0])
    for number in range(7):
        peer.request(f"PUB kitchen {number}")
    peer.close()
    server.stop()
    assert f"webhook 127.0.0.1:{receiver.port}: 7 events were not delivered" in server.log()


def test_reload_applies_a_new_configuration(receive, configure, server_with, line_client, eventually, reload):
    receiver, other = receive(), receive()
    server = server_with(receiver.url, 'name = "office"', events='["event-published"]')
    peer = line_client(server.lines[0])
    peer.request("PUB kitchen 1")
    eventually(lambda: receiver.summaries == ["1"], "the first")
    configure(other.url, 'name = "office"', events='["event-published"]')
    reload(server)
    peer.request("PUB kitchen 2")
    eventually(lambda: other.summaries == ["2"], "the second")
    configure("ftp://example.org")
    reload(server, "reload failed, configuration unchanged")
    peer.request("PUB kitchen 3")
    eventually(lambda: other.summaries == ["2", "3"], "the third")


@pytest.fixture
def encrypted(tmp_path: Path, receive: Any) -> Callable[..., Receiver]:
    """A receiver on localhost with TLS, whose certificate is for ``host``."""

    def encrypted(host: str) -> Receiver:
        Authority(tmp_path).issue("server", "localhost", host=host)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "server.pem", tmp_path / "server.key")
        receiver: Receiver = receive(context=context)
        receiver.url = receiver.url.replace("127.0.0.1", "localhost")
        return receiver

    return encrypted


def test_accepts_a_certificate_of_a_configured_authority(encrypted, server_with, line_client, eventually):
    receiver = encrypted("localhost")
    server = server_with(receiver.url, 'ca-file = "authority.pem"', events='["event-published"]')
    line_client(server.lines[0]).request("PUB kitchen 1")
    eventually(lambda: receiver.summaries == ["1"], "it")


@pytest.mark.parametrize(
    ("host", "lines"),
    [("localhost", ()), ("example.org", ('ca-file = "authority.pem"',)), ("", ('ca-file = "authority.pem"',))],
    ids=["of an unknown authority", "for another host", "for no host"],
)
def test_delivers_nothing_to_a_host_with_a_wrong_certificate(
    encrypted, server_with, line_client, eventually, host, lines
):
    receiver = encrypted(host)
    server = server_with(receiver.url, *lines, events='["event-published"]')
    peer = line_client(server.lines[0])
    peer.request("PUB kitchen 1")
    eventually(lambda: "certificate verify failed: retrying" in server.log(), "the failure")
    peer.close()
    server.stop()
    assert receiver.deliveries == []
    assert SECRET not in server.log()


def test_invalid_configuration_prevents_the_start(configure, shell, tmp_path):
    configure("https://example.org", 'ca-file = "gone.pem"')
    words = f"webhook[0].ca-file: cannot read {tmp_path}/gone.pem: No such file or directory"
    ran = shell("twistd -n --pidfile= sockbridge --config bridge.toml")
    assert ran.returncode == 1
    assert f"sockbridge: {words}" in ran.stdout + ran.stderr
    ran = shell("sockbridge check bridge.toml")
    assert ran.returncode == 1
    assert words in ran.stdout


PAGE = DOCS / "how-to" / "webhooks.md"


@pytest.mark.parametrize(
    ("kind", "name", "program"), [("python", "receiver.py", sys.executable), ("js", "receiver.mjs", "node")]
)
def test_documented_receivers(kind, name, program, start, run, shell, tmp_path):
    """Runs the documented steps with both receivers. A request with a wrong signature is rejected."""
    (port,) = free_ports(1)
    make_secret, *_, publish = fenced(PAGE, "sh")
    shell(make_secret, check=True)
    (text,), (options,) = fenced(PAGE, kind), fenced(PAGE, "toml")
    (tmp_path / name).write_text(text.replace("9000", str(port)))
    (tmp_path / "sockbridge.toml").write_text(options.replace("9000", str(port)))
    receiver = run(program, name)
    receiver.listens(port)
    assert post(port, b'{"events": []}', {"Sockbridge-Signature-256": f"sha256={'0' * 64}"}) == 401
    assert post(port, b'{"events": []}', {}) == 401
    server = start("--config", "sockbridge.toml", web=("none",))
    shell(publish.replace("8081", str(server.line_port)), check=True)
    said = "event-published kitchen hello"
    assert f"prints `{said}`" in PAGE.read_text(encoding="utf-8")
    receiver.prints(said)
    server.stop()
    assert "retrying" not in server.log()


def post(port: int, body: bytes, headers: dict[str, str]) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("POST", "/hook", body, headers)
    status = connection.getresponse().status
    connection.close()
    return status
