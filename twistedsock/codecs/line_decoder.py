"""Lines to commands: what a person, or a script, types."""

import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Sequence
from enum import Enum, auto

from twistedsock.codecs.encoders import LINE_ENCODER, LINE_MESSAGE_ENCODER
from twistedsock.codecs.line_encoder import HELP_LINES, LineEncoder, QuietLineEncoder
from twistedsock.codecs.payload import (
    BOM,
    JSON_START,
    UNPAIRED_SURROGATE,
    build_payloads,
    has_unpaired_surrogate,
    is_json,
    is_utf8,
)
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME
from twistedsock.pubsub.values import JSON, TEXT
from twistedsock.session import commands
from twistedsock.session.commands import MAX_OFFSET, Command, InvalidCommand, Notice, Publish, Quit, Reply

_NOT_UTF8 = InvalidCommand(Error(ErrorCode.NOT_UTF8, "a line is UTF-8; this one was skipped"))

_UNPAIRED = InvalidCommand(UNPAIRED_SURROGATE)

_NO_HELP = InvalidCommand(Error(ErrorCode.BAD_ARGUMENT, "there is no such command; HELP alone lists them"))

_UNKNOWN = InvalidCommand(Error(ErrorCode.UNKNOWN_COMMAND, "I do not know that; HELP tells what I know, QUIT leaves"))


def _publish(channel: bytes, payload: bytes, name: bytes = DEFAULT_EVENT_NAME) -> Command:
    if has_unpaired_surrogate(payload):
        return _UNPAIRED
    return Publish(channel, build_payloads((payload,), JSON if is_json(payload) else TEXT), name)


def is_verb(word: bytes) -> bool:
    """Whether a line that begins with this word is a command, right or wrong."""
    verb = word.upper()
    return verb in USAGE or verb in _ALIASES


def decode_block(block: bytes, most: int) -> Publish | None:
    """The one command that some whole lines are together: publishes in a row to one channel, which is what a busy
    publisher sends. None where they are anything else, or may be longer than ``most``, or need a closer look."""
    start = block.find(b" ", 4) + 1
    end = block.find(b"\n") + 1
    if not 5 < start < end or not block.startswith(b"PUB "):
        return None
    prefix = block[:start]
    if end < len(block) and not block.startswith(prefix, end):
        return None
    payloads = block[start:-1].split(b"\n" + prefix)
    if payloads[0].startswith(JSON_START):
        if not all(map(is_json, payloads)):
            return None
        built = build_payloads(payloads, JSON)
    else:
        built = build_payloads(payloads, TEXT)
        if not built.is_plain and any([payload.startswith(JSON_START) for payload in payloads]):
            return None
    if built.size + start > most or not (built.is_plain and block.isascii() or _are_lines(payloads, block)):
        return None
    return Publish(block[4 : start - 1], built, tags=(None,) * len(payloads))


def _are_lines(payloads: Sequence[bytes], block: bytes) -> bool:
    """Whether payloads are parts of lines that need no closer look: another command may stand between them."""
    joined = b"".join(payloads)
    return not (b"\n" in joined or b"\r" in joined) and is_utf8(block)


class _Misused(Exception):
    """The arguments do not fit the verb."""


def _usage(verb: bytes, why: str = "") -> InvalidCommand:
    words = f"{why}; {USAGE[verb]}" if why else USAGE[verb]
    return InvalidCommand(Error(ErrorCode.BAD_ARGUMENT, words))


USAGE = {
    b"HELP": "HELP [verb]",
    b"NICK": "NICK <nick>",
    b"SUB": "SUB <channel> [last=<n>] [since=<offset> epoch=<epoch>] [presence=on] [echo=off]",
    b"UNSUB": "UNSUB <channel>",
    b"PUB": "PUB <channel> <payload>",
    b"EMIT": "EMIT <channel> <name> <payload>",
    b"HIST": "HIST <channel> [last=<n>] [since=<offset>]",
    b"WHO": "WHO <channel>",
    b"QUIET": "QUIET on, or QUIET off",
    b"AUTH": "AUTH <token>",
    b"PING": "PING [text]",
    b"INFO": "INFO",
    b"QUIT": "QUIT",
}
"""How each verb is used; the words of ``bad-argument`` and of HELP."""


def _words(rest: bytes) -> list[bytes]:
    return [word for word in rest.split(b" ") if word]


def _one(build: Callable[[bytes], Command]) -> Callable[[bytes], Command]:
    def read(rest: bytes) -> Command:
        words = _words(rest)
        if len(words) != 1:
            raise _Misused
        return build(words[0])

    return read


def _none(command: Command) -> Callable[[bytes], Command]:
    def read(rest: bytes) -> Command:
        if _words(rest):
            raise _Misused
        return command

    return read


def _read_publish(rest: bytes) -> Command:
    channel, space, payload = rest.lstrip(b" ").partition(b" ")
    if not space or not channel:
        raise _Misused
    return _publish(channel, payload)


def _read_emit(rest: bytes) -> Command:
    channel, _, rest = rest.lstrip(b" ").partition(b" ")
    name, space, payload = rest.lstrip(b" ").partition(b" ")
    if not space or not name:
        raise _Misused
    return _publish(channel, payload, name)


def _read_ping(rest: bytes) -> Command:
    return commands.Ping(rest)


def _read_subscribe(rest: bytes) -> Command:
    channel, options = _channel_and_options(rest)
    since, epoch = options.pop(b"since", None), options.pop(b"epoch", None)
    command = commands.Subscribe(
        channel,
        last=_number(options.pop(b"last", None)),
        since=_number(since),
        epoch=epoch,
        presence=_switch(options.pop(b"presence", None), b"on"),
        echo=not _switch(options.pop(b"echo", None), b"off"),
    )
    _refuse_others(options)
    return command


def _read_history(rest: bytes) -> Command:
    channel, options = _channel_and_options(rest)
    command = commands.History(
        channel,
        last=_number(options.pop(b"last", None)),
        since=_number(options.pop(b"since", None)),
    )
    _refuse_others(options)
    return command


def _channel_and_options(rest: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    words = _words(rest)
    if not words:
        raise _Misused
    options: dict[bytes, bytes] = {}
    for word in words[1:]:
        name, equals, value = word.partition(b"=")
        if not equals or name in options:
            raise _Misused(f"{_shown(word)} is no option, or it is there twice")
        options[name] = value
    return words[0], options


def _refuse_others(options: dict[bytes, bytes]) -> None:
    for name in options:
        raise _Misused(f"{_shown(name)} is no option here")


def _number(value: bytes | None) -> int | None:
    if value is None:
        return None
    # 2^53-1 has 16 digits: a longer one is refused before it is read, as reading it could take long.
    if not (value.isdigit() and len(value) <= 16) or int(value) > MAX_OFFSET:
        raise _Misused(f"{_shown(value)} is no number from 0 to {MAX_OFFSET}")
    return int(value)


def _shown(word: bytes) -> str:
    """A word of the peer's in a message to it: not longer than people read."""
    return repr(word[:32].decode(errors="replace"))


def _switch(value: bytes | None, word: bytes) -> bool:
    if value is not None and value != word:
        raise _Misused(f"only {word.decode()} can be said there")
    return value is not None


_ALIASES = {b"?": b"HELP", b"EXIT": b"QUIT", b"BYE": b"QUIT"}

_VERBS: dict[bytes, Callable[[bytes], Command]] = {
    b"NICK": _one(commands.Nick),
    b"SUB": _read_subscribe,
    b"UNSUB": _one(commands.Unsubscribe),
    b"PUB": _read_publish,
    b"EMIT": _read_emit,
    b"HIST": _read_history,
    b"WHO": _one(commands.Who),
    b"AUTH": _one(commands.Auth),
    b"PING": _read_ping,
    b"INFO": _none(commands.Info()),
    b"QUIT": _none(commands.Quit()),
}


class LineDecoder:
    """Decodes lines to commands. The commands that only lines have, HELP and QUIET, are answered here: ``encoder``
    encodes the replies of the protocol."""

    def __init__(self, encoder: LineEncoder) -> None:
        self._verbs: dict[bytes, Callable[[bytes], Command]] = {**_VERBS, b"HELP": self._help, b"QUIET": self._quiet}
        self._help_texts = {verb: Reply(encoder.help(verb)) for verb in HELP_LINES}
        done = encoder.done()
        self._quiet_on, self._quiet_off = Reply(done, QuietLineEncoder(encoder.framing)), Reply(done, encoder)

    def decode(self, line: bytes) -> Command | None:
        """The command that a line asks for; None for an empty one."""
        verb, space, rest = line.lstrip(b" ").partition(b" ")
        if not line.isascii() and not is_utf8(line):
            return _NOT_UTF8
        if verb == b"PUB":  # nearly all of the traffic, so it is looked at first
            channel, space, payload = rest.lstrip(b" ").partition(b" ")
            if not space or not channel:
                return _usage(verb)
            kind = TEXT
            if payload.startswith(JSON_START):
                if is_json(payload):
                    kind = JSON
                elif has_unpaired_surrogate(payload):
                    return _UNPAIRED
            return Publish(channel, build_payloads((payload,), kind))
        return self._parse(verb.upper(), rest) if verb else None

    def decode_alike(self, first: Publish, messages: Sequence[object], position: int) -> None:
        """``LineSplitter`` has joined them already."""

    def find_tag(self, line: bytes) -> None:
        """Lines have no tags: they are answered in their order."""

    def _parse(self, verb: bytes, rest: bytes) -> Command:
        verb = _ALIASES.get(verb, verb)
        read = self._verbs.get(verb)
        if read is None:
            return _UNKNOWN
        try:
            return read(rest)
        except _Misused as misused:
            return _usage(verb, str(misused))

    def _help(self, rest: bytes) -> Command:
        words = _words(rest)
        if len(words) > 1:
            raise _Misused
        verb = words[0].upper() if words else b""
        return self._help_texts.get(_ALIASES.get(verb, verb), _NO_HELP)

    def _quiet(self, rest: bytes) -> Command:
        words = _words(rest)
        if words == [b"on"]:
            return self._quiet_on
        if words == [b"off"]:
            return self._quiet_off
        raise _Misused


LINE_DECODER = LineDecoder(LINE_ENCODER)
"""For lines on a bare socket."""

LINE_MESSAGE_DECODER = LineDecoder(LINE_MESSAGE_ENCODER)
"""For lines in WebSocket messages."""


INTERRUPT_NOTICE = Notice(b"type QUIT to leave")
"""The answer to Ctrl-C, or to "are you there", of a telnet client."""

CTRL_D = b"\x04"
"""As the first byte of a line it is QUIT at once, as a terminal would have it; it needs no line end."""

Line = bytes | Command
"""A line without its end, or the command that stands for one or several lines."""


class LineSplitter:
    """``feed`` gives the lines that are complete, without their ends. Of a line that is too long nothing is kept: a
    ``InvalidCommand`` stands in its place, and the rest up to its end is skipped. Lines that come together and are one
    command (``decode_block``) are given as that. ``partial`` is the line that is not complete yet."""

    __slots__ = ("_max_bytes", "_skipping", "partial")

    def __init__(self, most: int) -> None:
        self._max_bytes = most
        # The line that is not complete yet: as bytes, each feed would cost its length; in pieces, a piece of two bytes
        # would take the memory of fifty.
        self.partial: bytearray | None = None
        self._skipping = False

    @property
    def has_partial_line(self) -> bool:
        """Whether a line has begun."""
        return self.partial is not None or self._skipping

    def feed(self, data: bytes) -> list[Line]:
        """Items in their order; what stands behind the last line end is kept for the next feed."""
        end = data.rfind(b"\n") + 1
        items: list[Line] = []
        if end:
            block, rest = data[:end], data[end:]
            if self._skipping:
                self._skipping = False
                block = block[block.find(b"\n") + 1 :]
            elif self.partial is not None:
                block = b"".join((self.partial, block))
                self.partial = None
            command = decode_block(block, self._max_bytes)
            items = [command] if command is not None else self._lines(block)
        else:
            rest = data
        if rest and not self._skipping:
            self._keep(rest, items)
        return items

    def discard_partial(self, error: Error) -> InvalidCommand:
        """Forget the line that has begun, and skip its rest; gives what stands in its place."""
        self.partial, self._skipping = None, True
        return InvalidCommand(error)

    def _lines(self, block: bytes) -> list[Line]:
        lines = block.split(b"\n")
        del lines[-1]
        # A block of plain short lines, which is nearly all there is, needs no look at each.
        if len(block) > self._max_bytes or b"\r" in block or CTRL_D in block:
            return [self._finish(line) for line in lines]
        return list[Line](lines)

    def _finish(self, line: bytes) -> Line:
        if line.endswith(b"\r"):
            line = line[:-1]
        if line.startswith(CTRL_D):
            return Quit()
        return line if len(line) <= self._max_bytes else InvalidCommand(self._too_long())

    def _keep(self, rest: bytes, items: list[Line]) -> None:
        if self.partial is None:
            if rest.startswith(CTRL_D):
                items.append(Quit())
                return
            self.partial = bytearray()
        self.partial += rest
        # One byte more than allowed may still be the CR of its end.
        if len(self.partial) > self._max_bytes + rest.endswith(b"\r"):
            items.append(self.discard_partial(self._too_long()))

    def _too_long(self) -> Error:
        return Error(ErrorCode.TOO_LONG, f"a line is at most {self._max_bytes} bytes; this one was skipped")


def split_messages(messages: Sequence[bytes], max_bytes: int) -> list[Line]:
    """The lines in WebSocket messages, or the one command that all of them are together."""
    block = b"\n".join(messages) + b"\n"
    command = decode_block(block, max_bytes)
    if command is not None:
        return [command]
    return [line.removesuffix(b"\r") for line in block.split(b"\n")[:-1]]


class WireProtocol(Enum):
    LINES = auto()
    HTTP = auto()
    TLS = auto()
    OTHER = auto()


TLS_HANDSHAKE = 0x16
"""The first byte of a TLS connection (RFC 8446 section 5.1). In text it is SYN, a control character."""

MAX_LINE_START_BYTES = 256
"""Of the first line: room for the longest verb, and for a second word that is longer than every channel name."""

MAX_LINE_END_BYTES = 64
"""Of the first line: room for the version of HTTP."""

_DECODER = getincrementaldecoder("utf-8")

_VERSION = re.compile(rb"(?:^| )HTTP/[0-9][^ ]*$")

_EXACT_VERSION = re.compile(rb" HTTP/[0-9]\.[0-9]$")

_TARGET = re.compile(rb"[^ ]+ /")


class ProtocolDetector:
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
        if len(self._start) < MAX_LINE_START_BYTES:
            self._start = (self._start + line)[:MAX_LINE_START_BYTES]
        self._end = (self._end + line)[-MAX_LINE_END_BYTES:]
        self._spaces += line.count(b" ")
        if not end:
            return None
        return WireProtocol.HTTP if self._is_request() else WireProtocol.LINES

    def looks_like_http(self) -> bool:
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


# TODO-MERGED-DOC: Bytes to lines: LF or CRLF, at any cut, bounded.

# TODO-MERGED-DOC: Which protocol a connection to the line port speaks, recognized by its first line. A page can
# make a browser connect to any port, and choose many of the bytes that are sent there: the target, the headers
# and the body of an HTTP request, the session id of a TLS handshake. Nothing of such a connection must be run.
