"""Every refusal has a status, and is told as RFC 9457 wants it."""

import json

import pytest

from twistedsock.core.errors import BAD_CHANNEL, TOO_FAST, Code, Refusal
from twistedsock.wire.problems import STATUS, Refused, problem


def test_every_code_has_a_status() -> None:
    assert STATUS.keys() == set(Code)
    assert all(400 <= status < 600 for status in STATUS.values())


@pytest.mark.parametrize("code", Code)
def test_a_problem_says_what_a_dialect_says(code: Code) -> None:
    told = json.loads(problem(Refusal(code, 'no "such" thing'), STATUS[code]))
    assert told["code"] == code.decode() and told["status"] == STATUS[code]
    assert (told["type"], told["detail"]) == ("about:blank", 'no "such" thing')


def test_the_title_is_that_of_the_status() -> None:
    assert json.loads(problem(TOO_FAST, 429))["title"] == "Too Many Requests"


def test_an_operation_can_end_with_a_refusal() -> None:
    refused = Refused(BAD_CHANNEL)
    assert (refused.refusal, refused.status, str(refused)) == (BAD_CHANNEL, None, BAD_CHANNEL.words)
    assert Refused(BAD_CHANNEL, 404).status == 404
