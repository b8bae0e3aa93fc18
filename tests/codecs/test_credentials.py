"""Where a handshake can bring a token, and that it is shown nowhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.http import Credentials, RequestHead, find_credentials, read_head


def head(target: str = "/ws", *lines: str) -> RequestHead:
    found = read_head("\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *lines, "", ""]).encode("latin-1"))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "target, lines, credentials",
    [
        ("/ws", [], None),
        ("/ws", ["Authorization: Bearer a.b.c"], Credentials(b"a.b.c", True)),
        ("/ws", ["authorization: bearer   a.b.c"], Credentials(b"a.b.c", True)),
        ("/ws", ["Authorization: Bearer "], None),
        ("/ws", ["Authorization: Basic a.b.c"], None),
        ("/ws", ["Authorization: Bearer a b"], None),
        ("/ws", ["Authorization: Bearer a", "Authorization: Bearer b"], None),
        ("/ws?token=a.b.c", [], Credentials(b"a.b.c")),
        ("/?x=1&token=a.b.c&y=2", [], Credentials(b"a.b.c")),
        ("/ws?token=", [], Credentials(b"")),
        ("/ws?token=a&token=b", [], Credentials(b"a")),
        ("/ws?mytoken=a", [], None),
        ("/ws?token", [], None),
        ("/ws", ["Cookie: token=a.b.c"], Credentials(b"a.b.c")),
        ("/ws", ['Cookie: x=1; token="a.b.c" ;y=2'], Credentials(b"a.b.c")),
        ("/ws", ["Cookie: mytoken=a; token2=b; x"], None),
        ("/ws?token=q", ["Cookie: token=c"], Credentials(b"q")),
        ("/ws?token=q", ["Cookie: token=c", "Authorization: Bearer h"], Credentials(b"h", True)),
    ],
)
def test_the_first_place_that_has_a_token_is_taken(
    target: str, lines: list[str], credentials: Credentials | None
) -> None:
    assert find_credentials(head(target, *lines), "token") == credentials


def test_no_cookie_is_looked_at_where_none_is_named() -> None:
    assert find_credentials(head("/ws", "Cookie: token=a; =b"), "") is None


def test_neither_the_head_nor_what_is_found_shows_the_token() -> None:
    for found in (head("/ws?token=secret"), head("/ws", "Authorization: Bearer secret"), head("/", "Cookie: a=secret")):
        assert "secret" not in repr(found)
        assert "secret" not in repr(find_credentials(found, "a"))


@given(st.text(), st.text(), st.text(), st.text(max_size=5))
def test_whatever_is_there_something_or_nothing_is_found(
    query: str, authorization: str, cookies: str, cookie: str
) -> None:
    texts = [text.encode("latin-1", "replace").decode("latin-1") for text in (query, authorization, cookies, cookie)]
    query, authorization, cookies, cookie = texts
    found = find_credentials(
        RequestHead("GET", "/", "a", None, True, (), "", "", query, authorization, cookies), cookie
    )
    assert found is None or isinstance(found.token, bytes)
