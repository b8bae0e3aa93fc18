"""What one peer may do, and whether its nick is vouched for."""

import pytest

from twistedsock.auth.identity import Identity, Right, grants
from twistedsock.errors import ErrorCode
from twistedsock.session.authorizer import SessionAuth
from twistedsock.testing import FakePolicy, FakeServer


def standing(subject: bytes = b"", expires: float | None = None) -> SessionAuth:
    server = FakeServer(policy=FakePolicy())
    server.wall = 100.0
    found = SessionAuth(server.context, FakePolicy(), "tcp:8081", server.line_client().session)
    found.identity = Identity(grants({"news": "r", "inbox": "w"}), subject, expires)
    return found


@pytest.mark.parametrize("subject, code", [(b"", ErrorCode.UNAUTHORIZED), (b"ann", ErrorCode.FORBIDDEN)])
def test_who_lacks_a_right_is_told_whether_a_token_would_help(subject: bytes, code: ErrorCode) -> None:
    someone = standing(subject)
    assert someone.check_access(b"news", Right.READ) is None
    assert someone.check_access(b"inbox", Right.WRITE) is None
    writing, reading = someone.check_access(b"news", Right.WRITE), someone.check_access(b"inbox", Right.READ)
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
def test_only_the_nick_that_the_proof_names_stands_without_a_mark(subject: bytes, nick: bytes, shown: bytes) -> None:
    assert standing(subject).displayed_nick(nick) == shown


@pytest.mark.parametrize("subject", [b"", b"x" * 33, b"two words", b"~ann"])
def test_a_subject_that_is_no_nick_vouches_for_none(subject: bytes) -> None:
    assert standing(subject).verified_nick() == b""


@pytest.mark.parametrize("expires, left", [(None, None), (160.0, 60), (100.9, 0), (50.0, 0)])
def test_the_seconds_that_are_left_are_whole(expires: float | None, left: int | None) -> None:
    assert standing(b"ann", expires).seconds_left() == left


def test_a_review_that_fails_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An identity of an older policy must not count as one of the new policy."""
    someone, policy = standing(), FakePolicy()
    monkeypatch.setattr(policy, "review", lambda identity, listener: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        someone.review(policy)
    assert someone.policy is not policy
