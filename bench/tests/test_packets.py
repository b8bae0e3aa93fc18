"""The load generator in C notices every wrong delivery. The server is a thread with the other ends of the sockets."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.packets import SOURCE, compiled
from twistedsock.bench.clients import payloads

pytestmark = pytest.mark.end_to_end

SIZE, CYCLE = 16, 4
TEXTS = payloads(CYCLE, SIZE)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(SOURCE, tmp_path_factory.mktemp("pump"))


Pump = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def pump(program: Path, tmp_path: Path) -> Iterator[Pump]:
    """``pump(deliver)`` runs the generator with one pair; ``deliver`` returns what the reader receives for the
    publication with this number."""
    publisher, publisher_there = socket.socketpair()
    reader, reader_there = socket.socketpair()

    def pump(
        deliver: Callable[[int, bytes], bytes], reply: bytes = b"", burst: int = 1
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "frames").write_bytes(b"".join(b"PUB %b\n" % text for text in TEXTS))
        (tmp_path / "payloads").write_bytes(b"".join(TEXTS))

        def serve() -> None:
            number = 0
            while data := publisher_there.recv(65_536):
                for _ in range(data.count(b"\n")):
                    reader_there.sendall(deliver(number, TEXTS[number % CYCLE]))
                    publisher_there.sendall(reply)
                    number += 1

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        done = subprocess.run(
            [
                *(program, tmp_path / "frames", "1", str(CYCLE), str(SIZE + 5), tmp_path / "payloads", str(SIZE)),
                *(str(burst), "0.05", "OK" if reply else ""),
            ],
            input=f"{publisher.fileno()} {reader.fileno()}\n",
            pass_fds=[publisher.fileno(), reader.fileno()],
            capture_output=True,
            text=True,
            timeout=60,
        )
        publisher.close()
        server.join()
        return done

    yield pump
    for each in (publisher_there, reader, reader_there):
        each.close()


@pytest.mark.parametrize("burst", [1, 2, 4])
@pytest.mark.parametrize("reply", [b"", b"OK 1\n"])
def test_counts_deliveries(pump: Pump, burst: int, reply: bytes) -> None:
    numbers = []
    done = pump(lambda number, text: numbers.append(number) or b"head (x " + text + b" tail", reply, burst)  # type: ignore[func-returns-value]
    assert done.stderr == ""
    deliveries, seconds, busy = done.stdout.split()
    assert int(deliveries) == len(numbers) and len(numbers) % burst == 0
    assert 0.05 <= float(seconds) < 30 and 0 < float(busy) < float(seconds)


@pytest.mark.parametrize(
    ("deliver", "words"),
    [
        (lambda number, text: TEXTS[number % CYCLE - 1], "expected (#)00000000"),
        (lambda number, text: text[:-1] + b"y", "expected (#)00000000xxxxx, received (#)00000000xxxxy"),
        (lambda number, text: text if number % 4 else text + TEXTS[1], "received more than was published"),
    ],
    ids=["wrong", "changed", "repeated"],
)
def test_wrong_deliveries_fail(pump: Pump, deliver: Callable[[int, bytes], bytes], words: str) -> None:
    done = pump(deliver)
    assert done.returncode == 1 and words in done.stderr


def test_a_second_reply_fails(pump: Pump) -> None:
    done = pump(lambda number, text: text, b"OKOK")
    assert done.returncode == 1 and "more replies" in done.stderr
