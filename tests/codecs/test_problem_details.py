"""Errors of the HTTP API."""

import json

import pytest

from twistedsock.codecs.problem_details import (
    HTTP_STATUS,
    MAX_SHOWN_PATH_BYTES,
    ApiError,
    method_not_allowed,
    problem_details,
    unknown_path,
)
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


@pytest.mark.parametrize(
    ("path", "channel"),
    [
        ("/kitchen", "kitchen"),
        ("/kitchen/", "kitchen"),
        ("/channels/kitchen", "kitchen"),
        ("/channels/kitchen/event", "kitchen"),
        ("/house/kitchen", "house/kitchen"),
        ("/caf%C3%A9", "caf%C3%A9"),
        ("/", "{channel}"),
        ("/channels/", "{channel}"),
        ("/channels/events", "events"),
        ("/no%20channel", "{channel}"),
        ("/%ff", "{channel}"),
        ("/$sys/figures", "{channel}"),
    ],
)
def test_unknown_path_names_the_request_that_publishes(path: str, channel: str) -> None:
    hint = f"publish with POST /channels/{channel}/events, all addresses are in /openapi.json"
    assert unknown_path(path.encode()).message == f"unknown path {path}: {hint}"


@pytest.mark.parametrize(
    "path", [b"/<script>", b"/'", b'/"', b"/a b", b"/a\x1b[31m", b"/caf\xe9", b"/" + b"x" * MAX_SHOWN_PATH_BYTES, b"*"]
)
def test_does_not_repeat_paths_that_are_long_or_need_escaping(path: bytes) -> None:
    assert unknown_path(path).message.startswith("unknown path: publish with POST /channels/{channel}/events")


def test_method_that_is_not_allowed_names_those_that_are() -> None:
    error = method_not_allowed(b"/channels/kitchen/members", b"GET, HEAD")
    assert error.message == "method not allowed: use GET, HEAD, or publish with POST /channels/kitchen/events"
    assert method_not_allowed(b"/healthz", b"GET").message.endswith("publish with POST /channels/{channel}/events")
