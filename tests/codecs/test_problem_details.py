"""Errors of the HTTP API."""

import json

import pytest

from twistedsock.codecs.problem_details import HTTP_STATUS, ApiError, problem_details
from twistedsock.errors import BAD_CHANNEL, TOO_FAST, Error, ErrorCode


def test_every_code_has_a_status() -> None:
    assert HTTP_STATUS.keys() == set(ErrorCode)
    assert all(400 <= status < 600 for status in HTTP_STATUS.values())


@pytest.mark.parametrize("code", ErrorCode)
def test_problem_has_code_and_message(code: ErrorCode) -> None:
    problem = json.loads(problem_details(Error(code, 'no "such" thing'), HTTP_STATUS[code]))
    assert problem["code"] == code.decode() and problem["status"] == HTTP_STATUS[code]
    assert (problem["type"], problem["detail"]) == ("about:blank", 'no "such" thing')


def test_title_is_the_phrase_of_the_status() -> None:
    assert json.loads(problem_details(TOO_FAST, 429))["title"] == "Too Many Requests"


def test_api_error_has_message_and_status() -> None:
    refused = ApiError(BAD_CHANNEL)
    assert (refused.error, refused.status, str(refused)) == (BAD_CHANNEL, None, BAD_CHANNEL.message)
    assert ApiError(BAD_CHANNEL, 404).status == 404
