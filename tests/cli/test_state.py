"""`sockbridge state`: what it shows, verifies, exports, imports and compacts."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from twistedsock.backplanes.sqlite_damage import sign, verify
from twistedsock.backplanes.sqlite_store import Addition, Store
from twistedsock.cli import event_files, state_actions
from twistedsock.pubsub.values import BYTES, JSON, TEXT, Batch, PayloadKind, Payloads

NOON = 1_795_953_600_000
"""2026-11-29T12:00:00Z, before the tests run."""


def batch(first: int, *items: bytes, kind: PayloadKind = TEXT, time: int = NOON) -> Batch:
    payloads = Payloads(items, sum(map(len, items)), kind)
    return Batch(first, first + len(items), b"p1", b"ann", b"message", payloads, time)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A directory with two channels that is not in use. A test opens it as a server does."""
    store = Store(tmp_path / "state", lambda: b"e1")
    store.open()
    kitchen = [batch(1, b"hello", b'"quoted", x\n')], [batch(3, b'{"a":\n1}', kind=JSON, time=NOON + 1_500)]
    attic = [batch(1, b"21.5 \xe2\x82\xac", time=NOON + 500)]
    additions = [*(Addition(b"kitchen", b"e1", row) for row in kitchen), Addition(b"attic", b"e1", attic)]
    store.append(additions)
    store.close()
    yield store
    store.close()


@pytest.fixture
def change(store: Store, tmp_path: Path) -> Callable[[str], None]:
    """Run a statement on the database. ``sign`` adds the checksum of a row, and ``bare`` removes it."""

    def change(statement: str) -> None:
        connection = sqlite3.connect(tmp_path / "state" / "events.sqlite")
        connection.create_function("sign", 2, sign)
        connection.create_function("bare", 2, verify)
        with connection:
            connection.execute(statement)
        connection.close()

    return change


LINES = [
    '{"offset":1,"time":"2026-11-29T12:00:00.000Z","from":"ann","name":"message","data":"hello"}',
    '{"offset":2,"time":"2026-11-29T12:00:00.000Z","from":"ann","name":"message","data":"\\"quoted\\", x\\n"}',
    '{"offset":3,"time":"2026-11-29T12:00:01.500Z","from":"ann","name":"message","data":{"a": 1}}',
]


# Summary.


@pytest.mark.usefixtures("store")
def test_shows_channels_events_bytes_and_times(run_command, tmp_path):
    size = (tmp_path / "state" / "events.sqlite").stat().st_size
    outcome = run_command("state", "state")
    assert (outcome.status, outcome.errors) == (0, "")
    assert outcome.out == (
        "directory  state, not used by a server\n"
        f"file       {size:,} bytes\n"
        "channels   2\n"
        "events     4 (33 bytes)\n"
        "oldest     2026-11-29T12:00:00.000Z\n"
        "newest     2026-11-29T12:00:01.500Z\n"
        "\n"
        "Largest channels\n"
        "  channel  events  bytes  oldest                    newest                    epoch  offset\n"
        "  kitchen       3     25  2026-11-29T12:00:00.000Z  2026-11-29T12:00:01.500Z  e1          3\n"
        "  attic         1      8  2026-11-29T12:00:00.500Z  2026-11-29T12:00:00.500Z  e1          1\n"
    )


def test_lists_only_the_largest_channels(run_command, store):
    store.open()
    store.append([Addition(b"c%d" % number, b"e1", [batch(1, b"x" * number)]) for number in range(30, 60)])
    store.close()
    outcome = run_command("state", "state").out
    rows = outcome.partition("Largest channels\n")[2].splitlines()[1:]
    assert "channels   32" in outcome
    assert [row.split()[0] for row in rows] == [f"c{number}" for number in range(59, 49, -1)]


def test_shows_and_exports_while_a_server_uses_the_directory(run_command, store):
    store.open()
    store.append([Addition(b"attic", b"e1", [batch(2, b"new", time=NOON + 900)])])
    outcome = run_command("state", "state").out
    assert "used by a server" in outcome and "not used" not in outcome and "events     5 (36 bytes)" in outcome
    assert run_command("state", "state", "export", "attic").out.splitlines()[1].endswith('"data":"new"}')


@pytest.mark.usefixtures("store")
def test_shows_a_directory_without_events(run_command, store, tmp_path):
    store.open()
    store.trim(NOON * 2, 0, b"e2")
    store.close()
    outcome = run_command("state", "state").out
    assert "channels   0\nevents     0 (0 bytes)\noldest     none\nnewest     none\n" in outcome
    assert "Largest" not in outcome


@pytest.mark.parametrize("words", [["verify"], ["compact"], ["import", "kitchen", "file"]])
def test_other_actions_need_a_stopped_server(error_of, store, tmp_path, words):
    store.open()
    (tmp_path / "file").write_text("")
    assert error_of("state", "state", *words) == "state is used by a server: stop it first"


@pytest.mark.parametrize("words", [[], ["verify"], ["export", "a"], ["compact"]])
def test_other_directories_are_an_error_and_stay_unchanged(error_of, tmp_path, words):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        assert error_of("state", name, *words) == f"{name} is no state directory: it has no file events.sqlite"
    assert not list((tmp_path / "empty").iterdir()) and not (tmp_path / "missing").exists()


def test_file_of_other_programs_or_versions_is_an_error(error_of, change, tmp_path):
    change("PRAGMA user_version = 99")
    assert error_of("state", "state") == "state/events.sqlite was written by a newer version of sockbridge"
    change("PRAGMA user_version = 0")
    assert error_of("state", "state") == "state/events.sqlite was written by another program"
    (tmp_path / "state" / "events.sqlite").write_bytes(b"x" * 10_000)
    assert error_of("state", "state") == "cannot read state/events.sqlite: file is not a database"


# Verify.


@pytest.mark.usefixtures("store")
def test_verifies_an_intact_directory(run_command):
    outcome = run_command("state", "state", "verify")
    assert (outcome.status, outcome.out, outcome.errors) == (0, "no faults found\n", "")


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("UPDATE batches SET data = x'93' WHERE last = 2", "channel kitchen: the row of event 2 cannot be read"),
        (
            "UPDATE batches SET data = sign(x'90', 2) WHERE last = 2",
            "channel kitchen: the row of event 2 ",
        ),
        (
            "UPDATE batches SET last = 7, data = sign(bare(data, 3), 7) WHERE last = 3",
            "channel kitchen: event 7 follows event 2",
        ),
        ("UPDATE channels SET head = 9 WHERE name = x'6174746963'", "channel attic: its newest event is 1 and not 9"),
        ("UPDATE channels SET time = 9 WHERE name = x'6174746963'", "channel attic: its row has a wrong checksum"),
        ("UPDATE batches SET size = 5 WHERE last = 2", "channel kitchen: the row of event 2 has a wrong size"),
        ("UPDATE batches SET time = 5 WHERE last = 2", "channel kitchen: the row of event 2 has a wrong time"),
        ("UPDATE batches SET channel = 7 WHERE last = 2", "rows without a channel: 1"),
        ("INSERT INTO large_data (data) VALUES (x'00')", "data without a row: 1"),
    ],
)
def test_verification_reports_faults_of_events(run_command, change, statement, fault):
    change(statement)
    outcome = run_command("state", "state", "verify")
    *faults, end = outcome.out.splitlines()
    assert outcome.status == 1 and any(line.startswith(fault) for line in faults), outcome.out
    assert end == f"damaged, faults: {len(faults)}"


def test_verification_reports_events_that_the_log_has_lost(run_command, change):
    change("DELETE FROM batches WHERE channel = 1")
    change("DELETE FROM channels WHERE id = 1")
    assert run_command("state", "state", "verify").out == (
        "events that were committed are missing: 3\ndamaged, faults: 1\n"
    )


def test_shows_damaged_files_that_were_set_aside(run_command, store, tmp_path):
    path = tmp_path / "state" / "events.sqlite"
    path.write_bytes(b"x" * 10_000)
    store.open()
    store.close()
    (aside,) = (tmp_path / "state").glob("*.damaged-*")
    assert f"set aside  {aside.name}\n" in run_command("state", "state").out


def test_import_into_a_damaged_channel_is_an_error(error_of, change, tmp_path):
    change("UPDATE channels SET time = 9 WHERE name = x'6174746963'")
    (tmp_path / "lines").write_text("")
    assert error_of("state", "state", "import", "attic", "lines").startswith("state cannot be used: ")


def test_verification_reports_times_that_decrease(run_command, store):
    store.open()
    store.append([Addition(b"attic", b"e1", [batch(2, b"x", time=NOON)])])
    store.close()
    assert run_command("state", "state", "verify").out == (
        "channel attic: the time of event 2 is before that of the event before it\ndamaged, faults: 1\n"
    )


def test_verification_reports_damaged_pages(run_command, store, tmp_path):
    store.open()
    store.append([Addition(b"attic", b"e1", [batch(n, b"x" * 500)]) for n in range(2, 200)])
    store.close()
    path = tmp_path / "state" / "events.sqlite"
    content = bytearray(path.read_bytes())
    content[-8192:-4096] = bytes(4096)
    path.write_bytes(content)
    outcome = run_command("state", "state", "verify")
    assert outcome.status == 1 and "damaged, faults: " in outcome.out
    assert "database: database disk image is malformed\nchannel attic: " in outcome.out


def test_export_and_summary_of_a_damaged_row_are_an_error(run_command, error_of, change):
    change("UPDATE batches SET data = x'93' WHERE last = 2")
    assert error_of("state", "state").startswith("state/events.sqlite is damaged: the row of event 2 cannot be read")
    assert error_of("state", "state", "export", "kitchen").startswith("state/events.sqlite is damaged")


# Export.


@pytest.mark.usefixtures("store")
def test_exports_json_lines(run_command):
    outcome = run_command("state", "state", "export", "kitchen")
    assert (outcome.status, outcome.errors) == (0, "")
    assert outcome.out.splitlines() == LINES
    assert json.loads(run_command("state", "state", "export", "attic").out)["data"] == "21.5 €"


@pytest.mark.usefixtures("store")
def test_exports_csv(run_command):
    assert run_command("state", "state", "export", "kitchen", "--format", "csv").out == (
        "offset,time,from,name,data\n"
        "1,2026-11-29T12:00:00.000Z,ann,message,hello\n"
        '2,2026-11-29T12:00:00.000Z,ann,message,"""quoted"", x\n"\n'
        '3,2026-11-29T12:00:01.500Z,ann,message,"{""a"": 1}"\n'
    )


def test_exports_more_events_than_are_read_at_once(run_command, store, monkeypatch):
    monkeypatch.setattr("twistedsock.backplanes.sqlite_reader.PAGE_BYTES", 500)
    store.open()
    store.append([Addition(b"attic", b"e1", [batch(n, b"x" * 100, time=NOON + 500)]) for n in range(2, 50)])
    lines = run_command("state", "state", "export", "attic").out.splitlines()
    assert [json.loads(line)["offset"] for line in lines] == list(range(1, 50))


@pytest.mark.usefixtures("store")
def test_exports_only_known_channels(error_of):
    assert error_of("state", "state", "export", "cellar") == "state has no channel cellar"


def test_export_ends_quietly_when_its_reader_has_ended(store, tmp_path):
    store.open()
    store.append([Addition(b"attic", b"e1", [batch(n, b"x" * 10_000, time=NOON + 500)]) for n in range(2, 100)])
    command = [Path(sys.executable).with_name("sockbridge"), "state", tmp_path / "state", "export", "attic"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_long_work_reports_its_progress(run_command, store, monkeypatch):
    monkeypatch.setattr(state_actions, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setattr("twistedsock.backplanes.sqlite_reader.INTERRUPTION_STEPS", 10)
    monkeypatch.setattr(state_actions, "LARGE_FILE_BYTES", 0)
    monkeypatch.setattr("twistedsock.backplanes.sqlite_store.TRIMMED_ROWS", 1)
    assert "read 2 channels, 33 bytes\n" in run_command("state", "state").errors
    assert "exported 3 events\n" in run_command("state", "state", "export", "kitchen").errors
    assert "verifying: 0 s\n" in run_command("state", "state", "verify").errors
    errors = run_command("state", "state", "compact", "--state-age", "0").errors
    assert "deleting old events: 0 s\n" in errors and "writing the file again: " in errors


# Import.


@pytest.mark.usefixtures("store")
def test_imports_what_it_exports(run_command, tmp_path):
    (tmp_path / "kitchen.jsonl").write_text(run_command("state", "state", "export", "kitchen").out)
    outcome = run_command("state", "state", "import", "copy", "kitchen.jsonl")
    assert (outcome.status, outcome.out, outcome.errors) == (0, "imported 3 events\n", "")
    assert run_command("state", "state", "export", "copy").out.splitlines() == LINES
    assert run_command("state", "state", "verify").status == 0


def test_bytes_are_exported_and_imported_as_base64(run_command, store, tmp_path):
    store.open()
    store.append([Addition(b"photos", b"e1", [batch(1, b"\xff\xd8", b"", kind=BYTES)])])
    store.close()
    exported = run_command("state", "state", "export", "photos").out
    assert [json.loads(line)["base64"] for line in exported.splitlines()] == ["/9g=", ""]
    assert run_command("state", "state", "export", "photos", "--format", "csv").out.splitlines()[1:] == [
        "1,2026-11-29T12:00:00.000Z,ann,message,/9g=",
        "2,2026-11-29T12:00:00.000Z,ann,message,",
    ]
    (tmp_path / "photos.jsonl").write_text(exported)
    assert run_command("state", "state", "import", "copy", "photos.jsonl").status == 0
    assert run_command("state", "state", "export", "copy").out == exported
    assert run_command("state", "state", "verify").status == 0


@pytest.mark.usefixtures("store")
def test_imported_events_get_the_next_offsets(run_command, tmp_path):
    (tmp_path / "more").write_text(f"{LINES[2]}\n\n{LINES[2]}\n")
    assert run_command("state", "state", "import", "attic", "more").status == 0
    lines = run_command("state", "state", "export", "attic").out.splitlines()
    assert [json.loads(line)["offset"] for line in lines] == [1, 2, 3]


@pytest.mark.usefixtures("store")
def test_import_needs_stdin(run_command, monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    result = run_command("state", "state", "import", "attic")
    assert (result.status, result.errors) == (1, "sockbridge state: standard input: closed\n")


def test_import_reads_stdin_and_writes_several_rows(run_command, store, monkeypatch, tmp_path):
    monkeypatch.setattr(event_files, "ROW_BYTES", 100)
    (tmp_path / "lines").write_text("\n".join(LINES))
    with (tmp_path / "lines").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert run_command("state", "state", "import", "copy").out == "imported 3 events\n"
    store.open()
    channel = store.read_channel(b"copy", 1, 10**6, 0)
    assert [batch.first for batch in channel.tail] == [3] and channel.position.offset == 3


OTHER = '{"time": "2026-11-29T13:00:00Z", "from": "ann", "name": "message", "data": 1}'


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("nonsense", "line 4: it is not a JSON object in UTF-8"),
        ("[]", "line 4: Expected `object`, got `array`"),
        (OTHER.replace('"data": 1', '"date": 1'), "line 4: it has neither data nor base64"),
        (OTHER.replace('"data": 1', '"base64": "/9g"'), "line 4: invalid base64: "),
        (OTHER.replace('"data": 1', '"base64": 1'), "line 4: Expected `str`, got `int`"),
        (OTHER.replace('"data": 1', '"data": 1, "base64": ""'), "line 4: it has both data and base64"),
        (OTHER.replace("13:", "25:"), "line 4: invalid time '2026-11-29T25:00:00Z': expected a time such as"),
        (OTHER.replace("2026-11-29T13:00:00Z", "-1h"), "line 4: invalid time '-1h': expected a time such as"),
        (OTHER.replace("2026", "2025"), "line 4: its time is before that of the event before it"),
        (OTHER.replace("2026", "9026"), "line 4: its time is in the future"),
        (OTHER.replace("ann", "a b"), "line 4: invalid nick"),
        (OTHER.replace("message", "a b"), "line 4: invalid event name"),
        (OTHER.replace(": 1}", ': "\\ud800"}'), "line 4: "),
        (OTHER.replace(": 1}", f": {'[' * 101}{']' * 101}}}"), "line 4: data too deep: at most 100 levels"),
        (OTHER.replace(": 1}", f': "{"x" * 1_000}"}}'), "line 4: it is too long to be an event"),
    ],
)
@pytest.mark.usefixtures("store")
def test_imports_nothing_if_a_line_is_not_valid(error_of, tmp_path, monkeypatch, line, error):
    monkeypatch.setattr(event_files, "MAX_LINE_BYTES", 1_000)
    monkeypatch.setattr(event_files, "ROW_BYTES", 1)
    (tmp_path / "bad").write_text("\n".join([*LINES, line]))
    assert error_of("state", "state", "import", "copy", "bad").startswith(error)
    assert error_of("state", "state", "export", "copy") == "state has no channel copy"


@pytest.mark.usefixtures("store")
def test_imports_only_into_channels_that_clients_can_use(error_of, tmp_path):
    (tmp_path / "lines").write_text("")
    assert "is a channel of the server itself" in error_of("state", "state", "import", "$sys/x", "lines")
    assert error_of("state", "state", "import", "a b", "lines").startswith("invalid channel")
    assert error_of("state", "state", "import", "a", "missing") == "missing: No such file or directory"


# Compact.


def test_compacts_without_deleting(run_command, change, store, tmp_path):
    store.open()
    store.append([Addition(b"attic", b"e1", [batch(n, b"x" * 5_000, time=NOON + 500)]) for n in range(2, 100)])
    store.close()
    change("DELETE FROM batches WHERE last < 90 AND size > 4000")
    before = (tmp_path / "state" / "events.sqlite").stat().st_size
    outcome = run_command("state", "state", "compact")
    after = (tmp_path / "state" / "events.sqlite").stat().st_size
    assert (outcome.status, outcome.errors) == (0, "")
    assert outcome.out == f"compacted from {before:,} to {after:,} bytes\n" and after < before / 4
    assert len(run_command("state", "state", "export", "kitchen").out.splitlines()) == 3


@pytest.mark.parametrize("limit", [("--state-age", "60"), ("--state-bytes", "1")])
@pytest.mark.usefixtures("store")
def test_compacts_to_limits(run_command, limit):
    assert run_command("state", "state", "compact", *limit).status == 0
    assert "events     0 (0 bytes)" in run_command("state", "state").out


@pytest.mark.usefixtures("store")
def test_compact_rejects_limits_that_are_no_numbers(run_command):
    outcome = run_command("state", "state", "compact", "--state-age", "30d")
    assert outcome.status == 2 and "'30d' is not a whole number" in outcome.errors


@pytest.mark.parametrize("action", ["verify", "export", "import", "compact"])
def test_each_action_has_help(run_command, action):
    outcome = run_command("state", "state", action, "--help")
    assert outcome.status == 0 and f"usage: sockbridge state DIR {action}" in outcome.out
    assert max(map(len, outcome.out.splitlines())) <= 80


def test_only_this_command_loads_sqlite():
    """Some builds of Python lack it."""
    program = "import sys; import twistedsock.cli.main; sys.exit('sqlite3' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.usefixtures("store")
def test_python_without_sqlite_is_an_error(error_of, monkeypatch):
    monkeypatch.delitem(sys.modules, "twistedsock.cli.state_actions")
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    monkeypatch.delitem(sys.modules, "twistedsock.backplanes.sqlite_reader")
    assert error_of("state", "state").startswith("this Python has no SQLite: ")
