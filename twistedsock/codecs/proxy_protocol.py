"""HAProxy's PROXY protocol, versions 1 and 2: the header at the start of a connection that carries the client's address
(https://www.haproxy.org/download/2.6/doc/proxy-protocol.txt, "the specification" below)."""

import re
from ipaddress import IPv4Address, IPv6Address

import msgspec

from twistedsock.auth.trusted_proxies import Source, parse_source

MAX_V1_BYTES = 107
"""Of a header of version 1, including the line end (the specification, section 2.1)."""

MAX_V2_BYTES = 4096
"""Of a header of version 2. Addresses need at most 232 bytes. Additional fields are skipped; the largest is a client
certificate. The specification requires that the header fits in one segment."""

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

_FIXED = 16

_START = b"PROXY "

_PORT = rb"(0|[1-9][0-9]{0,4})"

_LINE = re.compile(
    rb"PROXY (?:TCP4 ([0-9.]{7,15}) ([0-9.]{7,15})|TCP6 ([0-9A-Fa-f:.]{2,39}) ([0-9A-Fa-f:.]{2,39})) "
    + _PORT
    + b" "
    + _PORT
)

_UNKNOWN = re.compile(rb"PROXY UNKNOWN(?: .*)?", re.DOTALL)

_LOCAL, _PROXY = 0x20, 0x21

_SIZES = {1: 12, 2: 36, 3: 216}
"""Bytes of both addresses, by family: IPv4, IPv6, Unix sockets."""


class ProxyHeader(msgspec.Struct, frozen=True):
    """A complete header. ``source`` is None if the proxy connects on its own behalf, such as for health checks, or has
    no address of the client: then the addresses of the connection itself count. ``rest`` is the data behind it."""

    source: Source | None
    rest: bytes


class MalformedHeader(msgspec.Struct, frozen=True):
    """Not a valid header: the server closes the connection."""


class ProxyHeaderDecoder:
    """Decodes the header of one connection. Call ``feed`` until it returns something other than None."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> ProxyHeader | MalformedHeader | None:
        """The header as soon as it is complete, or MalformedHeader as soon as it is invalid. None if more data is
        needed; less than ``MAX_V2_BYTES`` are buffered."""
        data = self._buffer + data
        if data.startswith(_SIGNATURE[: len(data)]):
            header = _read_block(data)
        elif data.startswith(_START[: len(data)]):
            header = _read_line(data)
        else:
            header = MalformedHeader()
        self._buffer = data if header is None else b""
        return header


def _read_line(data: bytes) -> ProxyHeader | MalformedHeader | None:
    line, end, _ = data[:MAX_V1_BYTES].partition(b"\r\n")
    if not end:
        return None if len(data) < MAX_V1_BYTES else MalformedHeader()
    rest = data[len(line) + 2 :]
    if _UNKNOWN.fullmatch(line):
        return ProxyHeader(None, rest)
    found = _LINE.fullmatch(line)
    if found is None:
        return MalformedHeader()
    four, four_here, six, six_here, *ports = found.groups()
    source, here = (
        parse_source((host_four or host_six).decode(), int(port))
        for host_four, host_six, port in ((four, six, ports[0]), (four_here, six_here, ports[1]))
    )
    if source is None or here is None or max(map(int, ports)) > 65535:
        return MalformedHeader()
    return ProxyHeader(source, rest)


def _read_block(data: bytes) -> ProxyHeader | MalformedHeader | None:
    if len(data) < _FIXED:
        return None
    command, (family, transport) = data[12], divmod(data[13], 16)
    size = int.from_bytes(data[14:_FIXED])
    end = _FIXED + size
    if command not in (_LOCAL, _PROXY) or family > 3 or transport > 2 or end > MAX_V2_BYTES:
        return MalformedHeader()
    has_source = command == _PROXY and family and transport
    if has_source and size < _SIZES[family]:
        return MalformedHeader()
    if len(data) < end:
        return None
    return ProxyHeader(_read_source(family, data) if has_source else None, data[end:])


def _read_source(family: int, data: bytes) -> Source | None:
    # Transport 2, datagrams, is a client that uses HTTP/3 to the proxy.
    if family == 1:
        return parse_source(str(IPv4Address(data[16:20])), int.from_bytes(data[24:26]))
    if family == 2:
        return parse_source(str(IPv6Address(data[16:32])), int.from_bytes(data[48:50]))
    return Source("")
