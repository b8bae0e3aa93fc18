"""Endpoints of other programs: they accept clients of another protocol, UDP or MQTT for example, and publish and
subscribe for them.
"""

from zope.interface import Interface


class IBridgeEndpoint(Interface):
    """Accepts clients of another protocol. It decides itself what they can do: the access policy of the server does not
    apply to it."""

    def start(bridge, reactor):  # type: ignore[no-untyped-def]
        """Open the ports, and keep ``bridge``, a ``twistedsock.Bridge``. Called when the server starts, before twistd
        drops its privileges. An ``OSError`` or ``CannotListenError`` stops the start."""

    def stop():  # type: ignore[no-untyped-def]
        """Close the ports. Called when the server stops, which waits for the Deferred that this may return."""
