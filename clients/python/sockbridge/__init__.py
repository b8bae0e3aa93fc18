"""Python client of sockbridge: channels over TCP, TLS, Unix sockets and WebSocket.

    async with sockbridge.connect("tcp://127.0.0.1:8081") as client:
        async for event in client.subscribe("kitchen", last=10):
            print(event.data)

``sockbridge.blocking`` is for programs without asyncio, ``sockbridge.twisted`` for Twisted.
"""

from sockbridge.address import DEFAULT_SERVER
from sockbridge.aio import Client, Subscription, connect
from sockbridge.core import State
from sockbridge.errors import AddressError, SockbridgeError
from sockbridge.values import Channel, Event, History, Lost, Member, Position, Presence, Reset, Welcome

__all__ = [
    "DEFAULT_SERVER",
    "AddressError",
    "Channel",
    "Client",
    "Event",
    "History",
    "Lost",
    "Member",
    "Position",
    "Presence",
    "Reset",
    "SockbridgeError",
    "State",
    "Subscription",
    "Welcome",
    "connect",
]
