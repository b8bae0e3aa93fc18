"""Endpoints of other programs: they accept clients of another protocol, UDP or MQTT for example, and publish and
subscribe for them.

A package offers an endpoint to ``twistd sockbridge`` with a plugin: an object that provides ``IBridgeEndpointPlugin``
and ``twisted.plugin.IPlugin``, in a module in ``twisted/plugins/``.
"""

from collections.abc import Iterable
from typing import Any

from twisted.plugin import getPlugins
from zope.interface import Attribute, Interface

from twistedsock.config import SettingsError


class IBridgeEndpoint(Interface):
    """Accepts clients of another protocol. It decides itself what they can do: the access policy of the server does not
    apply to it."""

    def start(bridge, reactor):  # type: ignore[no-untyped-def]
        """Open the ports, and keep ``bridge``, a ``twistedsock.Bridge``. Called when the server starts, before twistd
        drops its privileges. An ``OSError`` or ``CannotListenError`` stops the start."""

    def stop():  # type: ignore[no-untyped-def]
        """Close the ports. Called when the server stops, which waits for the Deferred that this may return."""


class IBridgeEndpointPlugin(Interface):
    """Builds endpoints for the option ``--plugin NAME:ARGUMENTS``."""

    name = Attribute("The name, a ``str`` without a colon.")

    def build(arguments):  # type: ignore[no-untyped-def]
        """Return an ``IBridgeEndpoint``. ``arguments`` is the text after the colon, empty without one. Raises
        ``ValueError`` with a sentence for the operator if it is invalid."""


def load_endpoints(descriptions: Iterable[str]) -> list[Any]:
    """Return the endpoints that plugins build for these descriptions. Raises SettingsError."""
    return [_load_endpoint(description) for description in descriptions]


def _load_endpoint(description: str) -> Any:
    name, _, arguments = description.partition(":")
    plugins = {plugin.name: plugin for plugin in getPlugins(IBridgeEndpointPlugin)}
    if name not in plugins:
        installed = f"installed are {', '.join(sorted(plugins))}" if plugins else "no plugin is installed"
        raise SettingsError(f"plugin: unknown name {name!r}: {installed}")
    try:
        return plugins[name].build(arguments)
    except ValueError as error:
        raise SettingsError(f"plugin {description!r}: {error}") from None
