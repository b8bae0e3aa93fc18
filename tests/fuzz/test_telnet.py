"""What a telnet client says as a telnet client."""

from hypothesis import strategies as st

from tests.fuzz.grammars import CUTS, TELNET, damaged
from tests.fuzz.properties import cut, holds, kept
from twistedsock.codecs.telnet import IAC, TelnetFilter


def expected(data: bytes) -> tuple[bytes, bytes, int]:
    """Written from RFC 854 with an index instead of states."""
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
    """Any bytes, at any cuts, give what was typed, without a byte of what a telnet says for itself, a refusal for each
    option, and nothing is kept."""
    telnet = TelnetFilter()
    typed, answer, interrupts = b"", b"", 0
    for piece in cut(data, cuts):
        more, answers, count = telnet.feed(piece)
        typed, answer, interrupts = typed + more, answer + answers, interrupts + count
        assert kept(telnet) == 0 and len(answers) <= 3 * len(piece)
    assert (typed, answer, interrupts) == expected(data)
