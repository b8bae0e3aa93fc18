"""A relay over Socket.IO."""

from bench.contestant import SOCKETIO
from bench.drivers.socketio import SocketIo
from bench.peers.node import NodeRelay


class SocketIoServer(NodeRelay):
    """The relay of bench/relays/socketio.mjs."""

    name = "socketio"
    wires = NodeRelay.wires | {SOCKETIO}
    package = "socket.io"
    relay = "socketio.mjs"
    driver = SocketIo()
