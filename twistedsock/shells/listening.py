"""What the connections of one listener have in common."""

from typing import Any

import msgspec
from twisted.internet.protocol import Protocol, ServerFactory

from twistedsock.core.proxies import NOBODY, TrustedProxies


class Listening(msgspec.Struct, frozen=True):
    """Each listener has factories of its own, which hold this. ``endpoint`` is its endpoint string as configured, ""
    where there is none. ``trusted`` are those that may tell whom they speak for; where it is ``proxied``, their
    connections begin with a PROXY header."""

    endpoint: str = ""
    proxied: bool = False
    trusted: TrustedProxies = NOBODY

    @property
    def secure(self) -> bool:
        """Whether its connections begin with a handshake of TLS."""
        return self.endpoint.startswith("ssl:")


NOWHERE = Listening()
"""Of connections that no listener of ours accepted."""


class ListeningFactory(ServerFactory):
    """Makes the protocols of one listener."""

    noisy = False
    listening: Listening

    def buildProtocol(self, address: Any) -> Protocol | None:
        """``address`` is the far end of the connection, as a proxy tells it where one does."""
        protocol: Any = super().buildProtocol(address)
        if self.listening.proxied:
            protocol.told = address
        return protocol
