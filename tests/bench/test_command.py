"""`sockbridge bench`: its errors and its table, without a server."""

import argparse
import socket
from collections.abc import Iterator
from io import StringIO

import pytest

from twistedsock.bench import command as bench
from twistedsock.bench.clients import ExpectedData, Stream, Target, UnexpectedReply
from twistedsock.bench.measurement import Measurement
from twistedsock.bench.trial import benchmarks, fresh_names, table
from twistedsock.bench.wires import Json, Lines

TARGETS: dict[str, Target] = {
    "lines": Target(Lines(), ("127.0.0.1", 8081)),
    "websocket": Target(Json(), ("127.0.0.1", 8082)),
}


def given(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_options(parser)
    return parser.parse_args(words)


def error_of(*words: str) -> str:
    """Run the command, and return its error."""
    out, error = StringIO(), StringIO()
    assert bench.run(given(*words), out, error) == 1
    assert out.getvalue() == ""
    return error.getvalue()


@pytest.mark.parametrize("place", ["192.0.2.1:8081", "[2001:db8::1]:8081", "0.0.0.0:8081"])
@pytest.mark.parametrize("option", ["--lines", "--web"])
def test_refuses_remote_server_without_remote_option(option: str, place: str) -> None:
    other = "--web" if option == "--lines" else "--lines"
    words = error_of(option, place, other, "none")
    assert f"{place} is not on this machine" in words
    assert "--remote" in words
    assert words.count("\n") == 1


def test_refuses_to_measure_no_port() -> None:
    assert "nothing to measure" in error_of("--lines", "none", "--web", "none")


@pytest.mark.parametrize("place", ["8081", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1"])
def test_address_needs_host_and_port(place: str) -> None:
    assert "expected HOST:PORT" in error_of("--lines", place)


@pytest.mark.parametrize(
    "words",
    [("--readers", "0"), ("--readers", "1.5"), ("--size", "10"), ("--rate", "nan"), ("--pid", "-1")]
    + [("--seconds", "11"), ("--seconds", "x")],
)
def test_rejects_numbers_out_of_range(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        given(*words)
    assert f"error: argument {words[0]}: " in capsys.readouterr().err


@pytest.fixture
def listener() -> Iterator[tuple[str, ...]]:
    """The options that name a port for lines on which nothing answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield "--lines", f"127.0.0.1:{server.getsockname()[1]}", "--web", "none"


@pytest.mark.parametrize(
    ("reply", "is_limit"),
    [
        (b"ERR limit too many connections\n", True),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\ntoo many connections", True),
        (b'\x81\x20{"type":"error","code":"limit"}', True),
        (b"ERR forbidden you cannot read that channel\n", False),
    ],
)
def test_error_explains_limit_of_server(
    reply: bytes, is_limit: bool, listener: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*arguments: object, **options: object) -> None:
        raise UnexpectedReply(reply)

    monkeypatch.setattr(bench, "connect", connect)
    error = error_of(*listener)
    assert ("a limit of the server is reached: increase it (--max-connections-per-address," in error) is is_limit
    assert ("is not the lines port of a sockbridge server" in error) is not is_limit


def test_error_explains_ping_during_measurement(listener: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*arguments: object, **options: object) -> None:
        stream = Stream(None, ExpectedData([b"a"], is_predictable=True), "websocket reader", None)  # type: ignore[arg-type]
        stream.feed(b"\x89\x0c" + bytes(12))

    monkeypatch.setattr(bench, "benchmarks", connect)
    monkeypatch.setattr(bench, "connect", lambda *arguments, **options: None)
    assert "--ping-interval" in error_of(*listener)


def test_interruption_ends_without_traceback(listener: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "connect", connect)
    error = StringIO()
    assert bench.run(given(*listener), StringIO(), error) == 130
    assert error.getvalue() == "sockbridge bench: interrupted\n"


def test_measures_each_benchmark_with_each_protocol() -> None:
    titles = [row.title for row in benchmarks(TARGETS, 100, 50, 32, 200.0)]
    assert titles == [
        *("1 to 100, lines", "1 to 100, websocket", "50 pairs, lines", "50 pairs, websocket"),
        *("1 to 100, lines, 200 events per second", "1 to 100, websocket, 200 events per second"),
    ]
    assert all("websocket" not in row.title for row in benchmarks({"lines": TARGETS["lines"]}, 1, 1, 32, 1.0))


def test_table_has_throughput_and_latencies() -> None:
    flat, *_, paced, _ = benchmarks(TARGETS, 100, 50, 32, 200.0)
    latencies = {"p50": 0.0005, "p90": 0.001, "p99": 0.002, "p99.9": 0.01, "max": 0.02}
    found = [(flat, Measurement(2_000_000, 1.0, 0.95, 0.1)), (paced, Measurement(20_000, 1.0, 0.1, None, latencies))]
    assert table(found).splitlines() == [
        "                                        deliveries per second  per CPU second  CPU per delivery  generator",
        "1 to 100, lines                                     2,000,000      20,000,000          0.050 us        95%",
        "1 to 100, lines, 200 events per second                 20,000               -                 -        10%",
        "",
        "latency in microseconds                 p50    p90    p99   p99.9     max",
        "1 to 100, lines, 200 events per second  500  1,000  2,000  10,000  20,000",
        "",
        "If the generator was busy for 90% of the time or more, it was the bottleneck.",
    ]


def test_channel_names_are_unique() -> None:
    name = fresh_names("5f2c1a7b")
    assert [name(), name()] == ["bench-5f2c1a7b-1", "bench-5f2c1a7b-2"]


def test_host_of_target_has_brackets_for_ipv6() -> None:
    assert Target(Json(), ("::1", 8082)).host == "[::1]:8082"
    assert TARGETS["websocket"].host == "127.0.0.1:8082"
