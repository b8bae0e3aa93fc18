"""The catalogue of errors, and its table in the reference."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from twistedsock import errors
from twistedsock.codecs.problem_details import HTTP_STATUS
from twistedsock.codecs.websocket import CLOSE_CODES
from twistedsock.errors import CloseReason, Error, ErrorCode

ERRORS = {name: value for name, value in vars(errors).items() if isinstance(value, Error)}

MESSAGES = {name: value.decode() for name, value in vars(errors).items() if isinstance(value, bytes)} | {
    name: error.message for name, error in ERRORS.items()
}

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "errors.md"


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of the table under a heading of the reference."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return iter([[cell.strip().strip("`") for cell in line.split("|")[1:-1]] for line in lines[2:]])


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_are_phrases_in_one_line(name: str) -> None:
    message = MESSAGES[name]
    assert message.isprintable() and message and message[0].islower() and not message.endswith(".")


@pytest.mark.parametrize("name", MESSAGES)
def test_messages_mention_no_command_or_number_of_a_protocol(name: str) -> None:
    assert not re.search(r"\b[A-Z]{3,}\b(?<!UTF)|\b[45]\d\d\b|\b10\d\d\b", MESSAGES[name])


def test_reference_lists_all_messages() -> None:
    assert [tuple(row) for row in rows("Common messages")] == [
        (error.code.decode(), error.message) for error in ERRORS.values()
    ]


def test_reference_lists_all_close_codes() -> None:
    assert {int(code) for code, *_ in rows("Why the server closes a connection")} == set(CLOSE_CODES.values())
    assert CLOSE_CODES.keys() == set(CloseReason)


def test_every_code_has_a_status() -> None:
    assert HTTP_STATUS.keys() == set(ErrorCode)
