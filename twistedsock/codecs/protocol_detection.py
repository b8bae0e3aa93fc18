"""Detects which protocol a connection to the line port speaks, by its first line.

A web page can make a browser connect to any port, and can choose many of the bytes that are sent: the target, headers
and body of an HTTP request, or the session id of a TLS handshake. The server must not run any of them as commands.
"""

import re
from codecs import getincrementaldecoder
from enum import Enum, auto

from twistedsock.codecs.line_decoder import is_verb
from twistedsock.codecs.payload import BOM


class WireProtocol(Enum):
    LINES = auto()
    JSON_LINES = auto()
    HTTP = auto()
    TLS = auto()
    OTHER = auto()


TLS_HANDSHAKE = 0x16
"""First byte of a TLS connection (RFC 8446 section 5.1). In text it would be the control character SYN."""

MAX_LINE_START_BYTES = 256
"""Kept of the first line: enough for the longest verb and for a second word that is longer than any channel name."""

MAX_LINE_END_BYTES = 64
"""Kept of the first line: enough for the HTTP version."""

_DECODER = getincrementaldecoder("utf-8")

_VERSION = re.compile(rb"(?:^| )HTTP/[0-9][^ ]*$")

_EXACT_VERSION = re.compile(rb" HTTP/[0-9]\.[0-9]$")

_TARGET = re.compile(rb"[^ ]+ /")


class ProtocolDetector:
    """Reads a connection up to the end of its first line that is not blank. The caller replaces CR NUL first."""

    __slots__ = ("_decoder", "_end", "_spaces", "_start")

    def __init__(self) -> None:
        self._decoder = _DECODER()
        self._start = b""
        self._end = b""
        self._spaces = 0

    def feed(self, data: bytes) -> WireProtocol | None:
        """The protocol, as soon as it is known. While it is None, the caller must not run any command."""
        if not self._start:
            data = data.lstrip(b" \r\n")
            if not data:
                return None
            if data[0] == TLS_HANDSHAKE:
                return WireProtocol.TLS
        line, end, _ = data.partition(b"\n")
        if b"\0" in line:
            return WireProtocol.OTHER
        try:
            self._decoder.decode(line, bool(end))
        except UnicodeDecodeError:
            return WireProtocol.OTHER
        if len(self._start) < MAX_LINE_START_BYTES:
            self._start = (self._start + line)[:MAX_LINE_START_BYTES]
        self._end = (self._end + line)[-MAX_LINE_END_BYTES:]
        self._spaces += line.count(b" ")
        if self._text().startswith(b"{"):  # never HTTP: a method is a token (RFC 9110 section 9.1), without braces
            return WireProtocol.JSON_LINES
        if not end:
            return None
        return WireProtocol.HTTP if self._is_request() else WireProtocol.LINES

    def looks_like_http(self) -> bool:
        """True if the first line is an HTTP request judged by its start alone. For lines that are too long."""
        word, _, rest = self._text().partition(b" ")
        if is_verb(word) and b" " in rest:
            return False  # the second word is a channel
        return rest.startswith((b"/", b"http:", b"https:"))

    def _text(self) -> bytes:
        return self._start.removeprefix(BOM).lstrip(b" ")

    def _is_request(self) -> bool:
        """True if the last word of the line is ``HTTP/`` and a number. A payload can end like that too, so a line that
        begins with a verb is a request only if it has the exact form of one. (With DNS rebinding, a page can also
        choose the method.)"""
        end = self._end.removesuffix(b"\r")
        if not _VERSION.search(end):
            return False
        if not is_verb(self._text().partition(b" ")[0]):
            return True
        return self._spaces == 2 and bool(_TARGET.match(self._start) and _EXACT_VERSION.search(end))
