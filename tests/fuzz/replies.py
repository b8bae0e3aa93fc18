"""Predicts the replies that a client must receive, and their order, from the documentation of the two protocols."""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from twistedsock.codecs.line_encoder import QuietLineEncoder
from twistedsock.session import commands
from twistedsock.session.commands import InvalidCommand, Publish

KINDS: dict[type, str] = {
    Publish: "publish",
    commands.Subscribe: "subscribe",
    commands.Unsubscribe: "unsubscribe",
    commands.ReadHistory: "history",
    commands.Who: "who",
    commands.ListChannels: "list",
    commands.Nick: "nick",
    commands.Auth: "auth",
    commands.Ping: "ping",
    commands.Info: "info",
}
"""The ``type`` of each command."""

Match = Callable[[Any], bool]
Expected = tuple[Match, bool]
"""A test that the expected reply passes, and whether the reply is optional."""

ANY_ERROR = r"ERR (bad-channel|bad-name|bad-argument|limit|not-subscribed|unavailable|unauthorized|forbidden) "
REPLIES = ("OK", "ERR", "PONG", "BYE", "ok", "error", "pong")
LINE_REPLIES: dict[type, str] = {
    Publish: rf"OK [0-9]+$|{ANY_ERROR}",
    commands.Subscribe: rf"OK \S+ offset=[0-9]+ epoch=\S+( recovered=(yes|no)( since=[0-9]+)?)?$|{ANY_ERROR}",
    commands.Unsubscribe: rf"OK \S+$|{ANY_ERROR}",
    commands.ReadHistory: rf"OK [0-9]+$|{ANY_ERROR}",
    commands.Who: rf"OK [0-9]+$|{ANY_ERROR}",
    commands.ListChannels: rf"OK [0-9]+ total=[0-9]+( next=\S+)?$|{ANY_ERROR}",
    commands.Nick: rf"OK \S+$|{ANY_ERROR}",
    commands.Auth: rf"OK \S+( expires=[0-9]+)?$|{ANY_ERROR}",
    commands.Ping: r"PONG( |$)",
    commands.Info: r"OK id=",
    commands.Reply: r"OK$",
    commands.Quit: r"BYE$",
}
"""A regular expression for the reply to each command."""
ANY_REPLY = rf"OK( |$)|{ANY_ERROR}"


class ExpectedReplies:
    """The expected replies to the commands of one client. Each command was decoded by itself."""

    def __init__(self) -> None:
        self._expected: list[Expected] = []
        self._quiet = False
        self.has_quit = False

    def add_command(self, command: Any, is_json: bool) -> None:
        """Expect the replies to a command. Commands after QUIT have none."""
        if self.has_quit or command is None or isinstance(command, commands.Notice):
            return
        if isinstance(command, Publish):
            for tag in command.tags:
                self._expected.append(self._json_reply(command, tag) if is_json else self._line_reply(command))
        else:
            self._expected.append(self._json_reply(command, command.tag) if is_json else self._line_reply(command))
        if isinstance(command, commands.Reply) and command.encoder is not None:
            self._quiet = isinstance(command.encoder, QuietLineEncoder)
        self.has_quit = isinstance(command, commands.Quit)

    def _line_reply(self, command: Any) -> Expected:
        if isinstance(command, InvalidCommand):
            code = command.error.code.value.decode()
            return lambda reply: reply.startswith(f"ERR {code} "), False
        if isinstance(command, Publish) and self._quiet:
            return lambda reply: re.match(ANY_ERROR, reply) is not None, True
        return lambda reply: re.match(LINE_REPLIES.get(type(command), ANY_REPLY), reply) is not None, False

    @staticmethod
    def _json_reply(command: Any, tag: bytes | None) -> Expected:
        id = None if tag is None else json.loads(tag, parse_int=str)
        if isinstance(command, InvalidCommand):
            code = command.error.code.value.decode()
            return lambda reply: (reply["type"], reply.get("id"), reply.get("code")) == ("error", id, code), False
        kind = KINDS.get(type(command), "")
        success = "pong" if kind == "ping" else "ok"
        if tag is None and kind not in ("history", "who", "list", "info", "ping"):
            return lambda reply: reply["type"] == "error" and "id" not in reply, True
        return lambda reply: reply["type"] in (success, "error") and reply.get("id") == id, False

    def match(self, replies: Sequence[Any], closed: bool) -> bool:
        """Whether these are all expected replies, in order. If the connection was ``closed``, the last ones can be
        missing. ``counts`` has the numbers of replies that can have matched so far: optional replies make several."""
        counts = {0}
        for match, optional in self._expected:
            more = {index + 1 for index in counts if index < len(replies) and match(replies[index])}
            if closed and len(replies) in counts:
                return True
            counts = (counts | more) if optional else more
            if not counts:
                return False
        return len(replies) in counts


def select_replies(messages: Sequence[Any]) -> list[Any]:
    """The replies among the messages that a client received."""
    return [
        message
        for message in messages
        if (message["type"] if isinstance(message, dict) else message.split(" ")[0]) in REPLIES
    ]
