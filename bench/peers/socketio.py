"""A relay over Socket.IO."""

from bench.drivers.socketio import SocketIo
from bench.peers.node import NodeRelay


class SocketIoServer(NodeRelay):
    """The relay of bench/relays/socketio.mjs."""

    name = "socketio"
    package = "socket.io"
    relay = "socketio.mjs"
    driver = SocketIo()
