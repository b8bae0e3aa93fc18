"""Visitors that send invalid data or stop in the middle. The server answers or closes each connection, and keeps
nothing of it."""

import asyncio
import re
from collections.abc import Callable

from bench.soak.connections import Connection, LineConnection
from bench.soak.dialects import LINES
from bench.soak.tally import Wrong
from bench.soak.world import World
from twistedsock.bench.wires import client_frame, upgrade

LINES_OF_NO_USE = (
    b"NONSENSE",
    b"PUB",
    b"SUB a b c",
    b"SUB x since=1",
    b"EMIT a b\x00c d",
    b"NICK " + b"n" * 100,
    b"SUB " + b"c" * 300,
    b"HELP nonsense",
    b"",
)
"""Each is answered with an error, another message, or nothing; the connection stays open."""

BYTES_OF_NO_USE = (b"PUB a\xff \xfe", b"PUB a " + b"x" * 70_000, b"\xff\xf4\xff\xfd\x06")
"""Not UTF-8, too long, telnet's Ctrl-C: only at the line port."""

MESSAGES_OF_NO_USE = (
    b"[]",
    b"{",
    b'{"type":"nonsense","id":1}',
    b'{"type":"publish"}',
    b'{"id":1}',
    b'{"type":"subscribe","id":1,"channel":7}',
    b'{"type":"publish","id":1,"channel":"a","data":' + b"[" * 20_000,
    b'{"type":"publish","id":1,"channel":"a","data":"\\ud800"}',
    b'{"type":"history","id":1,"channel":"a","since":99999999999999999999}',
)

FRAMES_OF_NO_USE = (
    b"\x82\x81\0\0\0\0x",
    b"\x81\x01x",
    b"\x8f\x80\0\0\0\0",
    b"\xc1\x81\0\0\0\0x",
    b"\x81\x82\0\0\0\0\xff\xfe",
    b"\x81\xff\0\0\0\0\x7f\xff\xff\xff\0\0\0\0",
    b"\x80\x81\0\0\0\0x",
    b"\x89\xfe\x01\x00\0\0\0\0" + b"p" * 256,
    b"\x88\x81\0\0\0\0x",
)
"""Binary, unmasked, unknown, reserved bit, not UTF-8, too large, out of order, a long ping, half a close code: the
server closes after each."""

FIRST_PIECE, MIDDLE_PIECE, LAST_PIECE = b"\x01\x81\0\0\0\0{", b"\x00\x81\0\0\0\0 ", b"\x80\x81\0\0\0\0}"


def handshakes(host: str) -> list[tuple[bytes, bytes]]:
    """WebSocket requests that are refused, with the status."""
    good = upgrade("/ws", host)
    return [
        (good.replace(b"\r\n\r\n", b"\r\nOrigin: http://evil.example\r\n\r\n"), b"403"),
        (good.replace(host.encode(), b"evil.example"), b"421"),
        (upgrade("/elsewhere", host), b"404"),
        (upgrade("/ws", host, "nonsense.v9"), b"400"),
        (good.replace(b"Version: 13", b"Version: 7"), b"400"),
        (good.replace(b"Sec-WebSocket-Key: ", b"Sec-WebSocket-Key: !"), b"400"),
        (b"NONSENSE\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000, b"431"),
        (f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello".encode(), b"405"),
    ]


async def refused(world: World) -> None:
    """A handshake that must fail, with the right status."""
    connection = await world.bare(web=True)
    try:
        request, status = world.chance.choice(handshakes(f"{world.web[0]}:{world.web[1]}"))
        if status == b"403":  # many different ones: the log of them is limited
            request = request.replace(b"evil", b"evil%d" % world.chance.randrange(10_000))
        await connection.send(request)
        head = await connection.until(b"\r\n")
        if head[9:12] not in (status, b"503"):
            raise Wrong(f"{request[:200]!r} was answered by {head!r}")
        world.tally.seen[f"refused {head[9:12].decode()}"] += 1
    finally:
        _part(world, connection)


async def nonsense(world: World) -> None:
    """Invalid commands in a row, then a valid one that must still be answered."""
    talk = await world.any()
    try:
        messages: tuple[bytes, ...] = MESSAGES_OF_NO_USE
        if talk.dialect is LINES:  # a WebSocket is closed for bytes that are no text, and for what is too long
            fitting = isinstance(talk.connection, LineConnection)
            messages = LINES_OF_NO_USE + BYTES_OF_NO_USE * fitting
        ping = talk.dialect.command(77, "ping")  # the first message decides the protocol, unless the subprotocol has
        await talk.say(ping, *world.chance.choices(messages, k=world.chance.randint(1, 6)), ping)
        for _ in range(2):
            while not re.search(b'PONG|"pong"', await talk.connection.hear()):
                pass
        world.tally.seen["answered after nonsense"] += 1
    finally:
        world.part(talk)


async def bad_frames(world: World) -> None:
    """The server must close the connection after it."""
    talk = await world.socket()
    try:
        await talk.connection.send(world.chance.choice(FRAMES_OF_NO_USE))
        await talk.connection.to_the_end()
        world.tally.seen["closed after a bad frame"] += 1
    finally:
        talk.connection.close()


async def fragments(world: World) -> None:
    """A fragmented message with pings between its fragments, finished or not."""
    talk = await world.socket()
    try:
        pieces = [FIRST_PIECE, *[MIDDLE_PIECE] * world.chance.randrange(50)]
        pieces.insert(1, b"\x89\x80\0\0\0\0")
        await talk.connection.send(b"".join(pieces))
        if world.chance.random() < 0.5:
            await talk.connection.send(LAST_PIECE)
            await talk.connection.fill()
    finally:
        world.part(talk)


async def cut_short(world: World) -> None:
    """Disconnect in the middle of a line, a frame, a head or an answer, or before the first byte."""
    web = world.chance.random() < 0.5
    host = f"{world.web[0]}:{world.web[1]}"
    good = upgrade("/ws", host)
    halves: tuple[bytes, ...] = (
        (
            b"",
            good[:40],
            good + client_frame(b'{"type":"publish"}')[:9],
            good + FIRST_PIECE,
            b"GET /page.css HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n",
        )
        if web
        else (
            b"",
            b"PUB half",
            b"PUB " + b"x" * 60_000,
            b"SUB crowd\nHIST hose\nHIST hose\nPUB",
            b"GET / HTTP/1.1\r\n",
            b"\xff",
        )
    )
    connection = await world.bare(web)
    try:
        await connection.send(world.chance.choice(halves))
        await asyncio.sleep(world.chance.choice((0.0, 0.01, 0.1)))
    finally:
        _part(world, connection)


async def wrong_door(world: World) -> None:
    """A browser at the line port."""
    connection = await world.bare(web=False)
    try:
        await connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        said = await connection.to_the_end()
        if b"HTTP/1.1 400 " not in said and b"ERR limit" not in said:
            raise Wrong(f"the wrong door said {said[:200]!r}")
    finally:
        connection.close()


def _part(world: World, connection: Connection) -> None:
    leave: Callable[[], None] = world.chance.choice((connection.reset, connection.close))
    leave()
