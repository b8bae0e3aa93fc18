"""Reports are checked completely, and one failed case is enough."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.report import Broken, Outcome, read_outcomes, table, verdict

FINE = {"1.1.1": ("OK", "OK"), "7.1.6": ("INFORMATIONAL", "INFORMATIONAL"), "10.1.1": ("OK", "OK")}


def write(folder: Path, cases: dict[str, tuple[str, str]], run: str = "run") -> None:
    """A report as the suite writes it."""
    index = {}
    for case, (behavior, closing) in cases.items():
        index[case] = {"behavior": behavior, "behaviorClose": closing, "reportfile": f"{case}.json"}
        (folder / f"{case}.json").write_text(json.dumps({"result": f"words of {case}"}))
    (folder / "index.json").write_text(json.dumps({run: index}))


def read(folder: Path, more: dict[str, tuple[str, str]]) -> list[Outcome]:
    cases = FINE | more
    write(folder, cases)
    return read_outcomes(folder, "run", len(cases))


def test_passed_cases_are_a_success(tmp_path: Path) -> None:
    outcomes = read(tmp_path, {})
    assert [outcome.case for outcome in outcomes] == ["1.1.1", "7.1.6", "10.1.1"]
    words, success = verdict(outcomes)
    assert success
    assert words.endswith("All 3 cases are as they should be.")


@pytest.mark.parametrize(
    "told",
    [
        *(("OK", closing) for closing in ("FAILED", "UNCLEAN", "WRONG CODE", "FAILED BY CLIENT")),
        *((behavior, "OK") for behavior in ("FAILED", "UNIMPLEMENTED", "a new word")),
    ],
)
def test_failed_case_is_named(told: tuple[str, str], tmp_path: Path) -> None:
    words, success = verdict(read(tmp_path, {"5.3.1": told}))
    assert not success
    assert f"FAILED: 1 of 4\n  5.3.1 (run): {told[0]}, closing {told[1]}: words of 5.3.1" in words
    assert "as they should be" not in words


def test_non_strict_case_is_allowed_and_named(tmp_path: Path) -> None:
    words, success = verdict(read(tmp_path, {"6.4.1": ("NON-STRICT", "OK")}))
    assert success
    assert "NON-STRICT, which is allowed: 1\n  6.4.1 (run): NON-STRICT, closing OK: words of 6.4.1" in words


def test_declined_compression_is_allowed_and_named(tmp_path: Path) -> None:
    words, success = verdict(read(tmp_path, {"12.1.1": ("UNIMPLEMENTED", "OK"), "13.1.1": ("UNIMPLEMENTED", "OK")}))
    assert success
    assert "2 cases could not be tried, as the bridge refuses compression" in words


def test_unimplemented_case_must_close_cleanly(tmp_path: Path) -> None:
    assert not verdict(read(tmp_path, {"12.1.1": ("UNIMPLEMENTED", "UNCLEAN")}))[1]


def test_table_counts_by_run_and_group(tmp_path: Path) -> None:
    outcomes = read(tmp_path, {"1.1.2": ("OK", "OK"), "1.1.3": ("FAILED", "OK"), "1.1.4": ("OK", "UNCLEAN")})
    rows = [" ".join(row.split()) for row in table(outcomes).splitlines()]
    assert rows == [
        "run 1.* messages of all sizes 2 OK, 1 FAILED, 1 closing UNCLEAN",
        "run 7.* closing 1 INFORMATIONAL",
        "run 10.* fragments of its own 1 OK",
    ]


def truncate(index: Path) -> None:
    index.write_text(index.read_text()[:-5])


@pytest.mark.parametrize(
    ("spoil", "count", "words"),
    [
        (lambda index: None, 247, "run: 3 of 247 cases were run"),
        (lambda index: write(index.parent, {}), 0, "run: 0 of 0 cases were run"),
        (Path.unlink, 3, "cannot be read: FileNotFoundError"),
        (lambda index: write(index.parent, FINE, run="another"), 3, "cannot be read: KeyError"),
        (truncate, 3, "cannot be read: JSONDecodeError"),
    ],
    ids=["incomplete", "without cases", "missing", "of another server", "truncated"],
)
def test_rejects_other_reports(tmp_path: Path, spoil: Any, count: int, words: str) -> None:
    write(tmp_path, FINE)
    spoil(tmp_path / "index.json")
    with pytest.raises(Broken, match=words):
        read_outcomes(tmp_path, "run", count)
