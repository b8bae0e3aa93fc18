"""WebSocket messages that come in many pieces, kept as one."""

from typing import Any


class Fragments:
    """Mixed into a WebSocket protocol, before Autobahn's class, which keeps each piece that comes as an object of its
    own: a message in pieces of two bytes takes 28 times its size, and fragments without a byte (RFC 6455 section 5.4
    allows them) take memory for ever, as no bound on bytes is reached. Here the pieces are joined as they come, and a
    message may have as many fragments as it may have bytes."""

    _joined: bytes | bytearray = b""

    # What Autobahn's class has.
    failedByMe: bool
    maxMessagePayloadSize: int
    message_data: Any
    frame_data: Any

    def onMessageBegin(self, isBinary: bool) -> None:
        super().onMessageBegin(isBinary)  # type: ignore[misc]
        self._joined = bytearray()
        self._fragments = 0

    def onMessageFrameBegin(self, length: int) -> None:
        super().onMessageFrameBegin(length)  # type: ignore[misc]
        self._fragments += 1
        most = self.maxMessagePayloadSize
        if self._fragments > most and not self.failedByMe:
            self.wasMaxMessagePayloadSizeExceeded = True
            words = f"received WebSocket message of more than {most} fragments"
            self._max_message_size_exceeded(self._fragments, most, words)  # type: ignore[attr-defined]

    def onMessageFrameData(self, payload: bytes) -> None:
        if not self.failedByMe:
            self._joined += payload

    def onMessageFrameEnd(self) -> None:
        self.frame_data = None

    def onMessageEnd(self) -> None:
        self.message_data = [bytes(self._joined)]
        del self._joined, self._fragments
        super().onMessageEnd()  # type: ignore[misc]
