"""Rights, and how they are written."""

import pytest

from twistedsock.auth.identity import (
    EVERYTHING,
    MAX_KNOWN,
    NO_CERTIFICATES,
    NO_TOKENS,
    Grants,
    Identity,
    Policy,
    Right,
    check_access,
    grants,
)
from twistedsock.errors import NO_RIGHT_TO_READ, RESERVED_CHANNEL
from twistedsock.pubsub.names import CHANNEL_BYTES


def test_rights_of_all_patterns_that_match_are_added_up() -> None:
    some = grants({"alerts.*": "r", "alerts.mine": "w", "kitchen": "rw"})
    assert some.on(b"alerts.fire") == Right.READ
    assert some.on(b"alerts.mine") == Right.BOTH
    assert some.on(b"kitchen") == Right.BOTH
    assert some.on(b"attic") == Right.NONE


def test_grants_are_added_to_others() -> None:
    some, more = grants({"a": "r"}), grants({"a": "w", "b": "r"})
    assert (some + more).on(b"a") == Right.BOTH and (some + more).on(b"b") == Right.READ
    assert some + Grants() is some


def test_everything_is_everything() -> None:
    assert EVERYTHING.on(b"a.b/c:d") == Right.BOTH
    assert Identity(EVERYTHING).own.on(b"a") == Right.NONE


@pytest.mark.parametrize("table", [{"a": "x"}, {"a": "wr"}, {"a": ""}, {"a b": "r"}])
def test_what_is_no_right_is_refused(table: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is no right|invalid pattern"):
        grants(table)


def test_channels_used_in_a_circle_are_not_looked_up_anew_each_time() -> None:
    """With more channels than are remembered, most of those that are remembered stay."""
    some = grants({"a*": "r"})
    circle = [b"a%d" % number for number in range(MAX_KNOWN * 5 // 4)]
    for channel in circle:
        some.on(channel)
    found = 0
    for channel in circle:
        found += channel in some._known
        some.on(channel)
    assert found > MAX_KNOWN // 2


def test_many_channels_are_selected_by_the_right_to_read() -> None:
    some = grants({"a": "r", "b": "w", "c.*": "rw", "d.>": "r"}).readable()
    assert some.compile_some()
    assert some.select([b"a", b"b", b"c.1", b"c.1.2", b"d.1.2", b"e"]) == [b"a", b"c.1", b"d.1.2"]


def test_what_is_remembered_is_bounded() -> None:
    some = grants({"a*": "r"})
    for number in range(3 * MAX_KNOWN):
        assert some.on(b"a%d" % number) == Right.READ
    assert len(some._known) <= MAX_KNOWN
    assert some.on(b"a" * (CHANNEL_BYTES + 1)) == Right.READ  # the name itself is refused elsewhere
    assert all(len(channel) <= CHANNEL_BYTES for channel in some._known)


class PublicPolicy(Policy):
    """A policy that overrides only what it must."""

    clients = Identity(grants({"news": "r"}))

    def anonymous(self, listener: str) -> Identity:
        return self.clients


def test_policy_accepts_no_credentials_unless_overridden() -> None:
    policy = PublicPolicy()
    assert policy.cookie == ""
    assert policy.by_token(b"secret", "tcp:8081") is NO_TOKENS
    assert policy.by_certificate(b"ann", "tcp:8081") is NO_CERTIFICATES


def test_policy_keeps_proved_identities_unless_overridden() -> None:
    policy, anonymous = PublicPolicy(), Identity(EVERYTHING)
    for proved in (Identity(EVERYTHING, subject=b"ann"), Identity(EVERYTHING, proof="token 1")):
        assert policy.review(proved, "tcp:8081") is proved
    assert policy.review(anonymous, "tcp:8081") is PublicPolicy.clients


def test_reserved_channels_can_be_read_with_a_right_to_them() -> None:
    operator, client = Identity(grants({"$sys/>": "rw"}), b"operator"), Identity(EVERYTHING, b"client")
    assert check_access(operator, b"$sys/figures", Right.READ, is_admin=False) is None
    assert check_access(operator, b"$sys/figures", Right.WRITE, is_admin=False) is RESERVED_CHANNEL
    assert check_access(client, b"$sys/figures", Right.READ, is_admin=False) is NO_RIGHT_TO_READ
    assert check_access(client, b"$sys/figures", Right.READ, is_admin=True) is None
