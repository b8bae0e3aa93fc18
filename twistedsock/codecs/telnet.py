"""Telnet commands in the line protocol, for people who connect with a telnet client (RFC 854, RFC 855, RFC 860).

All options are refused, and negotiation never becomes a part of a payload. Telnet commands begin with the byte 255,
which valid UTF-8 does not contain, so other clients are not affected.
"""

from enum import Enum, auto

IAC = 0xFF
"""As an integer: CPython finds an integer in bytes several times faster than a bytes object of length one."""

_SE, _AYT, _IP, _SB, _WILL, _WONT, _DO, _DONT = 240, 246, 244, 250, 251, 252, 253, 254


def replace_returns(data: bytes, returned: bool) -> bytes:
    """The data with CR LF for each CR NUL, which means the same (RFC 1123 section 3.3.1). ``returned`` is true if the
    data before it ended with CR."""
    if returned and data.startswith(b"\0"):
        data = b"\n" + data[1:]
    return data.replace(b"\r\0", b"\r\n")


class _State(Enum):
    DATA = auto()
    COMMAND = auto()  # after IAC
    WILL = auto()  # after IAC WILL
    DO = auto()  # after IAC DO
    IGNORE = auto()  # after IAC WONT or IAC DONT
    SUBNEGOTIATION = auto()  # after IAC SB
    SUBNEGOTIATION_COMMAND = auto()  # after IAC, within a subnegotiation


_AFTER_COMMAND = {
    _WILL: _State.WILL,
    _DO: _State.DO,
    _WONT: _State.IGNORE,
    _DONT: _State.IGNORE,
    _SB: _State.SUBNEGOTIATION,
}


class TelnetFilter:
    """Separates telnet commands from the text that the user types. Subnegotiations are skipped without buffering, so an
    endless one needs no memory."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = _State.DATA

    def feed(self, data: bytes) -> tuple[bytes, bytes, int]:
        """Returns the typed text, the bytes to send back, and the number of interrupts: Ctrl-C or Are You There."""
        if self._state is _State.DATA and IAC not in data:
            return data, b"", 0
        typed, answer, interrupts = bytearray(), bytearray(), 0
        for byte in data:
            state, self._state = self._state, _State.DATA
            if state is _State.DATA:
                if byte == 255:
                    self._state = _State.COMMAND
                else:
                    typed.append(byte)
            elif state is _State.COMMAND:
                if byte == 255:  # IAC IAC is the byte itself
                    typed.append(byte)
                elif byte in (_IP, _AYT):
                    interrupts += 1
                else:
                    self._state = _AFTER_COMMAND.get(byte, _State.DATA)
            elif state is _State.WILL:
                answer += bytes((255, _DONT, byte))
            elif state is _State.DO:
                answer += bytes((255, _WONT, byte))
            elif state is _State.SUBNEGOTIATION:
                self._state = _State.SUBNEGOTIATION_COMMAND if byte == 255 else state
            elif state is _State.SUBNEGOTIATION_COMMAND and byte != _SE:
                self._state = _State.SUBNEGOTIATION
        return bytes(typed), bytes(answer), interrupts
