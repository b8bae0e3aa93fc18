"""Socket.IO servers for Twisted, without the broker: docs/how-to/socketio-application.md.

``SocketIO`` is an application: pass it to ``make_service``. Its clients are unmodified Socket.IO clients of version 3
and later.
"""

from twistedsock.socketio.namespace import Namespace as Namespace
from twistedsock.socketio.server import SocketIO as SocketIO
from twistedsock.socketio.socket import ConnectionRefused as ConnectionRefused
from twistedsock.socketio.socket import Disconnected as Disconnected
from twistedsock.socketio.socket import Socket as Socket

__all__ = ["ConnectionRefused", "Disconnected", "Namespace", "Socket", "SocketIO"]
