"""Identities and rights by token, certificate, listener and subject, and the review after a change of the table."""

import pytest

from twistedsock.auth import policy as policies
from twistedsock.auth.config import AccessTable, KeyTable, ListenerTable, SubjectTable
from twistedsock.auth.identity import EVERYTHING, Identity, Policy, Right
from twistedsock.auth.keys import AccessError
from twistedsock.auth.policy import build_policy
from twistedsock.errors import Error

PUBLIC, TRUSTED, SECURE = "tcp:8081", "unix:/run/bridge", "ssl:8443"
LISTENERS = (
    ListenerTable(TRUSTED, {">": "rw"}),
    ListenerTable(SECURE, client_ca="/etc/ca.pem"),
)
SUBJECTS = (
    SubjectTable("sensor-*", {"sensors.>": "w"}),
    SubjectTable("ann", {"cellar": "r"}),
    SubjectTable("sensor-7", {"seven": "r"}),
)


@pytest.fixture
def build(keyring):
    def build(**told) -> Policy:
        key = KeyTable("2026-11", "HS256", str(keyring.folder / "HS256"))
        defaults = {"anonymous": {"lobby.*": "rw", "news": "r"}, "key": (key,), "listener": LISTENERS}
        table = AccessTable(**defaults | {"subject": SUBJECTS} | told)
        return build_policy(table, lambda: keyring.now)

    return build


def rights(identity, *channels):
    assert isinstance(identity, Identity), identity
    return [Right(identity.grants.on(channel.encode())) for channel in channels]


@pytest.mark.parametrize(("told", "cookie"), [({}, ""), ({"cookie": "session"}, "session")])
def test_cookie_is_that_of_the_table(build, told, cookie):
    assert build(**told).cookie == cookie


def test_anonymous_client_has_anonymous_rights(build):
    policy = build()
    identity = policy.anonymous(PUBLIC)
    assert rights(identity, "lobby.a", "news", "kitchen") == [Right.BOTH, Right.READ, Right.NONE]
    assert (identity.subject, identity.proof, identity.expires, identity.is_admin) == (b"", "", None, False)
    assert policy.anonymous(PUBLIC) is identity, "one object for all, because it caches rights"


def test_listener_overrides_anonymous_rights(build):
    policy = build()
    assert rights(policy.anonymous(TRUSTED), "kitchen") == [Right.BOTH]
    assert rights(policy.anonymous(SECURE), "news", "kitchen") == [Right.READ, Right.NONE]
    closed = build(listener=(ListenerTable(PUBLIC, {}),))
    assert rights(closed.anonymous(PUBLIC), "news") == [Right.NONE]


def test_empty_table_grants_nothing(build):
    policy = build(anonymous={}, key=(), listener=(), subject=())
    assert rights(policy.anonymous(PUBLIC), "news", "kitchen") == [Right.NONE] * 2
    assert policy.by_token(b"a.b.c", PUBLIC) == policies.NO_KEYS
    assert policy.by_certificate(b"ann", PUBLIC) == policies.NO_CERTIFICATES


def test_token_adds_to_anonymous_rights(keyring, build):
    policy = build()
    identity = policy.by_token(keyring.token(channels={"kitchen": "r", "news": "w"}), PUBLIC)
    assert rights(identity, "kitchen", "news", "lobby.a", "cellar", "attic") == [
        *(Right.READ, Right.BOTH, Right.BOTH, Right.READ, Right.NONE)
    ]
    assert (identity.subject, identity.expires) == (b"ann", keyring.now + 90)
    assert [str(right) for right in (identity.own.on(b"kitchen"), identity.own.on(b"lobby.a"))] == ["1", "0"]
    assert rights(policy.by_token(keyring.token(), TRUSTED), "attic") == [Right.BOTH]


def test_invalid_token_is_rejected_with_the_reason(keyring, build):
    policy = build(audience="here")
    assert "audience (aud)" in policy.by_token(keyring.token(), PUBLIC).message
    assert "expired" in policy.by_token(keyring.token(exp=keyring.now - 31, aud="here"), PUBLIC).message
    assert rights(policy.by_token(keyring.token(aud="here"), PUBLIC), "cellar") == [Right.READ]


def test_admin_has_all_rights(keyring, build):
    identity = build().by_token(keyring.token(admin=True), PUBLIC)
    assert identity.is_admin
    assert identity.grants is EVERYTHING


def test_subject_has_rights_of_all_matching_patterns(keyring, build):
    policy = build()

    def of(sub):
        return rights(policy.by_token(keyring.token(sub=sub), PUBLIC), "sensors.a", "seven")

    assert of("sensor-7") == [Right.WRITE, Right.READ]
    assert of("sensor-") == of("sensor-8") == [Right.WRITE, Right.NONE]
    assert of("sensor") == of("a-sensor-7") == of("SENSOR-7") == [Right.NONE, Right.NONE]


@pytest.mark.parametrize(
    ("name", "yes", "no"),
    [
        ("ann", ["ann"], ["an", "anna", "Ann", "ann "]),
        ("*", ["a", "a.b c/d"], []),
        ("a*b*c", ["abc", "a-b-c", "abbc", "abcbc"], ["ab", "acb", "abcd", "ac"]),
        ("*a*a*", ["aa", "xaxax"], ["a", "xax"]),
        ("ab*ba", ["abba", "abxba"], ["aba", "ab"]),
        ("a**b", ["ab", "axb"], ["a"]),
        ("a.b", ["a.b"], ["axb"]),
        ("[a]?", ["[a]?"], ["ab"]),
    ],
)
def test_star_matches_any_characters(keyring, build, name, yes, no):
    policy = build(subject=(SubjectTable(name, {"x": "r"}),))
    for sub, right in [*((each, Right.READ) for each in yes), *((each, Right.NONE) for each in no)]:
        assert rights(policy.by_token(keyring.token(sub=sub), PUBLIC), "x") == [right], sub


def test_pattern_with_many_stars_is_fast(keyring, build):
    policy = build(subject=(SubjectTable("a*" * 99 + "b", {"x": "r"}),))
    assert rights(policy.by_token(keyring.token(sub="a" * 200), PUBLIC), "x") == [Right.NONE]


def test_identities_without_own_rights_share_grants(keyring, build):
    policy = build()
    identity = policy.by_token(keyring.token(sub="bob"), PUBLIC)
    assert identity.grants is policy.anonymous(PUBLIC).grants


def test_certificate_is_accepted_at_listener_with_client_ca_only(build):
    policy = build()
    identity = policy.by_certificate(b"sensor-7", SECURE)
    assert rights(identity, "sensors.a", "seven", "news") == [Right.WRITE, Right.READ, Right.READ]
    assert (identity.subject, identity.expires, identity.is_admin) == (b"sensor-7", None, False)
    assert policy.by_certificate(b"sensor-7", TRUSTED) == policies.NO_CERTIFICATES


@pytest.mark.parametrize("name", [b"", b"~ann", b"a\nb", b"\xff", b"x" * 201])
def test_rejects_invalid_common_name(build, name):
    assert build().by_certificate(name, SECURE) == policies.BAD_COMMON_NAME


def test_review_updates_anonymous_rights(build):
    identity = build().anonymous(PUBLIC)
    assert rights(build(anonymous={"attic": "r"}).review(identity, PUBLIC), "news", "attic") == [Right.NONE, Right.READ]


def test_review_keeps_rights_of_token(keyring, build):
    identity = build().by_token(keyring.token(channels={"kitchen": "rw"}), PUBLIC)
    after = build(anonymous={}, subject=(SubjectTable("ann", {"attic": "r"}),)).review(identity, PUBLIC)
    assert rights(after, "kitchen", "news", "cellar", "attic") == [Right.BOTH, Right.NONE, Right.NONE, Right.READ]
    assert (after.subject, after.expires, after.proof) == (identity.subject, identity.expires, identity.proof)
    again = build().review(after, PUBLIC)
    assert rights(again, "kitchen", "news", "cellar", "attic") == [Right.BOTH, Right.READ, Right.READ, Right.NONE]


def test_review_keeps_admin(keyring, build):
    identity = build().by_token(keyring.token(admin=True), PUBLIC)
    assert build(anonymous={}).review(identity, PUBLIC).grants is EVERYTHING


def test_review_rejects_token_of_removed_or_changed_key(keyring, build, tmp_path):
    identity = build().by_token(keyring.token(), PUBLIC)
    assert build(key=()).review(identity, PUBLIC) == policies.REMOVED_KEY
    (tmp_path / "key").write_bytes(b"x" * 32)
    changed = KeyTable("2026-11", "HS256", str(tmp_path / "key"))
    assert build(key=(changed,)).review(identity, PUBLIC) == policies.REMOVED_KEY
    rotated = (changed, KeyTable("old", "HS256", str(keyring.folder / "HS256")))
    assert isinstance(build(key=rotated).review(identity, PUBLIC), Identity), "the same key under another id"


def test_review_rejects_token_for_former_audience(keyring, build):
    identity = build(audience="the kitchen").by_token(keyring.token(aud="the kitchen"), PUBLIC)
    assert isinstance(build(audience="the kitchen").review(identity, PUBLIC), Identity)
    for audience in ("kitchen", None):
        assert build(audience=audience).review(identity, PUBLIC) == policies.CHANGED_AUDIENCE


def test_review_rejects_token_without_expiry_if_required(keyring, build):
    identity = build(expiry_required=False).by_token(keyring.token({"sub": "ann"}), PUBLIC)
    assert identity.expires is None
    assert isinstance(build(expiry_required=False).review(identity, PUBLIC), Identity)
    assert build().review(identity, PUBLIC) == policies.EXPIRY_REQUIRED


def test_review_updates_rights_of_certificate(build):
    identity = build().by_certificate(b"ann", SECURE)
    assert rights(build(subject=()).review(identity, SECURE), "cellar") == [Right.NONE]
    assert build(listener=()).review(identity, SECURE) == policies.NO_CERTIFICATES


def test_error_names_entry_of_unreadable_key(build, keyring):
    good = KeyTable("a", "HS256", str(keyring.folder / "HS256"))
    with pytest.raises(AccessError) as caught:
        build(key=(good, KeyTable("b", "ES256", "/nowhere/key")))
    assert str(caught.value) == "access.key[1].file: cannot read /nowhere/key: No such file or directory"


def test_collects_warnings_about_key_files(build, keyring, tmp_path):
    assert build().warnings == ()
    (tmp_path / "key").write_bytes(keyring.secret)
    (tmp_path / "key").chmod(0o644)
    (warning,) = build(key=(KeyTable("a", "HS256", str(tmp_path / "key")),)).warnings
    assert "users other than the owner can read the secret" in warning


def test_identity_does_not_contain_token(keyring, build):
    token = keyring.token()
    identity = build().by_token(token, PUBLIC)
    assert not isinstance(identity, Error)
    for part in token.decode().split("."):
        assert part not in repr(identity)
