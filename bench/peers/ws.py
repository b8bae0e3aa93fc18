"""A relay that uses ws, the usual WebSocket library for Node."""

from bench.drivers.relay import Relay
from bench.peers.node import NodeRelay


class Ws(NodeRelay):
    """The relay of bench/relays/ws.mjs."""

    name = "ws"
    package = "ws"
    relay = "ws.mjs"
    driver = Relay("ws websocket")
