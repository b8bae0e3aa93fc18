"""Errors of the client. Each has a code for programs and a message for people."""

from __future__ import annotations


class SockbridgeError(Exception):
    """``code`` is one of the server (docs/reference/errors.md), or one of these:

    - ``unreachable``: no connection could be opened
    - ``disconnected``: the connection ended before the answer, so the command may have run, or not
    - ``closed``: the client is closed, for the reason in the message
    - ``timeout``: there was no answer in time
    - ``queue-full``: too many commands wait for a connection
    - ``bad-answer``: the server's message could not be read
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})" if message else code)
        self.code = code
        self.message = message


class AddressError(ValueError):
    """A server address is not valid."""
