"""The transcripts in docs/ are true: each fenced block ``transcript`` is played against the real codecs and sessions.

``ann> …`` is what ann's program sends, ``ann< …`` what it hears; lines of one peer in a row are sent in one write. A
peer connects where it is first named; one whose first words are JSON speaks the JSON dialect. Its welcome may be left
out, everything else that a peer hears must be shown. Sentences in parentheses are stage directions. What stands behind
``transcript`` are limits of that bridge, ``backplane=late``, or ``policy=on``, by which anybody may use the lobby, and
``token-of-ann`` lets ann use the kitchen for an hour.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from twistedsock.errors import CloseReason, ErrorCode
from twistedsock.testing import FakeClient, FakePolicy, FakeServer, JsonClient, LineClient, read_frames

DOCS = Path(__file__).parent.parent / "docs" / "reference"
NOT_YET_SAID = {ErrorCode.RATE}
"""Codes that are in the catalogue for what is to come, and that nothing says yet."""

CODES = {
    "line-protocol.md": [code for code in ErrorCode if code not in (ErrorCode.BAD_JSON, ErrorCode.BAD_TYPE)],
    "json-protocol.md": [
        code for code in ErrorCode if code not in (ErrorCode.UNKNOWN_COMMAND, ErrorCode.TOO_LONG, ErrorCode.NOT_UTF8)
    ],
}
"""What each dialect can say."""

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


def typed(text: str) -> bytes:
    """What a transcript cannot show: ``␛`` is the control character that it pictures, ``⟨e9⟩`` a single byte, and
    ``⟨600 times x⟩`` stands for itself."""
    text = re.sub(r"⟨(\d+) times (.)⟩", lambda match: match[2] * int(match[1]), text)
    text = re.sub("[\u2400-\u241f]", lambda match: chr(ord(match[0]) - 0x2400), text)
    pieces = re.split(r"⟨([0-9a-f]{2})⟩", text)
    return b"".join(bytes.fromhex(piece) if odd % 2 else piece.encode() for odd, piece in enumerate(pieces))


class Stage:
    """Plays one transcript."""

    def __init__(self, limits: str) -> None:
        told = {name.replace("-", "_"): value(text) for name, text in (word.split("=") for word in limits.split())}
        late = told.pop("backplane", None) == "late"
        policy = None
        if told.pop("policy", None) == "on":
            tokens = {"token-of-ann": ("ann", {"kitchen": "rw", "lobby": "r"}, FakeServer().wall + 3600)}
            policy = FakePolicy({"lobby": "rw"}, tokens)
        self.server = FakeServer(late=late, policy=policy, **told)
        self.late = late
        self.peers: dict[str, FakeClient] = {}
        self.heard: dict[str, list[str]] = {}

    def play(self, lines: list[str]) -> None:
        waiting: tuple[str, list[bytes]] | None = None
        for line in [*lines, ""]:
            speech = re.fullmatch(r"(\w+)([<>]) ?(.*)", line)
            if speech is not None and speech[2] == ">":
                peer, text = speech[1], typed(speech[3])
                self.enter(peer, text)
                if waiting is None or waiting[0] != peer:
                    self.say(waiting)
                    waiting = (peer, [])
                waiting[1].append(text)
                continue
            self.say(waiting)
            waiting = None
            if speech is not None:
                self.enter(speech[1], speech[3].encode())
                self.expect(speech[1], speech[3])
            elif line:
                self.direct(line)
        self.expect_silence()

    def enter(self, name: str, words: bytes) -> None:
        if name not in self.peers:
            self.expect_silence()
            self.peers[name] = self.server.json_client() if words.startswith(b"{") else self.server.line_client()
            self.heard[name] = []
            if b"WELCOME" not in words and b'"welcome"' not in words:
                self.listen()
                assert "welcome" in self.heard[name].pop(0).lower()

    def say(self, speech: tuple[str, list[bytes]] | None) -> None:
        if speech is None:
            return
        self.expect_silence()
        peer = self.peers[speech[0]]
        if isinstance(peer, LineClient):
            peer.send_bytes(b"".join(line + b"\n" for line in speech[1]))
        else:
            peer.send_messages(*speech[1])
        self.rest()

    def rest(self) -> None:
        self.server.turn()
        while self.late and len(self.server.backplane):
            self.server.backplane.release()
            self.server.turn()

    def listen(self) -> None:
        for name, peer in self.peers.items():
            if isinstance(peer, JsonClient):
                # The bridge in the hall has one address; a page has come in by the other one.
                web = [
                    words.replace("127.0.0.1:8081", "127.0.0.1:8082") for words in read_frames(peer.received_bytes())
                ]
                self.heard[name] += web
            else:
                self.heard[name] += peer.received_bytes().decode().splitlines()

    def expect(self, name: str, words: str) -> None:
        self.listen()
        assert self.heard[name], f"{name} hears nothing, not: {words}"
        assert self.heard[name].pop(0) == words

    def expect_silence(self) -> None:
        self.listen()
        assert not any(self.heard.values()), f"not in the transcript: {self.heard}"

    def direct(self, line: str) -> None:
        for pattern, act in DIRECTIONS.items():
            match = re.fullmatch(pattern, line)
            if match is not None:
                act(self, *match.groups())
                self.rest()
                return
        raise AssertionError(f"no stage direction: {line}")

    # The stage directions.

    def time_passes(self, seconds: str) -> None:
        self.server.now += float(seconds)
        self.server.broker.expire_histories()

    def stops_reading(self, name: str) -> None:
        self.peers[name].outlet.room = 0

    def reads_again(self, name: str) -> None:
        self.peers[name].outlet.drain()

    def is_cut_off(self, name: str) -> None:
        self.peers[name].disconnect()
        del self.peers[name], self.heard[name]

    def half_closes(self, name: str) -> None:
        self.peers[name].pipeline.end_of_input()

    def is_closed(self, name: str, code: str) -> None:
        assert self.peers[name].close_reason == CloseReason(int(code))

    def server_stops(self) -> None:
        for session in self.server.context.sessions:
            session.close(CloseReason.GOING_AWAY, b"the server is going away")

    def backplane_fails(self) -> None:
        self.server.backplane.failing = 1

    def server_has_a_fault(self) -> None:
        broker: Any = self.server.broker

        def fail(*arguments: object) -> None:
            del broker.publish
            raise ZeroDivisionError

        broker.publish = fail


DIRECTIONS: dict[str, Callable[..., None]] = {
    r"\((\d+) seconds pass\)": Stage.time_passes,
    r"\((\w+) stops reading\)": Stage.stops_reading,
    r"\((\w+) reads again\)": Stage.reads_again,
    r"\((\w+)'s connection breaks\)": Stage.is_cut_off,
    r"\((\w+) ends its stream\)": Stage.half_closes,
    r"\(the server closes (\w+)'s connection, (\d+)\)": Stage.is_closed,
    r"\(the server stops\)": Stage.server_stops,
    r"\(the backplane does not answer once\)": Stage.backplane_fails,
    r"\(the server has a fault\)": Stage.server_has_a_fault,
}


@pytest.mark.parametrize("transcript", list(transcripts()), ids=lambda transcript: transcript.place)
def test_a_transcript_is_what_the_bridge_says(transcript: Transcript) -> None:
    Stage(transcript.limits).play(transcript.lines)


@pytest.mark.parametrize(("page", "code"), CASES)
def test_every_error_code_is_explained(page: str, code: ErrorCode) -> None:
    assert f"| `{code.decode()}` |" in (DOCS / page).read_text(encoding="utf-8")


@pytest.mark.parametrize(("page", "code"), [case for case in CASES if case[1] not in NOT_YET_SAID])
def test_every_error_code_is_shown_in_a_transcript(page: str, code: ErrorCode) -> None:
    heard = [line for transcript in transcripts() if transcript.place.startswith(page) for line in transcript.lines]
    word = code.decode()
    assert any(re.search(rf'< ERR {word} |< .*"code":"{word}"', line) for line in heard)


def test_a_transcript_that_is_not_true_is_found_out() -> None:
    """The stage itself: a wrong answer, one that is missing and one too many."""
    for lines in (
        ["ann> PING", "ann< PONG?"],
        ["ann> PING"],
        ["ann> QUIET on", "ann< OK", "ann< OK"],
        ["(the sky falls)"],
    ):
        with pytest.raises(AssertionError):
            Stage("").play(lines)
