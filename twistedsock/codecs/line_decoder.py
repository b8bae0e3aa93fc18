"""The line protocol, inwards: bytes to lines, and lines to commands (docs/reference/line-protocol.md).

Lines end with LF or CRLF and have a maximum length. ``LineSplitter`` finds them wherever the input is cut;
``LineDecoder`` turns each into a command. A busy publisher sends many ``PUB`` lines for one channel in a row, so reads
that hold nothing else are decoded as one command, by ``decode_block``."""

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import lru_cache

from twistedsock.codecs.line_encoder import (
    HELP_LINES,
    LINE_ENCODER,
    LINE_MESSAGE_ENCODER,
    LineEncoder,
    QuietLineEncoder,
)
from twistedsock.codecs.payload import (
    BAD_BASE64,
    JSON_START,
    NOT_UTF8_LINE,
    UNPAIRED_SURROGATE,
    build_payloads,
    decode_base64,
    has_unpaired_surrogate,
    is_json,
    is_utf8,
)
from twistedsock.codecs.times import EXPECTED_BOUND, parse_bound
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME
from twistedsock.pubsub.values import BYTES, JSON, TEXT
from twistedsock.session import commands
from twistedsock.session.commands import MAX_OFFSET, Command, InvalidCommand, Notice, Publish, Quit, Reply
from twistedsock.session.history_query import Bound, HistoryQuery

_NOT_UTF8 = InvalidCommand(NOT_UTF8_LINE)

_UNPAIRED = InvalidCommand(UNPAIRED_SURROGATE)

_BAD_BASE64 = InvalidCommand(BAD_BASE64)

_NO_HELP = InvalidCommand(Error(ErrorCode.BAD_ARGUMENT, "unknown command: send HELP for a list of commands"))

_UNKNOWN = "unknown command: try HELP, or QUIT to disconnect"


def _publish(channel: bytes, payload: bytes, name: bytes = DEFAULT_EVENT_NAME) -> Command:
    if has_unpaired_surrogate(payload):
        return _UNPAIRED
    return Publish(channel, build_payloads((payload,), JSON if is_json(payload) else TEXT), name)


def _publish_bytes(channel: bytes, encoded: bytes, name: bytes = DEFAULT_EVENT_NAME) -> Command:
    payload = decode_base64(encoded)
    return _BAD_BASE64 if payload is None else Publish(channel, build_payloads((payload,), BYTES), name)


def is_verb(word: bytes) -> bool:
    """True if a line that begins with this word is a command, valid or not."""
    verb = word.upper()
    return verb in USAGE or verb in _ALIASES


def decode_block(block: bytes, max_bytes: int) -> Publish | None:
    """Decode whole lines as one publication, if all of them are ``PUB`` lines for one channel with payloads of one
    kind. Returns None for all other lines, and for those that are or could be invalid or longer than ``max_bytes``:
    decode them one by one."""
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
        if (
            not built.is_plain
            and any([sign in block for sign in b'{["'])
            and any([payload.startswith(JSON_START) for payload in payloads])
        ):
            return None
    if built.size + start > max_bytes or not (built.is_plain and block.isascii() or _are_valid_lines(payloads, block)):
        return None
    return Publish(block[4 : start - 1], built, tags=(None,) * len(payloads))


def _are_valid_lines(payloads: Sequence[bytes], block: bytes) -> bool:
    """False if there is another command between the payloads, a CR, or a line that is not UTF-8."""
    joined = b"".join(payloads)
    return not (b"\n" in joined or b"\r" in joined) and is_utf8(block)


class _UsageError(Exception):
    """The arguments do not fit the verb."""


def _usage(verb: bytes, why: str = "") -> InvalidCommand:
    usage = f"usage: {USAGE[verb]}"
    return InvalidCommand(Error(ErrorCode.BAD_ARGUMENT, f"{why}; {usage}" if why else usage))


USAGE = {
    b"HELP": "HELP [verb]",
    b"NICK": "NICK <nick>",
    b"SUB": "SUB <channel> [last=<n>] [since=<offset> epoch=<epoch>] [presence=on] [echo=off] [time=on]",
    b"UNSUB": "UNSUB <channel>",
    b"PUB": "PUB <channel> <payload>",
    b"EMIT": "EMIT <channel> <name> <payload>",
    b"PUBBIN": "PUBBIN <channel> <base64>",
    b"EMITBIN": "EMITBIN <channel> <name> <base64>",
    b"HIST": "HIST <channel> [last=<n>] [since=<offset>] [after=<offset|time>] [before=<offset|time>] [time=on]",
    b"WHO": "WHO <channel>",
    b"LIST": "LIST [prefix] [after=<channel>]",
    b"QUIET": "QUIET on|off",
    b"AUTH": "AUTH <token>",
    b"PING": "PING [text]",
    b"INFO": "INFO",
    b"QUIT": "QUIT",
}
"""How to use each verb: part of the error ``bad-argument``."""


def _words(rest: bytes) -> list[bytes]:
    return [word for word in rest.split(b" ") if word]


def _one(build: Callable[[bytes], Command]) -> Callable[[bytes], Command]:
    def read(rest: bytes) -> Command:
        words = _words(rest)
        if len(words) != 1:
            raise _UsageError
        return build(words[0])

    return read


def _none(command: Command) -> Callable[[bytes], Command]:
    def read(rest: bytes) -> Command:
        if _words(rest):
            raise _UsageError
        return command

    return read


def _unnamed(publish: Callable[[bytes, bytes], Command]) -> Callable[[bytes], Command]:
    def read(rest: bytes) -> Command:
        channel, space, payload = rest.lstrip(b" ").partition(b" ")
        if not space or not channel:
            raise _UsageError
        return publish(channel, payload)

    return read


def _named(publish: Callable[[bytes, bytes, bytes], Command]) -> Callable[[bytes], Command]:
    def read(rest: bytes) -> Command:
        channel, _, rest = rest.lstrip(b" ").partition(b" ")
        name, space, payload = rest.lstrip(b" ").partition(b" ")
        if not space or not name:
            raise _UsageError
        return publish(channel, payload, name)

    return read


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
        with_time=_on_or_off(options.pop(b"time", None)),
    )
    _refuse_others(options)
    return command


def _read_history(rest: bytes) -> Command:
    channel, options = _channel_and_options(rest)
    query = HistoryQuery(
        last=_number(options.pop(b"last", None)),
        since=_number(options.pop(b"since", None)),
        after=_bound("after", options.pop(b"after", None)),
        before=_bound("before", options.pop(b"before", None)),
    )
    with_time = _on_or_off(options.pop(b"time", None))
    _refuse_others(options)
    return commands.ReadHistory(channel, query, with_time)


def _read_list(rest: bytes) -> Command:
    words = _words(rest)
    after = words.pop() if words and words[-1].startswith(b"after=") else b""
    if len(words) > 1:
        raise _UsageError
    return commands.ListChannels(words[0] if words else b"", after.removeprefix(b"after="))


MAX_SUGGESTED_BYTES = 16
"""Of an unknown verb. The comparison of longer ones would be expensive, and no verb is as long."""


@lru_cache(maxsize=256)
def _unknown(verb: bytes) -> Command:
    """The error for an unknown verb, with the verb that is most like it. To find that takes 40 us, so a program that
    repeats a mistake gets the same object again."""
    message = _UNKNOWN
    if len(verb) <= MAX_SUGGESTED_BYTES and verb.isalpha() and verb.isascii():
        similar = get_close_matches(verb.decode("latin-1"), [known.decode() for known in USAGE], 1, 0.7)
        if similar:
            message = f"unknown command {verb.decode()}: did you mean {similar[0]}?"
    return InvalidCommand(Error(ErrorCode.UNKNOWN_COMMAND, message))


def _channel_and_options(rest: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    words = _words(rest)
    if not words:
        raise _UsageError
    options: dict[bytes, bytes] = {}
    for word in words[1:]:
        name, equals, value = word.partition(b"=")
        if not equals or name in options:
            raise _UsageError(f"invalid or repeated option: {_quoted(word)}")
        options[name] = value
    return words[0], options


def _refuse_others(options: dict[bytes, bytes]) -> None:
    for name in options:
        raise _UsageError(f"unknown option: {_quoted(name)}")


def _number(value: bytes | None) -> int | None:
    if value is None:
        return None
    # 2^53-1 has 16 digits. Longer numbers are rejected before they are converted, because that could take long.
    if not (value.isdigit() and len(value) <= 16) or int(value) > MAX_OFFSET:
        raise _UsageError(f"invalid number {_quoted(value)}: expected 0 to {MAX_OFFSET}")
    return int(value)


def _bound(name: str, value: bytes | None) -> Bound | None:
    if value is None:
        return None
    bound = parse_bound(value.decode(errors="replace"))
    if bound is None:
        raise _UsageError(f"invalid {name} {_quoted(value)}: {EXPECTED_BOUND}")
    return bound


def _quoted(word: bytes) -> str:
    """A word of the client for an error message, shortened."""
    return repr(word[:32].decode(errors="replace"))


def _switch(value: bytes | None, word: bytes) -> bool:
    if value is not None and value != word:
        raise _UsageError(f"invalid value {_quoted(value)}: only {word.decode()} is allowed")
    return value is not None


def _on_or_off(value: bytes | None) -> bool:
    if value not in (None, b"on", b"off"):
        raise _UsageError(f"invalid value {_quoted(value)}: expected on or off")
    return value == b"on"


_ALIASES = {
    b"?": b"HELP",
    b"EXIT": b"QUIT",
    b"BYE": b"QUIT",
    b"PUBLISH": b"PUB",
    b"SUBSCRIBE": b"SUB",
    b"UNSUBSCRIBE": b"UNSUB",
    b"HISTORY": b"HIST",
}

_VERBS: dict[bytes, Callable[[bytes], Command]] = {
    b"NICK": _one(commands.Nick),
    b"SUB": _read_subscribe,
    b"UNSUB": _one(commands.Unsubscribe),
    b"PUB": _unnamed(_publish),
    b"EMIT": _named(_publish),
    b"PUBBIN": _unnamed(_publish_bytes),
    b"EMITBIN": _named(_publish_bytes),
    b"HIST": _read_history,
    b"WHO": _one(commands.Who),
    b"LIST": _read_list,
    b"AUTH": _one(commands.Auth),
    b"PING": _read_ping,
    b"INFO": _none(commands.Info()),
    b"QUIT": _none(commands.Quit()),
}


class LineDecoder:
    """Decodes lines to commands. It answers HELP and QUIET itself, because only the line protocol has them, with the
    ``encoder`` of the connection."""

    def __init__(self, encoder: LineEncoder) -> None:
        self._verbs: dict[bytes, Callable[[bytes], Command]] = {**_VERBS, b"HELP": self._help, b"QUIET": self._quiet}
        self._help_texts = {verb: Reply(encoder.help(verb)) for verb in HELP_LINES}
        done = encoder.done()
        self._quiet_on, self._quiet_off = Reply(done, QuietLineEncoder(encoder.framing)), Reply(done, encoder)

    def decode(self, line: bytes) -> Command | None:
        """The command in a line; None for a blank line."""
        verb, space, rest = line.lstrip(b" ").partition(b" ")
        if not line.isascii() and not is_utf8(line):
            return _NOT_UTF8
        if verb == b"PUB":  # nearly all traffic
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
        """None: ``decode_block`` has joined them already."""

    def find_tag(self, line: bytes) -> None:
        """None: lines have no tags. Replies come in the order of the lines."""

    def _parse(self, verb: bytes, rest: bytes) -> Command:
        verb = _ALIASES.get(verb, verb)
        read = self._verbs.get(verb)
        if read is None:
            return _unknown(verb)
        try:
            return read(rest)
        except _UsageError as error:
            return _usage(verb, str(error))

    def _help(self, rest: bytes) -> Command:
        words = _words(rest)
        if len(words) > 1:
            raise _UsageError
        verb = words[0].upper() if words else b""
        return self._help_texts.get(_ALIASES.get(verb, verb), _NO_HELP)

    def _quiet(self, rest: bytes) -> Command:
        words = _words(rest)
        if words == [b"on"]:
            return self._quiet_on
        if words == [b"off"]:
            return self._quiet_off
        raise _UsageError


LINE_DECODER = LineDecoder(LINE_ENCODER)
"""For lines on a TCP or Unix socket."""

LINE_MESSAGE_DECODER = LineDecoder(LINE_MESSAGE_ENCODER)
"""For lines in WebSocket messages."""

INTERRUPT_NOTICE = Notice(b"type QUIT to leave")
"""The answer to Ctrl-C and to "Are You There" of a telnet client."""

CTRL_D = b"\x04"
"""End of input on a terminal. As the first byte of a line it means ``QUIT``, and needs no line end."""

Line = bytes | Command
"""A line without its end, or the command that stands for one or several lines."""


class LineSplitter:
    """Finds the lines of one connection. Lines of more than ``max_bytes`` are skipped; an ``InvalidCommand`` takes
    their place. ``partial`` is the line that is not complete yet."""

    __slots__ = ("_max_bytes", "_skipped", "has_verbs", "partial")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # False on a connection that has changed to another protocol: then no line stands for ``PUB`` or ``QUIT``.
        self.has_verbs = True
        # A bytes object would be copied by each feed; in a list, a piece of two bytes would take the memory of fifty.
        self.partial: bytearray | None = None
        # The last byte so far of a line that is being skipped.
        self._skipped: bytes | None = None

    @property
    def has_partial_line(self) -> bool:
        """True while a line is incomplete."""
        return self.partial is not None or self._skipped is not None

    @property
    def ends_with_cr(self) -> bool:
        """True if the input so far ends with CR, also in a line that is being skipped."""
        last = self._skipped if self.partial is None else self.partial
        return last is not None and last.endswith(b"\r")

    def feed(self, data: bytes) -> list[Line]:
        """The lines that are complete with ``data``. The rest is kept for the next call."""
        end = data.rfind(b"\n") + 1
        items: list[Line] = []
        if end:
            block, rest = data[:end], data[end:]
            if self._skipped is not None:
                self._skipped = None
                block = block[block.find(b"\n") + 1 :]
            elif self.partial is not None:
                block = b"".join((self.partial, block))
                self.partial = None
            block = block.replace(b"\r\n", b"\n")
            command = decode_block(block, self._max_bytes) if self.has_verbs else None
            items = [command] if command is not None else self._lines(block)
        else:
            rest = data
        if rest and self._skipped is None:
            self._keep(rest, items)
        elif rest:
            self._skipped = rest[-1:]
        return items

    def discard_partial(self, error: Error) -> InvalidCommand:
        """Drop the incomplete line and skip the rest of it. Returns the command that takes its place."""
        self.partial, self._skipped = None, bytes((self.partial or b"")[-1:])
        return InvalidCommand(error)

    def _lines(self, block: bytes) -> list[Line]:
        lines = block.split(b"\n")
        del lines[-1]
        # Most blocks consist of short lines, which need no check one by one.
        if len(block) > self._max_bytes or CTRL_D in block:
            return [self._finish(line) for line in lines]
        return list[Line](lines)

    def _finish(self, line: bytes) -> Line:
        if line.startswith(CTRL_D) and self.has_verbs:
            return Quit()
        return line if len(line) <= self._max_bytes else InvalidCommand(self._too_long())

    def _keep(self, rest: bytes, items: list[Line]) -> None:
        if self.partial is None:
            if rest.startswith(CTRL_D) and self.has_verbs:
                items.append(Quit())
                return
            self.partial = bytearray()
        self.partial += rest
        # The last byte can be the CR of the line end.
        if len(self.partial) > self._max_bytes + rest.endswith(b"\r"):
            items.append(self.discard_partial(self._too_long()))

    def _too_long(self) -> Error:
        return Error(ErrorCode.TOO_LONG, f"line skipped: longer than {self._max_bytes} bytes")


def split_messages(messages: Sequence[bytes], max_bytes: int) -> list[Line]:
    """The lines of WebSocket messages, each of which can have several."""
    block = (b"\n".join(messages) + b"\n").replace(b"\r\n", b"\n")
    command = decode_block(block, max_bytes)
    return [command] if command is not None else list[Line](block.split(b"\n")[:-1])
