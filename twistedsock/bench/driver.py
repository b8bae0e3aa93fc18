"""How the load generator talks to a server: a driver for each of the servers and wires that are compared."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

MARK = b"(#)"
"""Begins every payload, and stands nowhere else in what a server sends: where the bytes around a payload cannot be
foretold, deliveries are counted by it."""

NUMBERED = re.compile(rb"\(#\)(\d{8})")
"""The mark and the number of a payload."""

SMALLEST_PAYLOAD = 11
"""Bytes of a payload that holds no more than its mark and its number."""


def payloads(count: int, size: int) -> list[bytes]:
    """Numbered payloads of ``size`` bytes, at least SMALLEST_PAYLOAD: text that every server takes as it is."""
    filler = b"x" * (size - SMALLEST_PAYLOAD)
    return [b"(#)%08d%b" % (number, filler) for number in range(count)]


class Step(NamedTuple):
    """Something to say, and how the end of the answer is known; empty where nothing is said or awaited. ``begins`` is
    how an answer begins that is no refusal, where that can be said."""

    say: bytes
    until: bytes = b""
    begins: bytes = b""


@dataclass(frozen=True)
class Noise:
    """What a server says between deliveries without being asked, and what must be answered to it."""

    said: bytes
    answer: bytes


class Driver(Protocol):
    """One wire of one server. ``foretold`` says whether a reader's bytes are known beforehand: then all of them are
    compared; else deliveries are counted by their mark, and one reader's are looked at one by one."""

    name: str
    foretold: bool
    noise: Noise | None
    reply_mark: bytes
    """What stands in each reply to a publish once, if the replies differ when others publish there too; else empty."""

    def greet(self, host: str) -> Sequence[Step]:
        """What is said on a new connection, until it can be used. ``host`` is address and port."""

    def prepare(self) -> Sequence[Step]:
        """What a publisher says before it publishes."""

    def subscribe(self, channel: bytes, number: int) -> Step:
        """Ask for a channel; ``number`` counts the subscriptions of the connection from 1."""

    def publish(self, channel: bytes, payloads: Sequence[bytes]) -> list[bytes]:
        """What publishes each payload."""

    def replies(self, channel: bytes, count: int, readers: int) -> bytes:
        """What a publisher hears of so many publishes to so many readers, when nobody else publishes there."""

    def deliveries(self, channel: bytes, payloads: Sequence[bytes], number: int) -> list[bytes]:
        """What a reader whose subscription has that number gets for each payload, when nothing was published to the
        channel before."""


@dataclass(frozen=True)
class Target:
    """A server to load, with the wire that is spoken there."""

    driver: Driver
    address: tuple[str, int]

    @property
    def host(self) -> str:
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
