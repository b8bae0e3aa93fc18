"""Plays the transcripts of docs/reference against the real codecs and sessions.

In a fenced block ``transcript``, ``ann> …`` is a line or message that ann sends, and ``ann< …`` one that she receives.
Consecutive lines of one client are sent in one write. A client connects when it is first named, with the JSON protocol
if its first message is JSON. The welcome can be left out, and everything else that a client receives must be shown.
Sentences in parentheses are events, listed in ``EVENTS``. Words after ``transcript`` are limits of that server,
``backplane=late``, ``json=lines``, which sends JSON on the line port, or ``policy=on``: every client can then use
``lobby``, and ``token-of-ann`` is valid for an hour and allows ``kitchen``.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from twistedsock.codecs.websocket import CLOSE_CODES
from twistedsock.errors import CloseReason, ErrorCode
from twistedsock.testing import FakeClient, FakePolicy, FakeServer, JsonClient, LineClient, read_frames

DOCS = Path(__file__).parent.parent / "docs" / "reference"
UNSHOWN_CODES = {ErrorCode.RATE}
"""Codes that these transcripts cannot show, because the clients of a transcript have no rate."""

CODES = {
    "line-protocol.md": [code for code in ErrorCode if code not in (ErrorCode.BAD_JSON, ErrorCode.BAD_TYPE)],
    "json-protocol.md": [
        code for code in ErrorCode if code not in (ErrorCode.UNKNOWN_COMMAND, ErrorCode.TOO_LONG, ErrorCode.NOT_UTF8)
    ],
}
"""The codes of each protocol."""

CASES = [(page, code) for page, codes in CODES.items() for code in codes]


class Transcript(NamedTuple):
    place: str
    limits: str
    lines: list[str]


def transcripts() -> Iterator[Transcript]:
    for page in CODES:
        limits: str | None = None
        lines: list[str] = []
        for number, line in enumerate((DOCS / page).read_text(encoding="utf-8").splitlines(), 1):
            if limits is not None and line == "```":
                yield Transcript(f"{page}:{number - len(lines)}", limits, lines)
                limits = None
            elif limits is not None:
                lines.append(line)
            elif line.startswith("```transcript"):
                limits, lines = line.removeprefix("```transcript"), []


def value(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def decode(text: str) -> bytes:
    """Decode what a transcript cannot contain: ``␛`` is that control character, ``⟨e9⟩`` a single byte, and
    ``⟨600 times x⟩`` stands for itself."""
    text = re.sub(r"⟨(\d+) times (.)⟩", lambda match: match[2] * int(match[1]), text)
    text = re.sub("[\u2400-\u241f]", lambda match: chr(ord(match[0]) - 0x2400), text)
    pieces = re.split(r"⟨([0-9a-f]{2})⟩", text)
    return b"".join(bytes.fromhex(piece) if odd % 2 else piece.encode() for odd, piece in enumerate(pieces))


class Player:
    """Plays one transcript."""

    def __init__(self, limits: str) -> None:
        options = {name.replace("-", "_"): value(text) for name, text in (word.split("=") for word in limits.split())}
        late = options.pop("backplane", None) == "late"
        self.has_json_lines = options.pop("json", None) == "lines"
        policy = None
        if options.pop("policy", None) == "on":
            tokens = {"token-of-ann": ("ann", {"kitchen": "rw", "lobby": "r"}, FakeServer().wall + 3600)}
            policy = FakePolicy({"lobby": "rw"}, tokens)
        self.server = FakeServer(late=late, policy=policy, **options)
        self.late = late
        self.clients: dict[str, FakeClient] = {}
        self.received: dict[str, list[str]] = {}

    def play(self, lines: list[str]) -> None:
        pending: tuple[str, list[bytes]] | None = None
        for line in [*lines, ""]:
            message = re.fullmatch(r"(\w+)([<>]) ?(.*)", line)
            if message is not None and message[2] == ">":
                name, text = message[1], decode(message[3])
                self.connect(name, text)
                if pending is None or pending[0] != name:
                    self.send(pending)
                    pending = (name, [])
                pending[1].append(text)
                continue
            self.send(pending)
            pending = None
            if message is not None:
                self.connect(message[1], message[3].encode())
                self.expect(message[1], message[3])
            elif line:
                self.handle_event(line)
        self.expect_nothing()

    def connect(self, name: str, first: bytes) -> None:
        if name not in self.clients:
            self.expect_nothing()
            self.clients[name] = self.client_for(first)
            self.received[name] = []
            if b"WELCOME" not in first and b'"welcome"' not in first:
                self.receive()
                assert "welcome" in self.received[name].pop(0).lower()

    def client_for(self, first: bytes) -> FakeClient:
        if not first.startswith(b"{"):
            return self.server.line_client()
        return self.server.json_line_client() if self.has_json_lines else self.server.json_client()

    def send(self, pending: tuple[str, list[bytes]] | None) -> None:
        if pending is None:
            return
        self.expect_nothing()
        client = self.clients[pending[0]]
        if isinstance(client, LineClient):
            client.send_bytes(b"".join(line + b"\n" for line in pending[1]))
        else:
            client.send_messages(*pending[1])
        self.run_turns()

    def run_turns(self) -> None:
        self.server.turn()
        while self.late and len(self.server.backplane):
            self.server.backplane.release()
            self.server.turn()

    def receive(self) -> None:
        for name, client in self.clients.items():
            if isinstance(client, JsonClient) and not self.has_json_lines:
                # The fake server has one address only.
                web = [
                    message.replace("127.0.0.1:8081", "127.0.0.1:8082")
                    for message in read_frames(client.received_bytes())
                ]
                self.received[name] += web
            else:
                self.received[name] += client.received_bytes().decode().splitlines()

    def expect(self, name: str, line: str) -> None:
        self.receive()
        assert self.received[name], f"{name} received nothing, expected: {line}"
        assert self.received[name].pop(0) == line

    def expect_nothing(self) -> None:
        self.receive()
        assert not any(self.received.values()), f"not in the transcript: {self.received}"

    def handle_event(self, line: str) -> None:
        for pattern, act in EVENTS.items():
            match = re.fullmatch(pattern, line)
            if match is not None:
                act(self, *match.groups())
                self.run_turns()
                return
        raise AssertionError(f"unknown event: {line}")

    # The events.

    def time_passes(self, seconds: str) -> None:
        self.server.now += float(seconds)
        self.server.wall += float(seconds)
        self.server.broker.expire_histories()

    def stops_reading(self, name: str) -> None:
        self.clients[name].outlet.room = 0

    def reads_again(self, name: str) -> None:
        self.clients[name].outlet.drain()

    def connection_breaks(self, name: str) -> None:
        self.clients[name].disconnect()
        del self.clients[name], self.received[name]

    def half_closes(self, name: str) -> None:
        self.clients[name].pipeline.end_of_input()

    def is_closed(self, name: str, code: str) -> None:
        reason = self.clients[name].close_reason
        assert reason is not None and CLOSE_CODES[reason] == int(code)

    def server_stops(self) -> None:
        for session in self.server.context.sessions:
            session.close(CloseReason.GOING_AWAY, b"the server is going away")

    def backplane_fails(self) -> None:
        self.server.backplane.failing = 1

    def internal_error_occurs(self) -> None:
        broker: Any = self.server.broker

        def fail(*arguments: object) -> None:
            del broker.publish
            raise ZeroDivisionError

        broker.publish = fail


EVENTS: dict[str, Callable[..., None]] = {
    r"\((\d+) seconds pass\)": Player.time_passes,
    r"\((\w+) stops reading\)": Player.stops_reading,
    r"\((\w+) reads again\)": Player.reads_again,
    r"\((\w+)'s connection breaks\)": Player.connection_breaks,
    r"\((\w+) ends its stream\)": Player.half_closes,
    r"\(the server closes (\w+)'s connection, (\d+)\)": Player.is_closed,
    r"\(the server stops\)": Player.server_stops,
    r"\(the backplane does not answer once\)": Player.backplane_fails,
    r"\(the server has a fault\)": Player.internal_error_occurs,
}


@pytest.mark.parametrize("transcript", list(transcripts()), ids=lambda transcript: transcript.place)
def test_transcript_shows_what_the_server_sends(transcript: Transcript) -> None:
    Player(transcript.limits).play(transcript.lines)


@pytest.mark.parametrize(("page", "code"), [case for case in CASES if case[1] not in UNSHOWN_CODES])
def test_transcript_shows_error_code(page: str, code: ErrorCode) -> None:
    lines = [line for transcript in transcripts() if transcript.place.startswith(page) for line in transcript.lines]
    word = code.decode()
    assert any(re.search(rf'< ERR {word} |< .*"code":"{word}"', line) for line in lines)


def test_wrong_transcripts_fail() -> None:
    """A wrong answer, a missing one, one too many, an unknown event."""
    for lines in (
        ["ann> PING", "ann< PONG?"],
        ["ann> PING"],
        ["ann> QUIET on", "ann< OK", "ann< OK"],
        ["(the sky falls)"],
    ):
        with pytest.raises(AssertionError):
            Player("").play(lines)
