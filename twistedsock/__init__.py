"""sockbridge: a publish-subscribe server that connects anything that can open a socket with anything that runs in a
browser.

These names are the Python API, for programs that run the server in their own process: docs/reference/python-api.md.
Other modules can change with each version, except ``testing``, an in-memory server for tests. Importing this package
loads nothing; a name is loaded when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twistedsock.auth.identity import Identity as Identity
    from twistedsock.auth.identity import Policy as Policy
    from twistedsock.auth.identity import grants as grants
    from twistedsock.bridge.api import Bridge as Bridge
    from twistedsock.bridge.observers import BridgeObserver as BridgeObserver
    from twistedsock.bridge.subscription import BridgeSubscription as BridgeSubscription
    from twistedsock.bridge.values import BridgeError as BridgeError
    from twistedsock.bridge.values import BridgeEvent as BridgeEvent
    from twistedsock.bridge.values import BridgeHistory as BridgeHistory
    from twistedsock.bridge.values import BridgeMember as BridgeMember
    from twistedsock.bridge.values import BridgePosition as BridgePosition
    from twistedsock.config import Settings as Settings
    from twistedsock.config import SettingsError as SettingsError
    from twistedsock.endpoints import IBridgeEndpoint as IBridgeEndpoint
    from twistedsock.endpoints import IBridgeEndpointPlugin as IBridgeEndpointPlugin
    from twistedsock.errors import Error as Error
    from twistedsock.errors import ErrorCode as ErrorCode
    from twistedsock.service import make_service as make_service

_MODULES = {
    "Bridge": "bridge.api",
    "BridgeError": "bridge.values",
    "BridgeEvent": "bridge.values",
    "BridgeHistory": "bridge.values",
    "BridgeMember": "bridge.values",
    "BridgeObserver": "bridge.observers",
    "BridgePosition": "bridge.values",
    "BridgeSubscription": "bridge.subscription",
    "Error": "errors",
    "ErrorCode": "errors",
    "IBridgeEndpoint": "endpoints",
    "IBridgeEndpointPlugin": "endpoints",
    "Identity": "auth.identity",
    "Policy": "auth.identity",
    "Settings": "config",
    "SettingsError": "config",
    "grants": "auth.identity",
    "make_service": "service",
}

__all__ = [*_MODULES]


if not TYPE_CHECKING:  # type checkers would accept any name

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
