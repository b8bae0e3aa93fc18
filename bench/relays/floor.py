"""What a server in Python cannot do without: python floor.py HOST LINES_PORT WEB_PORT.

A loop over epoll that reads, splits, formats and sends. It speaks as much of sockbridge's line and JSON protocols as
the load generator does, encodes an event once, sends what one read has caused with one send to each reader, and keeps
the last events. There are no limits, checks, timeouts, rights, errors, recovery or statistics, so it is no server to
use.
"""

import base64
import hashlib
import json
import re
import select
import socket
import sys
import time
from collections import deque

AT_ONCE = 65_536
EVENT = b'{"type":"event","channel":"%b","offset":%d,"time":%d,"from":"%b","name":"message","data":%b}'
KEY = re.compile(rb"Sec-WebSocket-Key: *([^\r]+)")
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"
)
TEXT, PING, PONG = 0x81, 0x89, 0x8A
encode = json.JSONEncoder(separators=(",", ":")).encode


def frame(data: bytes, first: int = TEXT) -> bytes:
    size = len(data)
    if size < 126:
        return bytes((first, size)) + data
    return bytes((first, 126)) + size.to_bytes(2, "big") + data


class Channel:
    """``pending`` holds the events of this turn, encoded for lines and for WebSocket."""

    def __init__(self) -> None:
        self.offset = 0
        self.log: deque[bytes] = deque(maxlen=10_000)
        self.readers: tuple[dict[Client, None], dict[Client, None]] = ({}, {})
        self.pending: tuple[list[bytes], list[bytes]] = ([], [])

    def publish(self, name: bytes, nick: bytes, payload: bytes, data: bytes) -> int:
        self.offset += 1
        self.log.append(payload)
        lines, messages = self.pending
        if self.readers[0]:
            lines.append(b"MSG %b %d %b %b\n" % (name, self.offset, nick, payload))
        if self.readers[1]:
            messages.append(frame(EVENT % (name, self.offset, time.time() * 1000, nick, data)))
        dirty[self] = None
        return self.offset

    def flush(self) -> None:
        for readers, pending in zip(self.readers, self.pending, strict=True):
            if pending:
                data = b"".join(pending)
                pending.clear()
                for reader in readers:
                    reader.send(data)


class Client:
    """A connection over lines. ``replies`` are sent at the end of the read."""

    protocol = 0

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.rest = b""
        self.unsent = b""
        self.nick = b"nobody"
        self.is_quiet = False
        self.joined: list[Channel] = []

    def send(self, data: bytes) -> None:
        try:
            sent = 0 if self.unsent else self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # epoll reports it
        if sent < len(data):
            self.unsent += data[sent:]
            poll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def resume(self) -> None:
        data, self.unsent = self.unsent, b""
        poll.modify(self.socket, select.EPOLLIN)
        self.send(data)

    def subscribe(self, name: bytes) -> Channel:
        channel = channels.get(name) or channels.setdefault(name, Channel())
        channel.readers[self.protocol][self] = None
        self.joined.append(channel)
        return channel

    def close(self) -> None:
        for channel in self.joined:
            channel.readers[self.protocol].pop(self, None)
        del clients[self.socket.fileno()]
        self.socket.close()

    def receive(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        replies = []
        for line in lines:
            verb, _, rest = line.partition(b" ")
            if verb == b"PUB":
                name, _, payload = rest.partition(b" ")
                channel = channels.get(name) or channels.setdefault(name, Channel())
                offset = channel.publish(
                    name, self.nick, payload, encode(payload.decode()).encode() if channel.readers[1] else b""
                )
                if not self.is_quiet:
                    replies.append(b"OK %d\n" % offset)
            elif verb == b"SUB":
                replies.append(b"OK %b %d\n" % (rest, self.subscribe(rest).offset))
            elif verb == b"NICK":
                self.nick = rest
                replies.append(b"OK %b\n" % rest)
            elif verb == b"QUIET":
                self.is_quiet = True
                replies.append(b"OK\n")
        if replies:
            self.send(b"".join(replies))


class WebClient(Client):
    protocol = 1

    def receive(self, data: bytes) -> None:
        head, _, rest = data.partition(b"\r\n\r\n")
        if found := KEY.search(head):
            accept = base64.b64encode(hashlib.sha1(found[1] + GUID).digest())
            self.send(SWITCHING % accept + frame(b'{"type":"welcome"}'))
            self.receive = self.frames  # type: ignore[method-assign]
            if rest:
                self.frames(rest)

    def frames(self, data: bytes) -> None:
        if self.rest:
            data = self.rest + data
        place, end, replies = 0, len(data), []
        while place + 6 <= end:
            size, start = data[place + 1] & 127, place + 6
            if size == 126:
                size, start = int.from_bytes(data[place + 2 : place + 4], "big"), place + 8
            if start + size > end:
                break
            body, mask = data[start : start + size], data[start - 4 : start]
            if mask != b"\0\0\0\0":
                key = int.from_bytes((mask * (size // 4 + 1))[:size], "little")
                body = (int.from_bytes(body, "little") ^ key).to_bytes(size, "little")
            if data[place] == TEXT:
                if reply := self.message(json.loads(body)):
                    replies.append(frame(reply))
            elif data[place] == PING:
                replies.append(frame(body, PONG))
            place = start + size
        self.rest = data[place:]
        if replies:
            self.send(b"".join(replies))

    def message(self, message: dict[str, object]) -> bytes:
        kind, number = message["type"], message.get("id")
        if kind == "publish":
            name, data = str(message["channel"]).encode(), message["data"]
            channel = channels.get(name) or channels.setdefault(name, Channel())
            offset = channel.publish(name, self.nick, str(data).encode(), encode(data).encode())
            return b'{"type":"ok","id":%d,"offset":%d}' % (number, offset) if number is not None else b""
        if kind == "subscribe":
            name = str(message["channel"]).encode()
            return b'{"type":"ok","id":%d,"channel":"%b","offset":%d}' % (number, name, self.subscribe(name).offset)
        self.nick = str(message["nick"]).encode()
        return b'{"type":"ok","id":%d,"nick":"%b"}' % (number, self.nick)


def accept(listener: socket.socket, kind: type[Client]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = clients[connection.fileno()] = kind(connection)
        poll.register(connection, select.EPOLLIN)
        if kind is Client:
            client.send(b"WELCOME sockbridge/1 floor\n")


channels: dict[bytes, Channel] = {}
clients: dict[int, Client] = {}
dirty: dict[Channel, None] = {}
poll = select.epoll()


def main(host: str, *ports: int) -> None:
    listeners = {}
    for port, kind in zip(ports, (Client, WebClient), strict=True):
        listener = socket.create_server((host, port), backlog=4096)
        listener.setblocking(False)
        listeners[listener.fileno()] = (listener, kind)
        poll.register(listener, select.EPOLLIN)
    while True:
        for number, mask in poll.poll():
            if number in listeners:
                accept(*listeners[number])
                continue
            client = clients[number]
            if mask & select.EPOLLOUT:
                client.resume()
            if mask & ~select.EPOLLOUT:
                try:
                    data = client.socket.recv(AT_ONCE)
                except BlockingIOError:
                    continue
                except OSError:
                    data = b""
                if not data:
                    client.close()
                    continue
                client.receive(data)
                for channel in dirty:
                    channel.flush()
                dirty.clear()


main(sys.argv[1], *map(int, sys.argv[2:]))
