"""Tests of commands: their default values, and that they are immutable."""

from typing import Any, get_args

import pytest

from twistedsock.pubsub.values import Payloads
from twistedsock.session import commands
from twistedsock.session.commands import MAX_OFFSET, Command


def test_largest_offset_is_exact_in_javascript() -> None:
    assert MAX_OFFSET == 9_007_199_254_740_991


@pytest.mark.parametrize(
    "command, given",
    [
        (commands.Publish(b"c", Payloads((b"x",), 1)), {"name": b"message", "tags": (None,)}),
        (
            commands.Subscribe(b"c"),
            {"last": None, "since": None, "epoch": None, "presence": False, "echo": True, "tag": None},
        ),
        (commands.Unsubscribe(b"c"), {"tag": None}),
        (commands.ReadHistory(b"c"), {"last": None, "since": None, "tag": None}),
        (commands.Who(b"c"), {"tag": None}),
        (commands.Nick(b"ann"), {"tag": None}),
        (commands.Auth(b"secret"), {"tag": None}),
        (commands.Ping(), {"text": b"", "tag": None}),
        (commands.Info(), {"tag": None}),
        (commands.Reply(b"OK\n"), {"encoder": None}),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, dict) else "",
)
def test_default_values(command: Any, given: dict[str, object]) -> None:
    assert {field: getattr(command, field) for field in given} == given


@pytest.mark.parametrize("kind", get_args(Command), ids=lambda kind: kind.__name__)
def test_commands_are_immutable(kind: type) -> None:
    values: Any = [b"x"] * len([field for field in kind.__struct_fields__])
    command = kind(*values)
    with pytest.raises(AttributeError):
        setattr(command, next(iter(kind.__struct_fields__), "tag"), b"y")


def test_repr_does_not_contain_the_token() -> None:
    command = commands.Auth(b"secret", b"7")
    assert "secret" not in f"{command} {command!r}"
    assert "7" in repr(command)
