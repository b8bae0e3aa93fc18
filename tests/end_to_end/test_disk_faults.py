"""Servers whose disk is full, has errors or is slow, and servers that find damaged files."""

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.programs import wait_until
from tests.faulty_disk import IOERR_FSYNC, IOERR_WRITE, OK

pytestmark = pytest.mark.end_to_end

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(start: Any, tmp_path: Path) -> Any:
    """A server whose disk has a fault while there is a file ``fault``."""
    text = (Path(__file__).parent / "faulty_server.py").read_text()
    return start.application("faulty.tac", f"import sys\nsys.path.append({str(ROOT)!r})\n{text}")


@contextmanager
def fault(folder: Path, kind: str, code: int, seconds: float) -> Iterator[None]:
    path = folder / "fault"
    path.with_suffix(".new").write_text(f"{kind} {code} {seconds}")
    path.with_suffix(".new").rename(path)
    yield
    path.unlink()


@contextmanager
def full_disk(process: int) -> Iterator[None]:
    """Files cannot grow beyond two pages."""
    before = resource.prlimit(process, resource.RLIMIT_FSIZE)
    resource.prlimit(process, resource.RLIMIT_FSIZE, (8192, before[1]))
    yield
    resource.prlimit(process, resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["write", "sync", "full"])
def test_events_are_rejected_until_the_disk_works_again(
    server: Any, start: Any, line_client: Callable[..., Any], tmp_path: Path, kind: str
) -> None:
    publisher, reader = line_client(server.lines[0]), line_client(server.lines[0])
    epoch = reader.request("SUB kitchen").split("epoch=")[1].split()[0]
    answered = {1: "first"}
    assert publisher.request("PUB kitchen first") == "OK 1" and reader.receive().endswith(" first")
    faults = {
        "write": fault(tmp_path, "write", IOERR_WRITE, 0),
        "sync": fault(tmp_path, "sync", IOERR_FSYNC, 0),
        "full": full_disk(server.process.pid),
    }
    with faults[kind]:
        for number in range(3):
            assert publisher.request(f"PUB kitchen rejected-{number}").startswith("ERR unavailable")
        assert reader.request("PING") == "PONG"
        assert reader.request("HIST kitchen last=1").endswith(" first") and reader.receive() == "OK 1"
        wait_until(lambda: "publications are rejected until this works again" in server.log(), "the report in the log")

    def publish() -> bool:
        answer = publisher.request("PUB kitchen second")
        if answer.startswith("OK "):
            answered[int(answer.split()[1])] = "second"
        return answer.startswith("OK ")

    wait_until(publish, "an answer that says OK")
    assert reader.receive_until("MSG")[-1].rpartition(" ")[2] in ("rejected-0", "second")
    server.kill()
    again = start("--state", "state")
    events = dict(_events(line_client(again.lines[0]), epoch))
    assert answered.items() <= events.items()
    assert [text for text in events.values() if not text.startswith("rejected")] == ["first", "second"]
    assert list(events) == list(range(1, len(events) + 1))


def _events(client: Any, epoch: str) -> Iterator[tuple[int, str]]:
    reply = client.request(f"SUB kitchen since=0 epoch={epoch}")
    assert reply.endswith("recovered=yes"), reply
    for _ in range(int(reply.split("offset=")[1].split()[0])):
        _, _, offset, _, text = client.receive().split(" ", 4)
        yield int(offset), text


def test_slow_disk_delays_answers_only(server: Any, line_client: Callable[..., Any], tmp_path: Path) -> None:
    publisher, other = line_client(server.lines[0]), line_client(server.lines[0])
    assert publisher.request("PUB kitchen first") == "OK 1"
    publishers = [line_client(server.lines[0]) for _ in range(150)]
    with fault(tmp_path, "sync", OK, 3):
        started = time.monotonic()
        publisher.send("PUB kitchen second")
        wait_until((tmp_path / "reached").exists, "the transaction, for which the next publications wait")
        for client in publishers:
            client.send("PUB kitchen " + "x" * 60_000)
        for _ in range(20):
            asked = time.monotonic()
            assert other.request("PING") == "PONG"
            assert time.monotonic() - asked < 1
        assert publisher.receive() == "OK 2"
        assert time.monotonic() - started > 3
    answers = [client.receive() for client in publishers]
    rejected = [answer for answer in answers if not answer.startswith("OK ")]
    assert 0 < len(rejected) < 50
    assert all(answer.startswith("ERR unavailable disk too slow") for answer in rejected)


def test_damaged_file_is_reported_to_clients_and_in_the_log(
    start: Any, line_client: Callable[..., Any], tmp_path: Path
) -> None:
    server = start("--state", "state")
    client = line_client(server.lines[0])
    epoch = client.request("SUB kitchen").split("epoch=")[1].split()[0]
    for text in ("first", "second", "third"):
        client.send(f"PUB kitchen {text}")
        client.receive_until("MSG")
    server.stop()
    path = tmp_path / "state" / "events.sqlite"
    path.write_bytes(path.read_bytes().replace(b"second", b"secone"))
    server = start("--state", "state")
    client = line_client(server.lines[0])
    assert client.request("PUB kitchen fourth").startswith("ERR unavailable")
    wait_until(lambda: client.request("PUB kitchen fourth") == "OK 4", "the new file")
    reply = client.request(f"SUB kitchen since=3 epoch={epoch}")
    assert reply.endswith("recovered=no") and epoch not in reply
    (line,) = [line for line in server.log().splitlines() if "is damaged" in line]
    assert "now called events.sqlite.damaged-" in line and line.endswith("events of it that could be read: 1")
    server.kill()
