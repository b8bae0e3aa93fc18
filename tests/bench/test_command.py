"""`sockbridge bench`: what it refuses and what it prints, without a bridge."""

import argparse
from io import StringIO

import pytest

from twistedsock.bench import command as bench
from twistedsock.bench.clients import Expected, Refused, Stream, Target
from twistedsock.bench.measurement import Figures
from twistedsock.bench.trial import fresh_names, rows, table
from twistedsock.bench.wires import Json, Lines
from twistedsock.errors import TOO_MANY_CHANNELS, TOO_MANY_CONNECTIONS, TOO_MANY_FROM_ADDRESS

TARGETS: dict[str, Target] = {
    "lines": Target(Lines(), ("127.0.0.1", 8081)),
    "websocket": Target(Json(), ("127.0.0.1", 8082)),
}


def given(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.add_options(parser)
    return parser.parse_args(words)


def said(*words: str) -> str:
    """What it says, when it can measure nothing."""
    out, error = StringIO(), StringIO()
    assert bench.run(given(*words), out, error) == 1
    assert out.getvalue() == ""
    return error.getvalue()


@pytest.mark.parametrize("place", ["192.0.2.1:8081", "[2001:db8::1]:8081", "0.0.0.0:8081"])
@pytest.mark.parametrize("option", ["--lines", "--web"])
def test_another_machine_is_not_loaded_by_mistake(option: str, place: str) -> None:
    other = "--web" if option == "--lines" else "--lines"
    words = said(option, place, other, "none")
    assert f"{place} is not on this machine" in words
    assert "--remote" in words
    assert words.count("\n") == 1


def test_both_left_out_is_nothing() -> None:
    assert "nothing to measure" in said("--lines", "none", "--web", "none")


@pytest.mark.parametrize("place", ["8081", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1"])
def test_a_place_has_a_host_and_a_port(place: str) -> None:
    assert "this is not HOST:PORT" in said("--lines", place)


@pytest.mark.parametrize(
    "words",
    [
        ("--readers", "0"),
        ("--readers", "1.5"),
        ("--size", "10"),
        ("--rate", "nan"),
        ("--seconds", "11"),
        ("--seconds", "x"),
        ("--pid", "-1"),
    ],
)
def test_every_number_has_bounds(words: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        given(*words)
    assert f"error: argument {words[0]}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        (f"ERR limit {TOO_MANY_FROM_ADDRESS.message}\n", "--max-connections-per-address,"),
        (f"HTTP/1.1 503 Service Unavailable\r\n\r\n{TOO_MANY_CONNECTIONS.message}", "--max-connections,"),
        (f"ERR limit {TOO_MANY_CHANNELS.message}\n", "--max-channels,"),
    ],
)
def test_a_limit_that_is_hit_is_named(answer: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*arguments: object) -> None:
        raise Refused(answer.encode())

    monkeypatch.setattr(bench, "_measure", measure)
    assert f"Start it with a larger {option}" in said()


def test_a_ping_in_between_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*arguments: object) -> None:
        stream = Stream(None, Expected([b"a"], foretold=True), "websocket reader", None)  # type: ignore[arg-type]
        stream.take(b"\x89\x0c" + bytes(12))

    monkeypatch.setattr(bench, "_measure", measure)
    assert "--ping-interval" in said()


def test_an_interruption_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "_measure", measure)
    error = StringIO()
    assert bench.run(given(), StringIO(), error) == 130
    assert error.getvalue() == "sockbridge bench: interrupted\n"


def test_every_row_is_measured_over_each_wire() -> None:
    titles = [row.title for row in rows(TARGETS, 100, 50, 32, 200.0)]
    assert titles == [
        *("1 to 100, lines", "1 to 100, websocket", "50 pairs, lines", "50 pairs, websocket"),
        *("1 to 100, lines, 200 events a second", "1 to 100, websocket, 200 events a second"),
    ]
    assert all("websocket" not in row.title for row in rows({"lines": TARGETS["lines"]}, 1, 1, 32, 1.0))


def test_the_table_is_for_people() -> None:
    flat, *_, paced, _ = rows(TARGETS, 100, 50, 32, 200.0)
    latencies = {"p50": 0.0005, "p90": 0.001, "p99": 0.002, "p99.9": 0.01, "max": 0.02}
    found = [(flat, Figures(2_000_000, 1.0, 0.95, 0.1)), (paced, Figures(20_000, 1.0, 0.1, None, latencies))]
    assert table(found).splitlines() == [
        "                                      deliveries a second  a CPU second  CPU a delivery  generator",
        "1 to 100, lines                                 2,000,000    20,000,000        0.050 us        95%",
        "1 to 100, lines, 200 events a second               20,000             -               -        10%",
        "",
        "latency in microseconds               p50    p90    p99   p99.9     max",
        "1 to 100, lines, 200 events a second  500  1,000  2,000  10,000  20,000",
        "",
        "Where the generator was busy for 90% of the time or more, it is what was measured.",
    ]


def test_channels_are_new_each_time() -> None:
    name = fresh_names("5f2c1a7b")
    assert [name(), name()] == ["bench-5f2c1a7b-1", "bench-5f2c1a7b-2"]


def test_a_target_writes_its_host_as_http_does() -> None:
    assert Target(Json(), ("::1", 8082)).host == "[::1]:8082"
    assert TARGETS["websocket"].host == "127.0.0.1:8082"
