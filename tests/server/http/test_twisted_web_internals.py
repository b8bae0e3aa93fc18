"""The private attributes of twisted.web that the server uses exist in the installed version."""

from types import CodeType

import pytest
import twisted
from twisted.web.http import HTTPChannel, Request

from twistedsock.server.http.twisted_web_internals import CHANNEL_INTERNALS, CHECKED_TWISTED_VERSION, REQUEST_INTERNALS


def names_in(kind: type) -> set[str]:
    """All names that a class and its bases define or use."""
    names: set[str] = set()
    for base in kind.__mro__:
        for name, value in vars(base).items():
            names.add(name)
            code = getattr(value, "__code__", None)
            if isinstance(code, CodeType):
                names.update(code.co_names)
    return names


@pytest.mark.parametrize(("kind", "internals"), [(HTTPChannel, CHANNEL_INTERNALS), (Request, REQUEST_INTERNALS)])
def test_installed_twisted_has_all_internals(kind: type, internals: tuple[str, ...]) -> None:
    missing = sorted(set(internals) - names_in(kind))
    assert not missing, (
        f"{kind.__name__} of Twisted {twisted.__version__} has no {', '.join(missing)}: "
        f"adapt server/http/twisted_web_internals.py, which was checked with Twisted {CHECKED_TWISTED_VERSION}"
    )
