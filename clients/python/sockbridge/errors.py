"""Errors of the client. Each has a code for programs and a message for people."""

from __future__ import annotations

import os
import re
import socket
import ssl


class SockbridgeError(Exception):
    """``code`` is one of the server (docs/reference/errors.md), or one of these:

    - ``unreachable``: no connection could be opened
    - ``disconnected``: the connection ended before the answer, so the command may have run, or not
    - ``closed``: the client is closed, for the reason in the message
    - ``timeout``: there was no answer in time
    - ``queue-full``: too many commands wait for a connection
    - ``bad-argument``: the data is not a JSON value, or the client follows the channel already
    - ``bad-answer``: the server's message could not be read
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})" if message else code)
        self.code = code
        self.message = message


class AddressError(ValueError):
    """A server address is not valid, or the certificates for it cannot be read."""


_ERRNO = re.compile(r"\[Errno (\d+)\]")

_PLAIN_SERVER = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING")
"""What OpenSSL reports if the answer to the first message of TLS is not TLS, or the connection ends instead."""


def explain(error: OSError) -> str:
    """Why a connection could not be opened, or was lost, in words for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted: {error.verify_message or error.reason}"
    if isinstance(error, ssl.SSLError):
        if error.reason in _PLAIN_SERVER:
            return "no TLS there: use tcp:// or ws:// for a port without it"
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return "unknown host name" if error.errno == socket.EAI_NONAME else f"no address found: {error.strerror}"
    if isinstance(error, TimeoutError):
        return "no answer in time"
    # asyncio puts what happened at several addresses of a name into one error without a number.
    found = _ERRNO.search(str(error))
    number = error.errno or (int(found[1]) if found else None)
    return os.strerror(number).lower() if number else str(error)
