"""Servers with TLS that cannot be used. tests/end_to_end/test_redis.py has one that can."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.authority import Authority
from tests.redis.servers import RedisServer
from tests.redis.stage import ConnectedNode, turn_until
from twistedsock.redis.address import Address, parse_address

pytestmark = pytest.mark.end_to_end


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory() as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def port(folder: Path) -> Iterator[int]:
    """Of a server whose certificate is for 127.0.0.1."""
    Authority(folder).issue("redis", "redis", host="127.0.0.1")
    Authority(folder, "other")
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = free.getsockname()[1]
    files = ("--tls-cert-file", f"{folder}/redis.pem", "--tls-key-file", f"{folder}/redis.key")
    server = RedisServer(folder, "--tls-port", str(number), "--tls-auth-clients", "no", *files)
    server.start()
    yield number
    server.kill()


def outcome(address: Address) -> str:
    """The first line of the log about the connection."""
    node = ConnectedNode(address, b"n1")
    node.backplane.start(None)
    lines = node.log.lines
    turn_until(lambda: any(not line.startswith("danger") for line in lines), node.log)
    node.kill()
    return next(line for line in lines if not line.startswith("danger"))


@pytest.mark.parametrize("query", ["", "?ca={}/other.pem"])
def test_refuses_other_certificates(port: int, folder: Path, query: str) -> None:
    reason = outcome(parse_address(f"rediss://127.0.0.1:{port}{query.format(folder)}"))
    assert reason.startswith("unavailable: the connection was closed: ") and "certificate verify failed" in reason


@pytest.mark.parametrize(("content", "reason"), [(None, os.strerror(2)), ("x", "it contains no certificate")])
def test_reports_a_file_that_is_not_one_of_certificates(folder: Path, content: str | None, reason: str) -> None:
    file = folder / "ca"
    if content:
        file.write_text(content)
    address = parse_address(f"rediss://127.0.0.1:1?ca={file}")
    assert outcome(address) == f"unavailable: cannot use the file of certificates: {reason}"


def test_a_server_without_tls_is_reported(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        node = ConnectedNode(Address("127.0.0.1", port, is_tls=True), b"n1")
        node.backplane.start(None)
        accepted = []
        listener.setblocking(False)

        def answer() -> bool:
            try:
                accepted.append(listener.accept()[0])
                accepted[-1].sendall(b"-ERR unknown command\r\n")
            except BlockingIOError:
                pass
            return bool(node.log.lines)

        turn_until(answer, node.log)
        node.kill()
        for connection in accepted:
            connection.close()
    assert node.log.lines[0].startswith("unavailable: the connection was closed: ")
