"""Which protocol a connection to the line port speaks, recognized by its first line.

A page can make a browser connect to any port, and choose many of the bytes that are sent there: the target, the headers
and the body of an HTTP request, the session id of a TLS handshake. Nothing of such a connection must be run.
"""

import re
from codecs import getincrementaldecoder
from enum import Enum, auto

from twistedsock.wire.line_commands import is_verb
from twistedsock.wire.payloads import BOM


class WireProtocol(Enum):
    LINES = auto()
    HTTP = auto()
    TLS = auto()
    OTHER = auto()


TLS_HANDSHAKE = 0x16
"""The first byte of a TLS connection (RFC 8446 section 5.1). In text it is SYN, a control character."""

MAX_START_BYTES = 256
"""Of the first line: room for the longest verb, and for a second word that is longer than every channel name."""
MAX_END_BYTES = 64
"""Of the first line: room for the version of HTTP."""

_DECODER = getincrementaldecoder("utf-8")
_VERSION = re.compile(rb"(?:^| )HTTP/[0-9][^ ]*$")
_EXACT_VERSION = re.compile(rb" HTTP/[0-9]\.[0-9]$")
_TARGET = re.compile(rb"[^ ]+ /")


class Opening:
    """Reads a connection up to the end of its first line that is not blank. CR NUL has to be replaced before."""

    __slots__ = ("_decoder", "_end", "_spaces", "_start")

    def __init__(self) -> None:
        self._decoder = _DECODER()
        self._start = b""
        self._end = b""
        self._spaces = 0

    def feed(self, data: bytes) -> WireProtocol | None:
        """The protocol as soon as it is known, None before. No command must be run while it is None."""
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
        if len(self._start) < MAX_START_BYTES:
            self._start = (self._start + line)[:MAX_START_BYTES]
        self._end = (self._end + line)[-MAX_END_BYTES:]
        self._spaces += line.count(b" ")
        if not end:
            return None
        return WireProtocol.HTTP if self._is_request() else WireProtocol.LINES

    def begins_request(self) -> bool:
        """Whether the first line looks like an HTTP request by its start alone: it is too long, and its end may be far
        away."""
        word, _, rest = self._text().partition(b" ")
        if is_verb(word) and b" " in rest:
            return False  # its second word is a channel
        return rest.startswith((b"/", b"http:", b"https:"))

    def _text(self) -> bytes:
        return self._start.removeprefix(BOM).lstrip(b" ")

    def _is_request(self) -> bool:
        """Whether a whole line is the first of an HTTP request: its last word is ``HTTP/`` and a number. A payload can
        end like that too, so a line that begins with a verb is a request only if it has the exact form of one: a page
        chooses the method as well, if its name has been rebound to this address."""
        end = self._end.removesuffix(b"\r")
        if not _VERSION.search(end):
            return False
        if not is_verb(self._text().partition(b" ")[0]):
            return True
        return self._spaces == 2 and bool(_TARGET.match(self._start) and _EXACT_VERSION.search(end))
