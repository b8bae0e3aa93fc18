"""The identity of a session: its rights, its nick, and the time that its token is valid."""

import pytest

from twistedsock.auth.identity import Identity, Right, grants, verified_nick
from twistedsock.errors import ErrorCode
from twistedsock.session.authorizer import SessionAuth
from twistedsock.testing import FakePolicy, FakeServer


def session_auth(subject: bytes = b"", expires: float | None = None) -> SessionAuth:
    server = FakeServer(policy=FakePolicy())
    server.wall = 100.0
    session = server.line_client().session
    found = SessionAuth(server.context, FakePolicy(), "tcp:8081", session.client, session.endpoints.client)
    found.identity = Identity(grants({"news": "r", "inbox": "w"}), subject, expires)
    return found


@pytest.mark.parametrize("subject, code", [(b"", ErrorCode.UNAUTHORIZED), (b"ann", ErrorCode.FORBIDDEN)])
def test_error_depends_on_whether_the_client_has_an_identity(subject: bytes, code: ErrorCode) -> None:
    auth = session_auth(subject)
    assert auth.check_access(b"news", Right.READ) is None
    assert auth.check_access(b"inbox", Right.WRITE) is None
    writing, reading = auth.check_access(b"news", Right.WRITE), auth.check_access(b"inbox", Right.READ)
    assert writing is not None and writing.code is code and "publish on" in writing.message
    assert reading is not None and reading.code is code and "read" in reading.message


@pytest.mark.parametrize(
    "subject, nick, shown",
    [
        (b"ann", b"ann", b"ann"),
        (b"ann", b"bob", b"~bob"),
        (b"ann", b"~ann", b"~ann"),
        (b"", b"ann", b"~ann"),
        (b"", b"~~ann", b"~~ann"),
        (b"a subject", b"a", b"~a"),
        (b"~ann", b"~ann", b"~ann"),
    ],
)
def test_marks_nicks_that_are_not_the_subject(subject: bytes, nick: bytes, shown: bytes) -> None:
    assert session_auth(subject).displayed_nick(nick) == shown


@pytest.mark.parametrize("subject", [b"", b"x" * 33, b"two words", b"~ann"])
def test_a_subject_that_is_no_valid_nick_is_not_used_as_one(subject: bytes) -> None:
    assert verified_nick(subject) == b""


@pytest.mark.parametrize("expires, left", [(None, None), (160.0, 60), (100.9, 0), (50.0, 0)])
def test_seconds_left_are_whole(expires: float | None, left: int | None) -> None:
    assert session_auth(b"ann", expires).seconds_left() == left


def test_a_check_that_raises_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The former identity does not count as checked by the new policy."""
    auth, policy = session_auth(), FakePolicy()
    monkeypatch.setattr(policy, "review", lambda identity, listener: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        auth.recheck(policy)
    assert auth.policy is not policy
