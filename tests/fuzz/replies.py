"""Which replies a peer must hear, and in which order: written from the two protocols, not from the session."""

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
    commands.Nick: "nick",
    commands.Auth: "auth",
    commands.Ping: "ping",
    commands.Info: "info",
}
"""The ``type`` of each command."""

Match = Callable[[Any], bool]
Expected = tuple[Match, bool]
"""Whether a reply is the one that is due, and whether it may be left out."""

REFUSED = r"ERR (bad-channel|bad-name|bad-argument|limit|not-subscribed|unavailable|unauthorized|forbidden) "
REPLIES = ("OK", "ERR", "PONG", "BYE", "ok", "error", "pong")
LINE_REPLIES: dict[type, str] = {
    Publish: rf"OK [0-9]+$|{REFUSED}",
    commands.Subscribe: rf"OK \S+ offset=[0-9]+ epoch=\S+( recovered=(yes|no))?$|{REFUSED}",
    commands.Unsubscribe: rf"OK \S+$|{REFUSED}",
    commands.ReadHistory: rf"OK [0-9]+$|{REFUSED}",
    commands.Who: rf"OK [0-9]+$|{REFUSED}",
    commands.Nick: rf"OK \S+$|{REFUSED}",
    commands.Auth: rf"OK \S+( expires=[0-9]+)?$|{REFUSED}",
    commands.Ping: r"PONG( |$)",
    commands.Info: r"OK id=",
    commands.Reply: r"OK$",
    commands.Quit: r"BYE$",
}
"""Replies as regular expressions."""
ANY = rf"OK( |$)|{REFUSED}"


class Due:
    """The replies that the commands of one peer are due, as they were understood one by one."""

    def __init__(self) -> None:
        self._expected: list[Expected] = []
        self._quiet = False
        self.left = False

    def ask(self, asked: Any, is_json: bool) -> None:
        """A command was sent; one that came after QUIT is not answered."""
        if self.left or asked is None or isinstance(asked, commands.Notice):
            return
        if isinstance(asked, Publish):
            for tag in asked.tags:
                self._expected.append(self._of_json(asked, tag) if is_json else self._of_line(asked))
        else:
            self._expected.append(self._of_json(asked, asked.tag) if is_json else self._of_line(asked))
        if isinstance(asked, commands.Reply) and asked.encoder is not None:
            self._quiet = isinstance(asked.encoder, QuietLineEncoder)
        self.left = isinstance(asked, commands.Quit)

    def _of_line(self, asked: Any) -> Expected:
        if isinstance(asked, InvalidCommand):
            code = asked.error.code.value.decode()
            return lambda reply: reply.startswith(f"ERR {code} "), False
        if isinstance(asked, Publish) and self._quiet:
            return lambda reply: re.match(REFUSED, reply) is not None, True
        return lambda reply: re.match(LINE_REPLIES.get(type(asked), ANY), reply) is not None, False

    @staticmethod
    def _of_json(asked: Any, tag: bytes | None) -> Expected:
        id = None if tag is None else json.loads(tag, parse_int=str)
        if isinstance(asked, InvalidCommand):
            code = asked.error.code.value.decode()
            return lambda reply: (reply["type"], reply.get("id"), reply.get("code")) == ("error", id, code), False
        kind = KINDS.get(type(asked), "")
        best = "pong" if kind == "ping" else "ok"
        if tag is None and kind not in ("history", "who", "info", "ping"):
            return lambda reply: reply["type"] == "error" and "id" not in reply, True
        return lambda reply: reply["type"] in (best, "error") and reply.get("id") == id, False

    def fits(self, replies: Sequence[Any], closed: bool) -> bool:
        """Whether these are all the replies that are due, in their order; for who was ``closed`` the last may lack."""
        at = {0}
        for match, optional in self._expected:
            more = {index + 1 for index in at if index < len(replies) and match(replies[index])}
            if closed and len(replies) in at:
                return True
            at = (at | more) if optional else more
            if not at:
                return False
        return len(replies) in at


def replies_of(told: Sequence[Any]) -> list[Any]:
    """What of all that a peer heard is a reply."""
    return [each for each in told if (each["type"] if isinstance(each, dict) else each.split(" ")[0]) in REPLIES]
