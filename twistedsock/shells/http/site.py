"""What the plain requests of one listener have in common: what there is to ask for, and who asks just now."""

from typing import TYPE_CHECKING, Any

from twistedsock.core.bridge import Bridge
from twistedsock.shells.http.connection import IDLE, HttpConnection
from twistedsock.shells.http.files import static_files
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.shells.http.routes import Routes
from twistedsock.shells.listening import Listening

if TYPE_CHECKING:
    from twistedsock.shells.gate import Gate


class BridgeSite:
    """Makes connections that somebody else has accepted, whose first request is there. What is asked for is not logged:
    a URL may hold a secret."""

    def __init__(self, reactor: Any, bridge: Bridge, gate: "Gate", routes: Routes, listening: Listening) -> None:
        self.reactor = reactor
        self.bridge = bridge
        self.gate = gate
        self.routes = routes
        self.listening = listening
        self.files = static_files()
        self.connections: dict[HttpConnection, None] = {}
        self.running: dict[BridgeRequest, None] = {}
        """Operations that have not answered yet."""

    def buildProtocol(self, peer: Any) -> HttpConnection:
        """``peer`` is the far end, as a proxy tells it where one does."""
        connection: Any = HttpConnection()
        connection.site, connection.peer = self, peer
        connection.callLater = self.reactor.callLater
        connection.timeOut = IDLE
        return connection
