"""What a proxy says before its client does."""

from typing import Any

from hypothesis import strategies as st

from tests.fuzz.grammars import ADDRESSES, CUTS, HEADERS, LINES, PORTS, damaged, header_of
from tests.fuzz.properties import cut, holds, kept, room
from twistedsock.auth.trusted_proxies import Source
from twistedsock.codecs.proxy_protocol import MAX_V2_BYTES, MalformedHeader, ProxyHeader, ProxyHeaderDecoder

ENDLESS = st.sampled_from([b"PROXY TCP4 " + b"1" * 5_000, b"PROXY UNKNOWN " + b"x" * 5_000]) | st.builds(
    lambda size, data: b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + size.to_bytes(2, "big") + data,
    st.sampled_from([4_079, 4_080, 4_081, 65_535]),
    st.sampled_from([b"", b"x" * 4_090]),
)

TOLD_PORTS = st.sampled_from([0, 1, 65_535, 65_536, 99_999])


@holds(examples=80, data=damaged(HEADERS, 1) | ENDLESS | LINES | st.binary(), cuts=CUTS)
def test_any_header(data: bytes, cuts: list[int]) -> None:
    """Any bytes, at any cuts, give a header and what stands behind it, or that it is none, or that more is needed, as
    they do in one piece; and no more is kept than a header may have."""
    whole = ProxyHeaderDecoder().feed(data)
    reader, found, rest = ProxyHeaderDecoder(), None, b""
    for piece in cut(data, cuts):
        if found is None:
            found = reader.feed(piece)
            assert kept(reader) < room(MAX_V2_BYTES)
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
    """A header that was written by the specification says what it was written from, and not a byte behind it is
    lost."""
    shown = str(getattr(address, "ipv4_mapped", None) or address)
    assert ProxyHeaderDecoder().feed(header_of(address, port, version, more) + rest) == ProxyHeader(
        Source(shown, port), rest
    )


@holds(examples=40, address=ADDRESSES, ports=st.tuples(TOLD_PORTS, TOLD_PORTS))
def test_ports(address: Any, ports: tuple[int, int]) -> None:
    """A header of version 1 is one where both of its ports are ports, and never else."""
    line = f"PROXY TCP{address.version} {address} {address} {ports[0]} {ports[1]}\r\n".encode()
    assert isinstance(ProxyHeaderDecoder().feed(line), ProxyHeader) is (max(ports) < 65_536)
