"""Headers of the PROXY protocol."""

from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import example
from hypothesis import strategies as st

from tests.fuzz.grammars import ADDRESSES, CUTS, HEADERS, LINES, PORTS, damaged, header_of
from tests.fuzz.properties import buffer_limit, buffered_bytes, cut, holds
from twistedsock.auth.trusted_proxies import Source
from twistedsock.codecs.proxy_protocol import (
    MAX_V1_BYTES,
    MAX_V2_BYTES,
    MalformedHeader,
    ProxyHeader,
    ProxyHeaderDecoder,
)

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
IPV4 = bytes([203, 0, 113, 7, 192, 0, 2, 1]) + (4711).to_bytes(2) + (443).to_bytes(2)
IPV6 = ip_address("2001:db8::7").packed + ip_address("2001:db8::1").packed + (4711).to_bytes(2) + (443).to_bytes(2)
TLV = bytes([4, 0, 3]) + b"nop"


def block(command: int = 0x21, family: int = 0x11, body: bytes = IPV4) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(body).to_bytes(2) + body


WHOLE = [
    (b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\r\n", Source("203.0.113.7", 4711)),
    (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", Source("0.0.0.0", 0)),
    (b"PROXY TCP6 2001:DB8:0::7 2001:db8::1 4711 443\r\n", Source("2001:db8::7", 4711)),
    (b"PROXY TCP6 ::ffff:203.0.113.7 ::1 4711 443\r\n", Source("203.0.113.7", 4711)),
    (
        b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n",
        Source("ffff:" * 7 + "ffff", 65535),
    ),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN \xff\0 anything \r or \n at all\r\n", None),
    (b"PROXY UNKNOWN " + b"x" * (MAX_V1_BYTES - 16) + b"\r\n", None),
    (block(), Source("203.0.113.7", 4711)),
    (block(family=0x12), Source("203.0.113.7", 4711)),
    (block(body=IPV4 + TLV), Source("203.0.113.7", 4711)),
    (block(family=0x21, body=IPV6), Source("2001:db8::7", 4711)),
    (block(family=0x22, body=IPV6 + TLV), Source("2001:db8::7", 4711)),
    (block(family=0x31, body=bytes(216)), Source("")),
    (block(family=0x32, body=b"/run/client".ljust(216, b"\0") + TLV), Source("")),
    (block(family=0x00, body=b""), None),
    (block(family=0x00, body=TLV), None),
    (block(family=0x10), None),
    (block(family=0x01), None),
    (block(command=0x20, body=b""), None),
    (block(command=0x20), None),
    (block(command=0x20, family=0x00, body=TLV), None),
]


@pytest.mark.parametrize(("header", "source"), WHOLE)
@pytest.mark.parametrize("rest", [b"", b"PUB kitchen 21.5\n", b"PROXY UNKNOWN\r\n"])
def test_decodes_source_at_every_cut(
    header: bytes, source: Source | None, rest: bytes, cuts: Callable[[bytes], Iterator[list[bytes]]]
) -> None:
    for pieces in cuts(header):
        reader = ProxyHeaderDecoder()
        assert [reader.feed(piece) for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
        assert reader.feed(pieces[-1] + rest) == ProxyHeader(source, rest)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PUB kitchen 21.5\n",
        b"\n",
        b"proxy TCP4 203.0.113.7 192.0.2.1 4711 443\r\n",
        b"PROXY\r\n",
        b"PROXY \r\n",
        b"PROXY TCP4\r\n",
        b"PROXY UDP4 203.0.113.7 192.0.2.1 4711 443\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY  TCP4 203.0.113.7 192.0.2.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7  192.0.2.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443 \r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\n\r\n",
        b"PROXY TCP4 203.0.113.256 192.0.2.1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.999 4711 443\r\n",
        b"PROXY TCP4 203.0.113.07 192.0.2.1 4711 443\r\n",
        b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
        b"PROXY TCP6 2001:db8:::7 2001:db8::1 4711 443\r\n",
        b"PROXY TCP6 fe80::7%eth0 2001:db8::1 4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 04711 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 +4711 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 4_3\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 65536\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443".ljust(MAX_V1_BYTES),
        b"PROXY UNKNOWN " + b"x" * (MAX_V1_BYTES - 15) + b"\r\n",
        b"\r\n\r\n\0\r\nQUIT\r",
        block(command=0x11),
        block(command=0x22),
        block(command=0x30),
        block(family=0x41),
        block(family=0x13),
        block(command=0x20, family=0xF1),
        block(body=IPV4[:-1]),
        block(family=0x21, body=IPV6[:-1]),
        block(family=0x31, body=bytes(215)),
        block(body=IPV4.ljust(MAX_V2_BYTES - 15)),
    ],
)
def test_rejects_invalid_header(data: bytes) -> None:
    assert ProxyHeaderDecoder().feed(data) == MalformedHeader()


@pytest.mark.parametrize("data", [b"G", b"\0", b"PROXX", b"\r\n\r\nQ", block(command=0x22)[:16], block(body=b"")])
def test_rejects_invalid_header_as_soon_as_possible(data: bytes) -> None:
    reader = ProxyHeaderDecoder()
    assert [reader.feed(data[index : index + 1]) for index in range(len(data) - 1)] == [None] * (len(data) - 1)
    assert reader.feed(data[-1:]) == MalformedHeader()


def test_accepts_header_of_maximum_length() -> None:
    header = block(body=IPV4.ljust(MAX_V2_BYTES - 16))
    assert len(header) == MAX_V2_BYTES
    assert ProxyHeaderDecoder().feed(header) == ProxyHeader(Source("203.0.113.7", 4711), b"")


ENDLESS = st.sampled_from([b"PROXY TCP4 " + b"1" * 5_000, b"PROXY UNKNOWN " + b"x" * 5_000]) | st.builds(
    lambda size, data: b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + size.to_bytes(2, "big") + data,
    st.sampled_from([4_079, 4_080, 4_081, 65_535]),
    st.sampled_from([b"", b"x" * 4_090]),
)

TOLD_PORTS = st.sampled_from([0, 1, 65_535, 65_536, 99_999])


@holds(
    found=[example(bytes(MAX_V1_BYTES), [])],
    examples=80,
    data=damaged(HEADERS, 1) | ENDLESS | LINES | st.binary(),
    cuts=CUTS,
)
def test_any_header(data: bytes, cuts: list[int]) -> None:
    """Any bytes, at any cuts, have the same result as in one piece: a header and the rest, an error, or that more data
    is needed; the buffer never exceeds the length of a header."""
    whole = ProxyHeaderDecoder().feed(data)
    reader, found, rest = ProxyHeaderDecoder(), None, b""
    for piece in cut(data, cuts):
        if found is None:
            found = reader.feed(piece)
            assert buffered_bytes(reader) < buffer_limit(MAX_V2_BYTES)
        else:
            rest += piece
    if isinstance(whole, ProxyHeader):
        assert isinstance(found, ProxyHeader) and (found.source, found.rest + rest) == (whole.source, whole.rest)
        assert data.endswith(whole.rest)
    elif data:
        assert found == whole
    assert whole is not None or len(data) < MAX_V2_BYTES
    if data[:1] not in (b"P", b"\r", b""):
        assert whole == MalformedHeader()


@holds(examples=40, address=ADDRESSES, port=PORTS, version=st.sampled_from([1, 2]), more=st.binary(), rest=LINES)
def test_sound_headers(address: Any, port: int, version: int, more: bytes, rest: bytes) -> None:
    """A header that follows the specification is decoded as it was written, with all data behind it."""
    shown = str(getattr(address, "ipv4_mapped", None) or address)
    assert ProxyHeaderDecoder().feed(header_of(address, port, version, more) + rest) == ProxyHeader(
        Source(shown, port), rest
    )


@holds(examples=40, address=ADDRESSES, ports=st.tuples(TOLD_PORTS, TOLD_PORTS))
def test_ports(address: Any, ports: tuple[int, int]) -> None:
    """A header of version 1 is valid exactly if both of its ports are."""
    line = f"PROXY TCP{address.version} {address} {address} {ports[0]} {ports[1]}\r\n".encode()
    assert isinstance(ProxyHeaderDecoder().feed(line), ProxyHeader) is (max(ports) < 65_536)
