"""Telnet commands are separated from the text."""

import pytest
from hypothesis import strategies as st

from tests.fuzz.grammars import CUTS, TELNET, damaged
from tests.fuzz.properties import buffered_bytes, cut, holds
from twistedsock.codecs.telnet import TelnetFilter, replace_returns

IAC, SE, DM, BRK, IP, AYT, SB = b"\xff", b"\xf0", b"\xf2", b"\xf3", b"\xf4", b"\xf6", b"\xfa"
WILL, WONT, DO, DONT = b"\xfb", b"\xfc", b"\xfd", b"\xfe"
ECHO, TIMING_MARK, TYPE, SIZE = b"\x01", b"\x06", b"\x18", b"\x1f"

TABLE = {
    "plain text": (b"SUB a\r\n", b"SUB a\r\n", b"", 0),
    "nothing": (b"", b"", b"", 0),
    "text in UTF-8": ("é€😀\n".encode(), "é€😀\n".encode(), b"", 0),
    "WILL is refused by DONT": (IAC + WILL + TYPE, b"", IAC + DONT + TYPE, 0),
    "DO is refused by WONT": (IAC + DO + ECHO, b"", IAC + WONT + ECHO, 0),
    "WONT and DONT need no answer": (IAC + WONT + ECHO + IAC + DONT + SIZE, b"", b"", 0),
    "an option numbered 255": (IAC + DO + IAC + b"x", b"x", IAC + WONT + IAC, 0),
    "IAC IAC is the byte 255": (b"a" + IAC + IAC + b"b", b"a\xffb", b"", 0),
    "negotiation amidst a line": (b"PU" + IAC + DO + ECHO + b"B a b\n", b"PUB a b\n", IAC + WONT + ECHO, 0),
    "several at once": (
        IAC + WILL + TYPE + IAC + DO + ECHO + b"x" + IAC + WILL + SIZE,
        b"x",
        IAC + DONT + TYPE + IAC + WONT + ECHO + IAC + DONT + SIZE,
        0,
    ),
    "a subnegotiation is skipped": (b"a" + IAC + SB + TYPE + b"\x00xterm\n" + IAC + SE + b"b", b"ab", b"", 0),
    "IAC IAC within one does not end it": (IAC + SB + TYPE + IAC + IAC + SE + b"x" + IAC + SE + b"b", b"b", b"", 0),
    "nor does another command": (IAC + SB + TYPE + IAC + DO + ECHO + IAC + SE + b"b", b"b", b"", 0),
    "an endless one": (b"a" + IAC + SB + b"QUIT\n" * 20, b"a", b"", 0),
    "Ctrl-C": (IAC + IP, b"", b"", 1),
    "Ctrl-C as telnet sends it": (IAC + IP + IAC + DO + TIMING_MARK, b"", IAC + WONT + TIMING_MARK, 1),
    "are you there": (IAC + AYT, b"", b"", 1),
    "both, twice": ((IAC + AYT + IAC + IP) * 2, b"", b"", 4),
    "other commands mean nothing here": (b"a" + IAC + BRK + b"b" + IAC + DM + b"c" + IAC + SE + b"d", b"abcd", b"", 0),
    "unknown commands too": (b"a" + IAC + b"\x00b" + IAC + b"Qc", b"abc", b"", 0),
    "cut off after IAC": (b"a" + IAC, b"a", b"", 0),
    "cut off after DO": (b"a" + IAC + DO, b"a", b"", 0),
}


def read(pieces: list[bytes]) -> tuple[bytes, bytes, int]:
    """The typed text, the bytes to send back and the number of interrupts of all pieces."""
    telnet = TelnetFilter()
    typed, answer, interrupts = b"", b"", 0
    for piece in pieces:
        more_typed, more_answer, more_interrupts = telnet.feed(piece)
        typed, answer, interrupts = typed + more_typed, answer + more_answer, interrupts + more_interrupts
    return typed, answer, interrupts


@pytest.mark.parametrize(("data", "typed", "answer", "interrupts"), TABLE.values(), ids=TABLE.keys())
def test_filters_telnet_at_every_cut(data: bytes, typed: bytes, answer: bytes, interrupts: int, cuts) -> None:
    for pieces in cuts(data):
        assert read(pieces) == (typed, answer, interrupts), pieces


def test_passes_text_behind_each_command() -> None:
    for name, (data, typed, answer, interrupts) in TABLE.items():
        if "endless" not in name and "cut off" not in name:
            assert read([data, b"PING\n"]) == (typed + b"PING\n", answer, interrupts), name


def test_passes_text_without_copying() -> None:
    data = b"PUB a b\n" * 100
    assert TelnetFilter().feed(data)[0] is data


def test_does_not_buffer_subnegotiations() -> None:
    assert TelnetFilter.__slots__ == ("_state",)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"PING\r\0", b"PING\r\n"),
        (b"PING 1\r\0PING 2\r\nPING 3\n\r\0", b"PING 1\r\nPING 2\r\nPING 3\n\r\n"),
        (b"a\r\r\0b", b"a\r\r\nb"),
        (b"a\r\0\0b", b"a\r\n\0b"),
        (b"a\0b\rc", b"a\0b\rc"),
        (b"\0", b"\0"),
        (b"", b""),
    ],
)
def test_cr_nul_ends_a_line_at_every_cut(data: bytes, lines: bytes, cuts) -> None:
    """RFC 1123 section 3.3.1."""
    for pieces in cuts(data):
        returned, read = False, b""
        for piece in pieces:
            read += replace_returns(piece, returned)
            returned = piece.endswith(b"\r")
        assert read == lines, pieces


def expected(data: bytes) -> tuple[bytes, bytes, int]:
    """A second implementation from RFC 854, with an index instead of states."""
    typed, answer, interrupts, index = b"", b"", 0, 0
    while index < len(data):
        if data[index : index + 1] != IAC:
            typed, index = typed + data[index : index + 1], index + 1
            continue
        command = data[index + 1 : index + 2]
        if not command:
            break
        if command == IAC:
            typed += IAC
        interrupts += command in (b"\xf4", b"\xf6")
        index += 2
        if command == b"\xfa":
            while index < len(data) and data[index : index + 2] != b"\xff\xf0":
                index += 2 if data[index : index + 1] == IAC else 1
            index += 2
        elif command in (b"\xfb", b"\xfc", b"\xfd", b"\xfe"):
            option = data[index : index + 1]
            if option and command in (b"\xfb", b"\xfd"):
                answer += IAC + (b"\xfe" if command == b"\xfb" else b"\xfc") + option
            index += 1
    return typed, answer, interrupts


@holds(examples=120, data=damaged(TELNET.map(b"".join), 4) | st.binary(), cuts=CUTS)
def test_any_stream(data: bytes, cuts: list[int]) -> None:
    """Any bytes, at any cuts, give the typed text without telnet commands and a refusal for each option; nothing is
    buffered."""
    telnet = TelnetFilter()
    typed, answer, interrupts = b"", b"", 0
    for piece in cut(data, cuts):
        more, answers, count = telnet.feed(piece)
        typed, answer, interrupts = typed + more, answer + answers, interrupts + count
        assert buffered_bytes(telnet) == 0 and len(answers) <= 3 * len(piece)
    assert (typed, answer, interrupts) == expected(data)
