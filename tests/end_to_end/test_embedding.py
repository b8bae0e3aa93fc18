"""The server in other programs, as processes with real sockets."""

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.documents import DOCS, fenced
from tests.end_to_end.programs import free_ports

pytestmark = pytest.mark.end_to_end

PROGRAMS = fenced(DOCS / "how-to" / "embed.md", "python")


PLUGIN = """
from twisted.internet.protocol import DatagramProtocol
from zope.interface import implementer

from twistedsock import IBridgeEndpoint


class Sensors(DatagramProtocol):
    def __init__(self, bridge):
        self.bridge = bridge

    def datagramReceived(self, datagram, address):
        self.bridge.publish("sensors", datagram.decode(), nick="udp")


"""
"""The beginning of the plugin. The rest is on the page."""


@pytest.fixture
def site(start: Any, certificate: str) -> Callable[..., str]:
    """Start the site of the page, at another address. Returns its address."""

    def site(tls: bool = False, **changes: str) -> str:
        (text,) = (program for program in PROGRAMS if "strports.service" in program)
        (port,) = free_ports(1)
        endpoint = f"ssl:{port}:interface=127.0.0.1:{certificate}" if tls else f"tcp:{port}:interface=127.0.0.1"
        changes |= {"tcp:8080:interface=127.0.0.1": endpoint, "tcp:8081:": "tcp:0:"}
        for before, after in changes.items():
            assert before in text
            text = text.replace(before, after)
        start.application("site.tac", text, endpoints=1)
        return f"http{'s' * tls}://127.0.0.1:{port}"

    return site


@pytest.mark.parametrize("tls", [False, True])
def test_site_serves_websockets(site: Any, web_client: Any, tls: bool) -> None:
    page = site(tls)
    client = web_client(page, path="/bridge/ws")
    assert client.request(type="subscribe", channel="kitchen", id=1)["type"] == "ok"
    client.send(type="publish", channel="kitchen", data={"celsius": 21.5})
    assert client.receive()["data"] == {"celsius": 21.5}


def test_site_serves_requests_and_its_own_pages(site: Any) -> None:
    page = site()
    for _ in range(2):
        assert urlopen(f"{page}/status").read() == b"all is well\n"
        assert urlopen(f"{page}/bridge/channels/kitchen/events", data=b"21.5").status == 201
    with pytest.raises(HTTPError, match="404"):
        urlopen(f"{page}/bridge/gone")


@pytest.mark.parametrize("tls", [False, True])
def test_site_serves_the_page_at_its_root(site: Any, open_page: Any, tls: bool) -> None:
    address = site(tls, **{"root = Resource()": "root = server.resource()"})
    monitored = open_page(ignore_https_errors=True)
    monitored.open(address)
    monitored.wait_until_connected()


def test_plugin_of_another_package_is_found(start: Any, line_client: Any, tmp_path: Path) -> None:
    endpoint, plugin = (program for program in PROGRAMS if "class UDPSensors" in program or "IPlugin" in program)
    folder = tmp_path / "twisted" / "plugins"
    folder.mkdir(parents=True)
    (folder / "sensors_plugin.py").write_text(PLUGIN + endpoint.partition("make_service")[0] + plugin)
    (port,) = free_ports(1)
    server = start("--plugin", f"sensors:{port}", launcher=("env", f"PYTHONPATH={tmp_path}"))
    reader = line_client(server.lines[0])
    reader.request("SUB sensors")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sensor:
        sensor.sendto(b"21.5", ("127.0.0.1", port))
    assert reader.receive() == "MSG sensors 1 udp 21.5"
