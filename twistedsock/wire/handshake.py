"""The opening handshake of a WebSocket (RFC 6455 section 4.2), as far as we answer it ourselves.

Only the plain form is taken here, which is what browsers and the usual clients send: each header once, nothing but
printable ASCII, no extension but the compression that they all offer and that is refused. Whatever else is asked for is
left to Autobahn, which answers it or refuses it with the reason.
"""

import re
from base64 import b64encode
from hashlib import sha1

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""RFC 6455 section 1.3."""

_TARGET = re.compile(r"/[a-z]*(?:\?token=[A-Za-z0-9._-]+)?")
"""The query is for pages that show a token: its letters are those of base64url (RFC 7515 section 3.1)."""
_HOST = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(?::([0-9]{1,5}))?")
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
_OFFERS = ("permessage-deflate", "permessage-deflate; client_max_window_bits")
"""Extensions as Firefox and Safari, Chrome and the usual libraries offer them. They need no answer."""

Headers = dict[str, str]
"""Values by name in lower case; those of a name that stands there twice are joined to a list."""


def listed(value: str) -> list[str]:
    """The words of a list (RFC 9110 section 5.6.1): between commas, empty ones left out."""
    return [word for word in map(str.strip, value.split(",")) if word]


def plain_key(lines: list[str], headers: Headers) -> str:
    """The ``Sec-WebSocket-Key`` of a plain handshake, "" where it is any other. ``lines`` are those of the head, two
    empty ones at its end; ``headers`` is what they say."""
    text, names = "".join(lines), "".join(headers)
    # As many names as lines: none stands there twice, and no line is without one.
    if not text.isascii() or not text.isprintable() or len(headers) != len(lines) - 3 or "" in headers or " " in names:
        return ""
    method, target, version = lines[0].split(" ")
    get = headers.get
    if (
        method != "GET"
        or version != "HTTP/1.1"
        or get("sec-websocket-version") != "13"
        or get("upgrade", "").lower() != "websocket"
        or "upgrade" not in listed(get("connection", "").lower())
        or get("sec-websocket-extensions", _OFFERS[0]) not in _OFFERS
        or not _TARGET.fullmatch(target)
        or not _HOST.fullmatch(get("host", ""))
    ):
        return ""
    origin, protocols = get("origin"), get("sec-websocket-protocol")
    if origin is not None and not _is_usual(origin):
        return ""
    if protocols is not None and not _are_different(protocols.split(",")):
        return ""
    key = get("sec-websocket-key", "")
    return key if _KEY.fullmatch(key) else ""


def _are_different(words: list[str]) -> bool:
    found = {word.strip(" ") for word in words}
    return len(found) == len(words) and "" not in found


def _is_usual(origin: str) -> bool:
    found = _ORIGIN.fullmatch(origin)
    return found is not None and int(found[1] or 0) < 65536


_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_EXTENSION = re.compile(rf'{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}(?:[ \t]*=[ \t]*(?:{_TOKEN}|"{_TOKEN}"))?)*')
"""RFC 6455 section 9.1."""


def take_extensions(head: bytes) -> tuple[bytes, str]:
    """A whole head without its ``Sec-WebSocket-Extensions`` lines, of which there may be several (RFC 6455 section
    11.3.2), and the list in them."""
    lines = head.split(b"\r\n")
    offers = [line for line in lines if line.partition(b":")[0].lower() == b"sec-websocket-extensions"]
    if not offers:
        return head, ""
    told = b",".join([line.partition(b":")[2] for line in offers])
    return b"\r\n".join([line for line in lines if line not in offers]), told.decode("latin-1")


def are_extensions(offers: str) -> bool:
    """Whether this list of extensions follows the grammar. If not, the handshake must fail (RFC 6455 section 9.1); an
    extension that is unknown, or has unknown or invalid parameters, is only declined (RFC 7692 section 7.1)."""
    return all(map(_EXTENSION.fullmatch, listed(offers)))


def switching_protocols(key: str, subprotocol: str | None, server: str) -> bytes:
    """The answer that opens the connection, to the byte as Autobahn writes it."""
    accept = b64encode(sha1(key.encode() + _MAGIC, usedforsecurity=False).digest()).decode()
    chosen = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol is not None else ""
    return (
        f"HTTP/1.1 101 Switching Protocols\r\nServer: {server}\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
        f"{chosen}Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()
