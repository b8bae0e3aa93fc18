"""The private names of Twisted and Autobahn that the server uses still exist in the installed versions."""

import inspect
import re
from functools import cache
from importlib.metadata import version

import pytest
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.web.http import HTTPChannel, Request

from twistedsock.server import autobahn_internals, twisted_internals
from twistedsock.server.http.twisted_web_internals import CHANNEL_INTERNALS, REQUEST_INTERNALS
from twistedsock.server.reactor import REACTOR_INTERNALS, EPollReactor


@cache
def used_names(owner: type) -> set[str]:
    """The names of the attributes that the methods of a class and of its bases use."""
    libraries = ("autobahn.", "twisted.", "txaio.")  # the source of typing.Generic, for example, is not available
    sources = [inspect.getsource(each) for each in owner.__mro__ if each.__module__.startswith(libraries)]
    return set(re.findall(r"\bself\.(\w+)", "".join(sources)))


def is_missing(owner: type, name: str) -> bool:
    """True if a class has neither the attribute nor a statement that uses it."""
    return not hasattr(owner, name) and name not in used_names(owner)


USED = [
    ("Twisted", "server/twisted_internals.py", owner, names) for owner, names in twisted_internals.INTERNALS.items()
] + [
    ("Twisted", "server/reactor.py", EPollReactor, REACTOR_INTERNALS),
    ("Twisted", "server/http/twisted_web_internals.py", HTTPChannel, CHANNEL_INTERNALS),
    ("Twisted", "server/http/twisted_web_internals.py", Request, REQUEST_INTERNALS),
    ("Autobahn", "server/autobahn_internals.py", WebSocketServerProtocol, autobahn_internals.METHODS),
    ("Autobahn", "server/autobahn_internals.py", WebSocketServerProtocol, autobahn_internals.ATTRIBUTES),
    ("Autobahn", "server/autobahn_internals.py", WebSocketServerFactory, ("_batched_timer",)),
]


@pytest.mark.parametrize(("package", "module", "owner", "names"), USED)
def test_private_names_exist_in_the_installed_version(
    package: str, module: str, owner: type, names: tuple[str, ...]
) -> None:
    missing = [f"{owner.__name__}.{name}" for name in names if is_missing(owner, name)]
    assert not missing, f"{package} {version(package)} has no {', '.join(missing)} any more: check {module}"


def test_missing_names_are_found() -> None:
    assert is_missing(WebSocketServerProtocol, "_no_such_name")
