"""The values that dialects are given, and that each dialect there is has all that the rules ask for."""

import inspect

import pytest

from twistedsock.codecs.encoders import JSON_IN_MESSAGES, LINES, LINES_IN_MESSAGES
from twistedsock.errors import CloseReason
from twistedsock.pubsub.values import Position
from twistedsock.session.encoder import Encoder

ASKED = [name for name, value in vars(Encoder).items() if inspect.isfunction(value) and not name.startswith("_")]


def test_endings_are_websocket_close_codes() -> None:
    assert {ending.name: int(ending) for ending in CloseReason} == {
        "NORMAL": 1000,
        "GOING_AWAY": 1001,
        "POLICY": 1008,
        "TRY_AGAIN": 1013,
    }


def test_a_position_is_a_value() -> None:
    assert Position(b"e1", 3) == Position(b"e1", 3) != Position(b"e2", 3)


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("dialect", [LINES, LINES_IN_MESSAGES, JSON_IN_MESSAGES], ids=["lines", "messages", "json"])
def test_a_dialect_writes_all_that_the_rules_say(dialect: object, name: str) -> None:
    asked = inspect.signature(getattr(Encoder, name)).parameters
    assert [*asked][1:] == [*inspect.signature(getattr(dialect, name)).parameters]
