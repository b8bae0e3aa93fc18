"""Every verb of the line dialect, used rightly and wrongly (protocol.md, "Line dialect")."""

from typing import NoReturn

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.line_decoder import USAGE, decode, follow, publishes
from twistedsock.codecs.payload import build_payloads
from twistedsock.errors import ErrorCode
from twistedsock.pubsub.values import JSON, TEXT
from twistedsock.session.commands import (
    Auth,
    Command,
    Help,
    History,
    Info,
    InvalidCommand,
    Nick,
    Ping,
    Publish,
    Quiet,
    Quit,
    Subscribe,
    Unsubscribe,
    Who,
)

MAX_OFFSET = 9007199254740991


def published(channel: bytes, payload: bytes, json: bool = False, name: bytes = b"message") -> Publish:
    """One publish."""
    return Publish(channel, build_payloads((payload,), JSON if json else TEXT), name)


RIGHT = {
    b"PUB kitchen 21.5": published(b"kitchen", b"21.5", False),
    b"PUB kitchen a  b ": published(b"kitchen", b"a  b ", False),
    b"PUB kitchen  x": published(b"kitchen", b" x", False),
    b"PUB   kitchen x": published(b"kitchen", b"x", False),
    b"  PUB kitchen x": published(b"kitchen", b"x", False),
    b"pub kitchen x": published(b"kitchen", b"x", False),
    b"  pUb   kitchen  x": published(b"kitchen", b" x", False),
    b"PUB a ": published(b"a", b"", False),
    b"pub a ": published(b"a", b"", False),
    b"PUB a  ": published(b"a", b" ", False),
    b'PUB a {"celsius": 21.5}': published(b"a", b'{"celsius": 21.5}', True),
    b'pub a {"celsius": 21.5}': published(b"a", b'{"celsius": 21.5}', True),
    b"PUB a {celsius}": published(b"a", b"{celsius}", False),
    b'PUB a  {"a":1}': published(b"a", b' {"a":1}', False),
    b"PUB a b\rc\td": published(b"a", b"b\rc\td", False),
    "PUB küche 20€".encode(): published("küche".encode(), "20€".encode(), False),
    b"EMIT a alarm smoke": published(b"a", b"smoke", False, b"alarm"),
    b"emit   a   alarm  smoke ": published(b"a", b" smoke ", False, b"alarm"),
    b"EMIT a alarm ": published(b"a", b"", False, b"alarm"),
    b"EMIT a alarm [1]": published(b"a", b"[1]", True, b"alarm"),
    b"SUB a": Subscribe(b"a"),
    b"sub  a ": Subscribe(b"a"),
    b"SUB a last=5": Subscribe(b"a", last=5),
    b"SUB a  last=0  ": Subscribe(b"a", last=0),
    b"SUB a last=9007199254740991": Subscribe(b"a", last=MAX_OFFSET),
    b"SUB a last=007": Subscribe(b"a", last=7),
    b"SUB a since=12 epoch=5f2c1a": Subscribe(b"a", since=12, epoch=b"5f2c1a"),
    b"SUB a epoch=x=y since=0": Subscribe(b"a", since=0, epoch=b"x=y"),
    b"SUB a since=1": Subscribe(b"a", since=1),
    b"SUB a presence=on": Subscribe(b"a", presence=True),
    b"SUB a echo=off": Subscribe(b"a", echo=False),
    b"SUB a echo=off presence=on epoch=e since=1 last=2": Subscribe(b"a", 2, 1, b"e", True, False),
    b"UNSUB a": Unsubscribe(b"a"),
    b"unsub  a  ": Unsubscribe(b"a"),
    b"HIST a": History(b"a"),
    b"HIST a last=10": History(b"a", last=10),
    b"HIST a since=12 last=10": History(b"a", last=10, since=12),
    b"WHO a": Who(b"a"),
    b"NICK ann": Nick(b"ann"),
    b"AUTH a.b.c": Auth(b"a.b.c"),
    b"auth  a.b.c ": Auth(b"a.b.c"),
    b"QUIET on": Quiet(True),
    b"quiet  off ": Quiet(False),
    b"PING": Ping(b""),
    b"PING ": Ping(b""),
    b"PING hello  you ": Ping(b"hello  you "),
    b"PING  hello": Ping(b" hello"),
    b"INFO": Info(),
    b"info  ": Info(),
    b"QUIT": Quit(),
    b"quit": Quit(),
    b"exit": Quit(),
    b"EXIT ": Quit(),
    b"bye": Quit(),
    b"HELP": Help(b""),
    b"help ": Help(b""),
    b"?": Help(b""),
    b"? sub": Help(b"SUB"),
    b"HELP Sub": Help(b"SUB"),
    b"HELP frobnicate": Help(b"FROBNICATE"),
    b"HELP bye": Help(b"QUIT"),
    b"HELP exit": Help(b"QUIT"),
    b"HELP ?": Help(b"HELP"),
}


@pytest.mark.parametrize(("line", "command"), RIGHT.items(), ids=repr)
def test_a_line_that_is_right(line: bytes, command: Command) -> None:
    """What is typed rightly is the command it means."""
    assert decode(line) == command


def code_of(line: bytes) -> ErrorCode:
    command = decode(line)
    assert isinstance(command, InvalidCommand), command
    return command.error.code


MISUSED = {
    "PUB": ["", " ", " a", "  a", "   "],
    "pub": ["", " ", " a", "  a", "   "],
    "EMIT": ["", " ", " a", " a ", " a b", " a  b", "  a  b", "   "],
    "SUB": ["", " ", " a b", " a last", " a last=", " a last=x", " a last=-1", " a last=+1", " a last=1.0"]
    + [" a last=1 last=1", " a since=1 since=2", " a LAST=1", " a Presence=on", " a frob=1", " a =", " a =1"]
    + [" a presence=off", " a presence=", " a presence=ON", " a echo=on", " a echo=OFF", " a epoch=a epoch=b"]
    + [" a last=9007199254740992", f" a last={'9' * 10_000}", " a last=1_0", " a last=٣", " a last =1", " a last= 1"],
    "UNSUB": ["", " ", " a b"],
    "HIST": ["", " a b", " a epoch=e", " a presence=on", " a last=x", " a since=", " a last=1 last=2"],
    "WHO": ["", " ", " a b"],
    "NICK": ["", "  ", " a b"],
    "AUTH": ["", "  ", " a b"],
    "QUIET": ["", " ", " ON", " yes", " on off", " on on"],
    "INFO": [" x"],
    "QUIT": [" now"],
    "bye": [" bye"],
    "HELP": [" SUB PUB"],
    "?": [" ? ?"],
}


@pytest.mark.parametrize(
    "line", [verb + rest for verb, rests in MISUSED.items() for rest in rests], ids=lambda line: repr(line[:40])
)
def test_a_line_with_wrong_arguments(line: str) -> None:
    """A verb with missing, wrong, doubled or too many arguments is a bad argument, and the words show its usage."""
    command = decode(line.encode())
    assert isinstance(command, InvalidCommand), command
    assert command.error.code is ErrorCode.BAD_ARGUMENT
    verb = {"BYE": "QUIT", "?": "HELP"}.get(line.split()[0].upper(), line.split()[0].upper())
    assert command.error.message.endswith(USAGE[verb.encode()])
    assert len(command.error.message) < 300


@pytest.mark.parametrize(
    "line, words",
    [
        ("HIST a last=x", "'x' is no number from 0 to 9007199254740991"),
        ("SUB a frob", "'frob' is no option, or it is there twice"),
        ("SUB a frob=1", "'frob' is no option here"),
        ("HIST a last=" + "9" * 40, f"'{'9' * 32}' is no number from 0 to 9007199254740991"),
    ],
)
def test_a_refusal_names_the_word_that_is_wrong(line: str, words: str) -> None:
    command = decode(line.encode())
    assert isinstance(command, InvalidCommand)
    assert command.error.message.startswith(words)


@pytest.mark.parametrize(
    "line",
    [b"frob", b"SUBSCRIBE a", b"PUB\ta b", b"\tPUB a b", b"\x04", b"??", b'{"type":"ping"}', "ＰＵＢ a b".encode()]
    + [b"GET / HTTP/1.1", b"P" * 65_536, b"\x00", "ſub a".encode()],
    ids=lambda line: repr(line[:20]),
)
def test_a_verb_that_nobody_knows(line: bytes) -> None:
    """The answer to an unknown command names HELP and QUIT."""
    command = decode(line)
    assert isinstance(command, InvalidCommand)
    assert command.error.code is ErrorCode.UNKNOWN_COMMAND
    assert "HELP" in command.error.message and "QUIT" in command.error.message


@pytest.mark.parametrize("line", [b"PUB a \xff", b"\xff", b"pub a \xc0\x80", b"SUB \xed\xa0\x80", b"PING \xe2\x82"])
def test_a_line_that_is_not_utf8(line: bytes) -> None:
    """No command is read from what is not UTF-8."""
    assert code_of(line) is ErrorCode.NOT_UTF8


@pytest.mark.parametrize("start", [b"PUB a ", b"pub a ", b"EMIT a b "])
@pytest.mark.parametrize("payload", [b'"\\ud83d"', b'{"x":["\\uDE00"]}', b'["\\ud83d\\ud83d\\ude00"]'])
def test_a_payload_with_half_a_surrogate_pair_is_an_error(start: bytes, payload: bytes) -> None:
    assert code_of(start + payload) is ErrorCode.BAD_JSON


@pytest.mark.parametrize("payload", [b"\\ud83d", b'"\\ud83d', b'x"\\ud83d"', b'"\\ud83d" x', b'["\\ud83d"'])
def test_what_would_be_no_json_without_it_is_a_text(payload: bytes) -> None:
    command = decode(b"PUB a " + payload)
    assert isinstance(command, Publish)
    assert (command.payloads.items, command.payloads.kind) == ((payload,), TEXT)


@pytest.mark.parametrize("line", [b"", b" ", b"     "])
def test_an_empty_line_is_ignored(line: bytes) -> None:
    """An empty line is no command."""
    assert decode(line) is None


def test_names_are_left_to_the_broker() -> None:
    """The codec does not judge names: the broker does, for every dialect alike."""
    assert decode(b"SUB *") == Subscribe(b"*")
    assert decode(b"NICK " + b"x" * 100) == Nick(b"x" * 100)


FOLLOWS = {
    "the same channel": (b"PUB a 1", [b"PUB a 2", b"PUB a  3 "], 2),
    "an empty text": (b"PUB a 1", [b"PUB a ", b"PUB a 1"], 2),
    "no payload": (b"PUB a 1", [b"PUB a", b"PUB a 1"], 0),
    "another channel": (b"PUB a 1", [b"PUB ab 2", b"PUB a 1"], 0),
    "another verb": (b"PUB a 1", [b"PUB a 1", b"PING", b"PUB a 1"], 1),
    "an event name": (b"PUB a 1", [b"EMIT a b 1"], 0),
    "after an event name": (b"EMIT a b 1", [b"PUB a 1"], 0),
    "JSON after text": (b"PUB a 1", [b"PUB a [1]"], 0),
    "text after JSON": (b"PUB a [1]", [b"PUB a [2]", b"PUB a {}", b"PUB a 1"], 2),
    "no JSON after text": (b"PUB a 1", [b"PUB a [1", b"PUB a {"], 2),
    "no JSON after JSON": (b"PUB a [1]", [b"PUB a [1"], 0),
    "half a surrogate pair after text": (b"PUB a 1", [b"PUB a 2", b'PUB a "\\ud83d"', b"PUB a 3"], 1),
    "a command among lines": (b"PUB a 1", [b"PUB a 1", Ping(), b"PUB a 1"], 1),
    "not UTF-8": (b"PUB a 1", [b"PUB a \xff"], 0),
}


@pytest.mark.parametrize(("first", "items", "count"), FOLLOWS.values(), ids=FOLLOWS.keys())
def test_a_run_of_publishes(first: bytes, items: list[bytes | Command], count: int) -> None:
    """A run ends at the first item that differs in more than the payload."""
    publish = decode(first)
    assert isinstance(publish, Publish)
    followed, position = follow(publish, [b"PUB a 0", first, *items], 2)
    assert position == 2 + count
    assert len(followed.payloads) == len(followed.tags) == 1 + count


@pytest.mark.parametrize("next_line, count", [(b"PING", 2), (b"PUB a x", 3), (b"PUB a \xc3\xa9", 2), (b"PUB b x", 2)])
def test_what_is_a_run_already_may_go_on(next_line: bytes, count: int) -> None:
    """A whole block may have waited with lines behind it: none of them is left out."""
    run = publishes(b"PUB a 1\nPUB a 2\n", 100)
    assert run is not None
    followed, position = follow(run, [run, next_line, b"PING"], 1)
    assert (len(followed.payloads), len(followed.tags), position) == (count, count, count - 1)


class ByIndex(list[bytes]):
    """Walking to where a run begins, each time from the start, would cost the square of what came."""

    def __iter__(self) -> NoReturn:
        raise AssertionError


def test_a_run_is_looked_for_where_it_begins() -> None:
    """What stands before it is not looked at again."""
    followed, position = follow(published(b"a", b"1"), ByIndex([b"PUB b 1", b"PUB a 1", b"PUB a 2"]), 2)
    assert (followed.payloads.items, followed.tags, position) == ((b"1", b"2"), (None, None), 3)


WORD = st.sampled_from(
    [b"PUB a ", b"PUB a ", b"PUB a ", b"pub a ", b"PUB b ", b"EMIT a message ", b"EMIT a x ", b"PUB a"]
)
PAYLOAD = st.sampled_from([b"", b"1", b" 1", b"[1]", b'{"', b'"x"', b"\xff", "é".encode(), b"\r"]) | st.binary()


@given(st.lists(st.builds(lambda word, payload: word + payload, WORD, PAYLOAD), min_size=1))
def test_a_run_is_the_commands_it_stands_for(lines: list[bytes]) -> None:
    """Whatever is gathered into a run is what each of its lines means alone."""
    first = decode(lines[0])
    if isinstance(first, Publish) and lines[1:]:
        run, position = follow(first, lines, 1)
        assert len(run.payloads) == len(run.tags) == position
        for line, payload in zip(lines, run.payloads.items, strict=False):
            assert decode(line) == published(run.channel, payload, run.payloads.kind is JSON, run.name)


VERBS = st.sampled_from([*USAGE, b"?", b"bye", b"frob", b""])
WORDS = st.sampled_from(
    [b" ", b"  ", b"a", b"last=", b"since=1", b"=", b"on", b'{"', b"[1]", b"\xff", b"9" * 20, b"\x00"]
)


@given(st.binary() | st.builds(lambda verb, words: verb + b"".join(words), VERBS, st.lists(WORDS | st.binary())))
def test_any_bytes_give_a_command_or_a_named_error(line: bytes) -> None:
    """Any bytes give a command, or a mistake with a code of the catalogue, never an exception."""
    command = decode(line)
    if isinstance(command, InvalidCommand):
        assert command.error.code in (ErrorCode.NOT_UTF8, ErrorCode.BAD_ARGUMENT, ErrorCode.UNKNOWN_COMMAND)
    assert command is None or isinstance(command, Command)
