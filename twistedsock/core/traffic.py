"""What has gone through one connection, as its machine counts it."""

import msgspec


class Traffic(msgspec.Struct, frozen=True, gc=False):
    """Bytes of the connection itself: with TLS, of what is encrypted."""

    sent: int
    """Bytes that the peer's machine has acknowledged."""
    received: int
    """Bytes that have come in order, read or not."""
    unsent: int
    """Bytes that wait here: for the peer's machine to have room, or for the network."""
    rtt: float
    """Seconds from here to the peer and back, smoothed (RFC 6298)."""
