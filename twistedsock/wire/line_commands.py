"""Lines to commands: what a person, or a script, types."""

from collections.abc import Callable, Sequence

from twistedsock.core import commands
from twistedsock.core.commands import MOST, Command, Mistake, Publish
from twistedsock.core.errors import Code, Refusal
from twistedsock.core.names import DEFAULT_EVENT_NAME
from twistedsock.wire.payloads import JSON_START, UNPAIRED, content_of, is_json, is_unpaired, is_utf8

_NOT_UTF8 = Mistake(Refusal(Code.NOT_UTF8, "a line is UTF-8; this one was skipped"))
_UNPAIRED = Mistake(UNPAIRED)
_UNKNOWN = Mistake(Refusal(Code.UNKNOWN_COMMAND, "I do not know that; HELP tells what I know, QUIT leaves"))


def decode(line: bytes) -> Command | None:
    """The command that a line asks for; None for an empty one."""
    verb, space, rest = line.lstrip(b" ").partition(b" ")
    if not line.isascii() and not is_utf8(line):
        return _NOT_UTF8
    if verb == b"PUB":  # nearly all of the traffic, so it is looked at first
        channel, space, payload = rest.lstrip(b" ").partition(b" ")
        if not space or not channel:
            return _usage(verb)
        is_value = False
        if payload.startswith(JSON_START):
            is_value = is_json(payload)
            if not is_value and is_unpaired(payload):
                return _UNPAIRED
        return Publish(channel, content_of((payload,), is_value))
    if not verb:
        return None
    return _parse(verb.upper(), rest)


def _publish(channel: bytes, payload: bytes, name: bytes = DEFAULT_EVENT_NAME) -> Command:
    return _UNPAIRED if is_unpaired(payload) else Publish(channel, content_of((payload,), is_json(payload)), name=name)


def is_verb(word: bytes) -> bool:
    """Whether a line that begins with this word is a command, right or wrong."""
    verb = word.upper()
    return verb in _VERBS or verb in _ALIASES


def publishes(block: bytes, most: int) -> Publish | None:
    """The one command that some whole lines are together: publishes in a row to one channel, which is what a busy
    publisher sends. None where they are anything else, or may be longer than ``most``, or need a closer look."""
    start = block.find(b" ", 4) + 1
    second = block.find(b"\n") + 1
    if not 5 < start < second or not block.startswith(block[:start], second) or not block.startswith(b"PUB "):
        return None
    payloads = block[start:-1].split(b"\n" + block[:start])
    is_text = not payloads[0].startswith(JSON_START)
    if is_text:
        if any([sign in block for sign in JSON_START]) and any(
            [payload.startswith(JSON_START) for payload in payloads]
        ):
            return None
    elif not all(map(is_json, payloads)):
        return None
    content = content_of(payloads, not is_text)
    if content.size + start > most or not (content.is_verbatim and block.isascii() or _are_lines(payloads, block)):
        return None
    return Publish(block[4 : start - 1], content, (None,) * len(payloads))


def _are_lines(payloads: Sequence[bytes], block: bytes) -> bool:
    """Whether payloads are parts of lines that need no closer look: another command may stand between them."""
    joined = b"".join(payloads)
    return not (b"\n" in joined or b"\r" in joined) and is_utf8(block)


def find_tag(line: bytes) -> None:
    """Lines have no tags: they are answered in their order."""


def follow(first: Publish, items: Sequence[object], position: int) -> tuple[Publish, int]:
    """Add to ``first`` the lines from ``position`` on that differ from it in the payload alone, up to the first that
    is anything else or needs a closer look; gives the position of that too."""
    if first.name != DEFAULT_EVENT_NAME:
        return first, position
    prefix, are_json = b"PUB %b " % first.channel, first.content.is_json
    following = items[position] if position < len(items) else None
    if not (type(following) is bytes and following.startswith(prefix)):
        return first, position
    size = len(prefix)
    payloads: list[bytes] = []
    for index in range(position, len(items)):
        line = items[index]
        if type(line) is not bytes or not line.startswith(prefix) or not line.isascii():
            break
        payload = line[size:]
        if payload.startswith(JSON_START):
            if is_json(payload) is not are_json or (not are_json and is_unpaired(payload)):
                break
        elif are_json:
            break
        payloads.append(payload)
    if not payloads:
        return first, position
    position += len(payloads)
    payloads[:0] = first.content.payloads
    return Publish(first.channel, content_of(payloads, are_json), (None,) * len(payloads)), position


def _parse(verb: bytes, rest: bytes) -> Command:
    verb = _ALIASES.get(verb, verb)
    reading = _VERBS.get(verb)
    if reading is None:
        return _UNKNOWN
    try:
        return reading(rest)
    except _Misused as misused:
        return _usage(verb, str(misused))


class _Misused(Exception):
    """The arguments do not fit the verb."""


def _usage(verb: bytes, why: str = "") -> Mistake:
    words = f"{why}; {USAGE[verb]}" if why else USAGE[verb]
    return Mistake(Refusal(Code.BAD_ARGUMENT, words))


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


def _read_help(rest: bytes) -> Command:
    words = _words(rest)
    if len(words) > 1:
        raise _Misused
    verb = words[0].upper() if words else b""
    return commands.Help(_ALIASES.get(verb, verb))


def _read_quiet(rest: bytes) -> Command:
    words = _words(rest)
    if words not in ([b"on"], [b"off"]):
        raise _Misused
    return commands.Quiet(words == [b"on"])


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
    if not (value.isdigit() and len(value) <= 16) or int(value) > MOST:
        raise _Misused(f"{_shown(value)} is no number from 0 to {MOST}")
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
    b"HELP": _read_help,
    b"NICK": _one(commands.Nick),
    b"SUB": _read_subscribe,
    b"UNSUB": _one(commands.Unsubscribe),
    b"PUB": _read_publish,
    b"EMIT": _read_emit,
    b"HIST": _read_history,
    b"WHO": _one(commands.Who),
    b"QUIET": _read_quiet,
    b"AUTH": _one(commands.Auth),
    b"PING": _read_ping,
    b"INFO": _none(commands.Info()),
    b"QUIT": _none(commands.Quit()),
}
