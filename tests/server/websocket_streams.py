"""WebSocket frames, and random streams of them with random splits."""

import struct
from collections.abc import Iterator
from itertools import accumulate
from random import Random

from twistedsock.codecs.websocket import unmask

MASK = b"\x12\x34\x56\x78"

HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:8082\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def frame(first: int, payload: bytes, mask: bytes | None = MASK, width: int | None = None) -> bytes:
    """A frame. ``first`` is its first byte; ``width`` the number of bytes of its length, the smallest if None."""
    size = len(payload)
    if width is None:
        width = 0 if size < 126 else 2 if size < 65536 else 8
    flag = 0x80 if mask else 0
    head = (
        bytes([first, flag | (size if width == 0 else 126 if width == 2 else 127)])
        + size.to_bytes(8, "big")[8 - width :]
    )
    return head + mask + unmask(payload, mask) if mask else head + payload


SIZES = [0, 1, 2, 5, 60, 124, 125, 126, 127, 300, 4000, 65534, 65535, 65536, 65537, 70000]
NOT_UTF8 = [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\x80", b"ab\xe2\x82", b"\xf0\x9f\x98"]


class Streams:
    """Draws valid and invalid input of a client."""

    def __init__(self, random: Random) -> None:
        self.random = random

    def text(self) -> bytes:
        size = self.random.choice(SIZES[:11] if self.random.random() < 0.85 else SIZES)
        letters = self.random.choice(["a", "é", "€", "😀", "aé€😀", '{"', "\x00\x7f"]).encode()
        text = (letters * (size // len(letters) + 1)).decode()
        return text[: size // max(1, len(letters))].encode() if len(letters) > 1 else text[:size].encode()

    def mask(self) -> bytes:
        return self.random.choice([b"\x00\x00\x00\x00", self.random.randbytes(4)])

    def plain(self) -> bytes:
        return frame(0x81, self.text(), self.mask())

    def control(self) -> bytes:
        return frame(
            self.random.choice([0x89, 0x8A]), self.random.randbytes(self.random.choice([0, 1, 12, 125])), self.mask()
        )

    def fragments(self) -> bytes:
        """A message in fragments, which may split a character, with control frames between them."""
        payload = self.text() if self.random.random() < 0.8 else self.text() + self.random.choice(NOT_UTF8)
        places = sorted(self.random.randint(0, len(payload)) for _ in range(self.random.randint(1, 3)))
        pieces = [payload[start:end] for start, end in zip([0, *places], [*places, len(payload)], strict=True)]
        kind = 2 if self.random.random() < 0.05 else 1
        sent = b""
        for index, piece in enumerate(pieces):
            last = index == len(pieces) - 1
            sent += frame((0x80 if last else 0) | (0 if index else kind), piece, self.mask())
            if not last and self.random.random() < 0.3:
                sent += self.control()
        return sent

    def close(self) -> bytes:
        code = self.random.choice(
            [1000, 1001, 1002, 1003, 1007, 1013, 3000, 4999, 0, 999, 1004, 1005, 1006, 5000, 65535]
        )
        body = self.random.choice(
            [b"", b"\x03", struct.pack("!H", code), struct.pack("!H", code) + b"bye \xe2\x82\xac"]
        )
        return frame(0x88, body + self.random.choice([b"", b"", b"\xff"]), self.mask())

    def fault(self) -> bytes:
        """A protocol error."""
        random, text = self.random, self.text()[:300]
        return random.choice(
            [
                frame(0x82, text),
                frame(0x81, text, None),
                frame(0x81 | random.choice([0x40, 0x20, 0x10, 0x70]), text),
                frame(0x80 | random.choice([3, 4, 5, 6, 7, 11, 12, 13, 14, 15]), text[:100]),
                frame(0x81, self.text() + random.choice(NOT_UTF8), self.mask()),
                frame(0x81, text[:120], width=2),
                frame(0x81, text[:120], width=8),
                frame(0x81, text, width=8),
                frame(0x81, b"x" * random.choice([65537, 66000])),
                b"\x81\xff"
                + random.choice([b"\xff" * 8, b"\x80" + b"\x00" * 7, b"\x00\x00\x00\x01" * 2])
                + self.mask()
                + text,
                frame(0x09, b"x"),
                frame(0x89, b"x" * 126),
                frame(0x80, text),
                frame(0x01, b"x" * 40_000) + frame(0x80, b"x" * 40_000),
                random.randbytes(random.randint(1, 20)),
                self.plain()[:-1] + b"",
            ]
        )

    def stream(self) -> list[bytes]:
        """Frames, or something similar."""
        if self.random.random() < 0.05:
            return [frame(0x01, self.text()), self.plain(), frame(0x80, self.text())]
        draw = [self.plain] * 8 + [self.control] * 2 + [self.fragments] * 2
        if self.random.random() < 0.6:
            draw += [self.fault, self.close]
        return [self.random.choice(draw)() for _ in range(self.random.randint(1, 8))]

    def cut(self, frames: list[bytes]) -> Iterator[bytes]:
        data = b"".join(frames)
        style = self.random.random()
        if style < 0.1:
            places: list[int] = []
        elif style < 0.2:
            places = list(accumulate(len(frame) for frame in frames))
        elif style < 0.35 and len(data) < 1500:
            places = list(range(1, len(data)))
        elif style < 0.7:
            # Near the beginning: splits of the heads.
            places = [self.random.randint(0, min(len(data), 20)) for _ in range(4)]
            places += [self.random.randint(0, len(data)) for _ in range(2)]
        else:
            places = [self.random.randint(0, len(data)) for _ in range(self.random.randint(1, 12))]
        start = 0
        for place in [*sorted(set(places)), len(data)]:
            if place > start:
                yield data[start:place]
                start = place
