"""Connections of the load over both protocols, which read and write slowly, in halves, or not at all."""

import asyncio
import socket
import struct
from typing import Self

from bench.soak.tally import Tally, Wrong
from twistedsock.bench.wires import client_frame, upgrade

Address = tuple[str, int]

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A
FIRST, MIDDLE, LAST = 0x01, 0x00, 0x80
"""First bytes of frames: whole ones, and those of a fragmented text (RFC 6455, sections 5.2 and 5.4)."""


class Refused(ConnectionError):
    """The server refused the connection, with an error."""


class Ended(ConnectionError):
    """The server has closed the connection; ``code`` is that of a WebSocket's close frame."""

    def __init__(self, code: int = 0) -> None:
        super().__init__(f"closed by the bridge, code {code}")
        self.code = code


class Connection:
    """A socket without blocking. ``room`` bounds what the kernel receives for us: little, for a slow reader."""

    def __init__(self, tally: Tally, connected: socket.socket) -> None:
        self.buffer = bytearray()
        self._pieces: list[bytes] = []
        self._tally = tally
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._open = True
        tally.connections += 1

    @classmethod
    async def connect(cls, tally: Tally, address: Address, room: int = 0) -> Self:
        connected = socket.socket()
        try:
            connected.setblocking(False)
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if room:
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
            await asyncio.get_running_loop().sock_connect(connected, address)
        except BaseException:
            connected.close()
            raise
        return cls(tally, connected)

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    async def fill(self, most: int = 65_536) -> None:
        """Read more bytes into the buffer. Raises Ended."""
        data = await self._loop.sock_recv(self._socket, most)
        if not data:
            raise Ended
        self.buffer += data

    async def until(self, end: bytes) -> bytes:
        """All bytes up to and including ``end``."""
        looked = 0
        while (found := self.buffer.find(end, looked)) < 0:
            looked = max(0, len(self.buffer) - len(end) + 1)
            await self.fill()
        return self.take(found + len(end))

    def take(self, count: int) -> bytes:
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    async def to_the_end(self) -> bytes:
        """All bytes until the server closes the connection, in whatever way."""
        try:
            while True:
                await self.fill()
        except ConnectionError:
            return self.take(len(self.buffer))

    def finish(self) -> None:
        """Send a FIN: a half-close."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._tally.connections -= 1
            self._socket.close()

    def reset(self) -> None:
        """Close with an RST, like a crash."""
        if self._open:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close()


class LineConnection(Connection):
    """Lines over TCP."""

    async def greet(self) -> bytes:
        """Read the welcome. Raises Refused."""
        line = await self.hear()
        if line.startswith(b"ERR limit "):
            raise Refused(line)
        return line

    async def say(self, *messages: bytes) -> None:
        await self.send(b"\n".join(messages) + b"\n")

    async def hear(self) -> bytes:
        """The next line, without its end."""
        return (await self.until(b"\n"))[:-1]

    def has_message(self) -> bool:
        """Whether a line has arrived that was not read yet."""
        return b"\n" in self.buffer

    async def leave(self) -> None:
        """Close politely."""
        await self.say(b"QUIT")
        await self.to_the_end()
        self.close()


class WebConnection(Connection):
    """A WebSocket. The Host header is always the same literal address, with its port."""

    async def greet(self, address: Address, subprotocol: str) -> bytes:
        """Perform the handshake and read the welcome. Raises Refused."""
        await self.send(upgrade("/ws", f"{address[0]}:{address[1]}", subprotocol))
        head = await self.until(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise Refused(head.partition(b"\r\n")[0])
        return await self.hear()

    async def say(self, *messages: bytes) -> None:
        await self.send(b"".join(map(client_frame, messages)))

    async def hear(self) -> bytes:
        """The next message. Pings are answered. Raises Ended after answering a close frame, and Wrong for an invalid
        frame."""
        while True:
            kind, payload = await self._frame()
            if kind == PING:
                await self.send(_control(PONG, payload))
            elif kind == CLOSE:
                await self.send(_control(CLOSE, payload))
                raise Ended(int.from_bytes(payload[:2], "big"))
            elif kind in ((MIDDLE, LAST) if self._pieces else (FIRST, TEXT)):
                self._pieces.append(payload)
                if kind in (TEXT, LAST):
                    message = b"".join(self._pieces)
                    self._pieces.clear()
                    return message
            elif kind != PONG:
                raise Wrong(f"a frame that begins with {kind:#x}, after {len(self._pieces)} pieces")

    async def leave(self) -> None:
        """Close politely: with a close frame and its answer."""
        await self.send(_control(CLOSE, (1000).to_bytes(2, "big")))
        await self.to_the_end()
        self.close()

    def has_message(self) -> bool:
        """Whether a frame has arrived that was not read yet."""
        return self._length()[1] <= len(self.buffer)

    async def _frame(self) -> tuple[int, bytes]:
        while (length := self._length())[1] > len(self.buffer):
            await self.fill()
        kind = self.buffer[0]
        return kind, self.take(length[1])[length[0] :]

    def _length(self) -> tuple[int, int]:
        """Sizes of the head and of the whole next frame; more than has arrived if that is not known yet."""
        buffer = self.buffer
        if len(buffer) < 2:
            return 0, 2
        size = buffer[1]
        if size < 126:
            return 2, 2 + size
        head = 4 if size == 126 else 10
        return head, head + int.from_bytes(buffer[2:head], "big")


def _control(kind: int, payload: bytes) -> bytes:
    return bytes((kind, 0x80 | len(payload))) + bytes(4) + payload
