"""Rounds, ratios, bars and the report."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench import report
from bench.bars import BARS, Bar
from bench.pictures import pictures
from bench.results import Range, Record, Results, read
from bench.servers import servers
from bench.workloads import GROUPS, WORKLOADS, Kind, Workload
from twistedsock.bench.measurement import PERCENTILES


def results(*figures: tuple[str, str, int, dict[str, float | str]]) -> Results:
    return Results({"rounds": 3}, [Record(*each) for each in figures])


RATES = results(
    ("fan-out-100", "sockbridge", 1, {"rate": 100.0, "per_cpu": 10.0}),
    ("fan-out-100", "nats", 1, {"rate": 50.0, "per_cpu": 5.0}),
    ("fan-out-100", "sockbridge", 2, {"rate": 300.0, "per_cpu": 10.0}),
    ("fan-out-100", "nats", 2, {"rate": 60.0, "per_cpu": 5.0}),
    ("fan-out-100", "sockbridge", 3, {"rate": 120.0, "per_cpu": 10.0}),
    ("fan-out-100", "nats", 3, {"rate": 30.0, "per_cpu": 5.0}),
    ("fan-out-100", "sockbridge", 4, {"rate": 1.0}),
)
FAN_OUT = BARS[0]


def everything() -> Results:
    """A value for each measurement."""
    load = {"rate": 1e6, "per_cpu": 2e6, "cost": 0.5, "busy": 0.95, "memory": 60.0}
    found = Results({"rounds": 1, "versions": {"nats": "2.9"}, "capacity": 150_000.0})
    for workload in WORKLOADS:
        for server in servers():
            if workload.has(server):
                more = dict.fromkeys(PERCENTILES, 500.0) if workload.group == "paced" else {}
                kinds: dict[Kind, dict[str, float | str]] = {
                    Kind.CONNECTIONS: {**load, "memory_each": 2.25},
                    Kind.RESTART: {**load, "pages": 10_000.0, "seconds": 2.5},
                    Kind.STALLED: {"growth": 12.0, "cut": 0, "note": "it | all"},
                }
                figures = kinds.get(workload.kind, {**load, **more})
                found.records.append(Record(workload.name, server.name, 1, figures))
    return found


def test_ratio_is_computed_within_a_round() -> None:
    assert RATES.ratio("fan-out-100", "sockbridge", "nats", "rate") == Range(4.0, 2.0, 5.0)
    assert RATES.range("fan-out-100", "nats", "rate") == Range(50.0, 30.0, 60.0)
    assert RATES.ratio("fan-out-100", "sockbridge", "redis", "rate") is None
    assert RATES.range("fan-out-1", "nats", "rate") is None


def test_records_can_be_read_back(tmp_path: Path) -> None:
    RATES.write(tmp_path / "new" / "run.jsonl")
    assert read(tmp_path / "new" / "run.jsonl") == RATES


def test_median_decides_whether_a_bar_is_met() -> None:
    assert FAN_OUT.threshold == "at least 4x nats"
    assert FAN_OUT.is_met(RATES) is True
    assert Bar("", "fan-out-100", "rate", "nats", least=4.1).is_met(RATES) is False
    assert Bar("", "fan-out-100", "rate", "nats", most=4).is_met(RATES) is True
    assert Bar("", "fan-out-100", "rate", "nats", most=3.9).is_met(RATES) is False
    assert Bar("", "fan-out-100", "rate", most=110, unit="a second").threshold == "at most 110 a second"
    assert Bar("", "fan-out-100", "rate", "redis", most=3.9).is_met(RATES) is None


def test_bar_is_missed_if_the_live_subscriber_lost_events() -> None:
    (bar,) = (bar for bar in BARS if bar.workload == "stalled-tcp")
    kept = {"growth": 5.0, "lost": 0.0}
    assert bar.is_met(results(("stalled-tcp", "sockbridge", 1, kept))) is True
    assert bar.is_met(results(("stalled-tcp", "sockbridge", 1, {**kept, "lost": 1.0}))) is False


def test_each_bar_belongs_to_a_measured_workload() -> None:
    found = everything()
    assert all(bar.is_met(found) is not None for bar in BARS)


def test_report_shows_bars_with_ratios() -> None:
    text = report.text(RATES, [("A picture", "a.svg")])
    row = "| fan-out 1 to 100 over lines, deliveries a second | at least 4x nats | 4x (2–5) | met | 2x a CPU second |"
    assert row in text
    assert "![A picture](a.svg)" in text


@pytest.mark.parametrize("busy", ["sockbridge", "nats"])
def test_bar_by_time_marks_a_busy_generator(busy: str) -> None:
    """The ratio by CPU time is valid nevertheless."""
    figures = [
        ("fan-out-100", name, 1, {"rate": 4.0, "per_cpu": 2.0, "busy": 0.95 if name == busy else 0.5})
        for name in ("sockbridge", "nats")
    ]
    assert "| 1x † | **missed** | 1x a CPU second |" in report.text(results(*figures), [])


def test_report_shows_each_workload_and_marks_a_busy_generator() -> None:
    text = report.text(everything(), [])
    for workload in WORKLOADS:
        first = next(server for server in servers() if workload.has(server))
        assert f"| {workload.title}, {first.name} |" in text
    for title in GROUPS.values():
        assert f"## {title}" in text
    assert "1.00 M †" in text
    assert "it \\| all" in text
    assert "1 to 5,000, ws" not in text, "it has no TCP wire of its own"


def test_report_lists_failures() -> None:
    found = Results({}, [Record("pairs-tcp", "redis", 2, error="Wrong: a | came\nwhere b")])
    assert "| pairs-tcp | redis | 2 | Wrong: a \\| came where b |" in report.text(found, [])


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0"), (0.0123, "0.012"), (0.5, "0.5"), (2.254, "2.25"), (123.4, "123"), (12_345, "12,345"), (2.5e7, "25.0 M")],
)
def test_numbers_have_significant_digits_only(value: float, words: str) -> None:
    assert report.number(value) == words


def test_each_table_row_has_all_columns() -> None:
    tables = [part for part in report.text(everything(), []).split("\n\n") if part.startswith("|")]
    assert len(tables) == len(GROUPS) + 2  # the bars, and the latencies
    for one in tables:
        assert len({line.replace("\\|", "").count("|") for line in one.splitlines()}) == 1


def test_pictures_are_well_formed_and_labelled(tmp_path: Path) -> None:
    places = report.Places(tmp_path / "RESULTS.md", tmp_path / "images")
    report.write(everything(), places)
    files = sorted((tmp_path / "images").glob("bench-*.svg"))
    assert len(files) == len(pictures(everything())) == 12
    for file in files:
        root = ElementTree.parse(file).getroot()
        title, words = root[0], root[1]
        assert (title.tag, words.tag) == ("{http://www.w3.org/2000/svg}title", "{http://www.w3.org/2000/svg}desc")
        assert title.text and words.text and "sockbridge" in words.text
        assert f"![{title.text}](images/{file.name})" in places.report.read_text()
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        for part in root.iter():
            assert 0 <= float(part.get("x", 0)) <= width, part.attrib
            assert 0 <= float(part.get("y", 0)) <= height, part.attrib
            if part.get("text-anchor") == "start":  # half the height is about what a letter takes
                end = float(part.attrib["x"]) + len(part.text or "") * float(part.attrib["font-size"]) / 2
                assert end <= width, part.text


def test_missing_measurements_are_not_drawn() -> None:
    assert set(pictures(RATES)) == {"fan-out"}


def test_workloads_have_unique_names_and_a_group() -> None:
    assert len({workload.name for workload in WORKLOADS}) == len(WORKLOADS)
    assert {workload.group for workload in WORKLOADS} == GROUPS.keys()


def test_server_takes_part_if_it_supports_the_protocols() -> None:
    by_name = {server.name: server for server in servers()}

    def who(name: str) -> str:
        (workload,) = (one for one in WORKLOADS if one.name == name)
        return " ".join(server.name for server in by_name.values() if workload.has(server))

    assert who("fan-out-1") == "sockbridge nats redis mosquitto floor bare"
    assert who("channels-1") == "sockbridge nats redis mosquitto floor"
    assert (
        who("tcp-to-websocket-100") == "sockbridge nats mosquitto bun nchan socketio ws websockets crossbar floor bare"
    )
    assert who("websocket-to-tcp") == "sockbridge nats mosquitto floor bare"
    assert who("packets-tcp") == "sockbridge nats nats-debian redis floor bare"
    assert who("packets-websocket") == "sockbridge nats nats-debian nchan floor bare"
    assert who("socketio-100") == "sockbridge socketio"
    assert who("restart") == "sockbridge sockbridge-state nats mosquitto bun socketio ws websockets floor"
    assert who("stalled-tcp") == "sockbridge nats redis mosquitto"


def test_small_workload_keeps_its_kind() -> None:
    for workload in WORKLOADS:
        small: Workload = workload.small()
        assert small.kind is workload.kind
        assert small.readers * small.channels * small.publishers <= 2_000
        if small.kind is Kind.SPREAD:
            connections = min(1_000, small.channels * small.readers)
            assert small.channels * small.readers % connections == 0
