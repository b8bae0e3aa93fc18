"""Any message is decoded."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.grammars import MESSAGES, SOUND
from tests.fuzz.properties import holds, reject_constant, split_publications
from tests.fuzz.replies import KINDS
from twistedsock.codecs.json_decoder import decode, decode_alike
from twistedsock.codecs.times import parse_moment
from twistedsock.errors import ErrorCode
from twistedsock.pubsub.values import JSON
from twistedsock.session import commands
from twistedsock.session.commands import MAX_OFFSET, Command, InvalidCommand, Publish
from twistedsock.session.history_query import Moment


def read(message: bytes) -> Any:
    """The message as Python decodes it, strictly, with numbers as they were written."""
    return json.loads(message, parse_int=Number, parse_float=Real, parse_constant=reject_constant)


class Number(str):
    """A number as it was written."""


class Real(Number):
    """A number with a fraction or an exponent."""


def counted(asked: dict[str, Any], field: str) -> int | None:
    value = asked.get(field)
    if value is None:
        return None
    assert isinstance(value, Number) and 0 <= int(value) <= MAX_OFFSET
    return int(value)


@holds(examples=150, message=SOUND | st.text().map(str.encode) | st.binary())
def test_any_message(message: bytes) -> None:
    """Any bytes are decoded to a command with the values of its fields and the id as it was written, or to an error
    with a known code and the id."""
    command = decode(message)
    assert isinstance(command, Command)
    if isinstance(command, InvalidCommand):
        assert command.error.code in (ErrorCode.BAD_JSON, ErrorCode.BAD_TYPE, ErrorCode.BAD_ARGUMENT)
        if command.error.code is ErrorCode.BAD_JSON:
            return
    asked = read(message)
    tag = command.tags[0] if isinstance(command, Publish) else command.tag  # type: ignore[union-attr]
    if tag is not None:
        assert read(tag) == asked["id"] and isinstance(asked["id"], str) and not isinstance(asked["id"], Real)
    if isinstance(command, InvalidCommand):
        return
    assert ("id" in asked) is (tag is not None)
    assert KINDS[type(command)] == asked["type"]
    if hasattr(command, "channel"):
        assert command.channel.decode() == asked["channel"]
    if isinstance(command, Publish):
        (payload,) = command.payloads.items
        is_json = command.payloads.kind is JSON
        assert is_json is (not isinstance(asked["data"], str) or isinstance(asked["data"], Number))
        assert (read(payload) if is_json else payload.decode()) == asked["data"]
        assert command.name.decode() == asked.get("name", "message")
    elif isinstance(command, commands.Subscribe | commands.ReadHistory):
        numbers = command.query if isinstance(command, commands.ReadHistory) else command
        assert (numbers.last, numbers.since) == (counted(asked, "last"), counted(asked, "since"))
    if isinstance(command, commands.ReadHistory):
        for field, bound in (("after", command.query.after), ("before", command.query.before)):
            is_time = isinstance(bound, Moment)
            assert bound == (parse_moment(asked[field]) if is_time else counted(asked, field))
    if isinstance(command, commands.Subscribe):
        assert (command.epoch or b"").decode() == asked.get("epoch", "")
        assert (command.presence, command.echo) == (asked.get("presence", False), asked.get("echo", True))
    elif isinstance(command, commands.Auth):
        assert command.token.decode() == asked["token"]
    elif isinstance(command, commands.Nick):
        assert command.nick.decode() == asked["nick"]


@holds(examples=60, messages=MESSAGES)
def test_together(messages: list[bytes]) -> None:
    """Messages that are decoded together are the same commands as one by one."""
    for position, message in enumerate(messages, 1):
        command = decode(message)
        if isinstance(command, Publish) and (alike := decode_alike(command, messages, position)) is not None:
            alone = [decode(message) for message in messages[position : position + len(alike.tags)]]
            assert split_publications([alike]) == split_publications(alone)
