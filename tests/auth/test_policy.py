"""Who may do what, by token, certificate, listener and name; and what is left of it after a change of the table."""

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
def test_the_cookie_is_that_of_the_table(build, told, cookie):
    assert build(**told).cookie == cookie


def test_who_shows_nothing_has_what_all_have(build):
    policy = build()
    identity = policy.anonymous(PUBLIC)
    assert rights(identity, "lobby.a", "news", "kitchen") == [Right.BOTH, Right.READ, Right.NONE]
    assert (identity.subject, identity.proof, identity.expires, identity.is_admin) == (b"", "", None, False)
    assert policy.anonymous(PUBLIC) is identity, "one for all, as it remembers"


def test_a_listener_may_be_trusted_more_or_less(build):
    policy = build()
    assert rights(policy.anonymous(TRUSTED), "kitchen") == [Right.BOTH]
    assert rights(policy.anonymous(SECURE), "news", "kitchen") == [Right.READ, Right.NONE]
    closed = build(listener=(ListenerTable(PUBLIC, {}),))
    assert rights(closed.anonymous(PUBLIC), "news") == [Right.NONE]


def test_without_a_word_nobody_may_do_anything(build):
    policy = build(anonymous={}, key=(), listener=(), subject=())
    assert rights(policy.anonymous(PUBLIC), "news", "kitchen") == [Right.NONE] * 2
    assert policy.by_token(b"a.b.c", PUBLIC) == policies.NO_KEYS
    assert policy.by_certificate(b"ann", PUBLIC) == policies.NO_CERTIFICATES


def test_a_token_adds_to_what_all_have(keyring, build):
    policy = build()
    identity = policy.by_token(keyring.token(channels={"kitchen": "r", "news": "w"}), PUBLIC)
    assert rights(identity, "kitchen", "news", "lobby.a", "cellar", "attic") == [
        *(Right.READ, Right.BOTH, Right.BOTH, Right.READ, Right.NONE)
    ]
    assert (identity.subject, identity.expires) == (b"ann", keyring.now + 90)
    assert [str(right) for right in (identity.own.on(b"kitchen"), identity.own.on(b"lobby.a"))] == ["1", "0"]
    assert rights(policy.by_token(keyring.token(), TRUSTED), "attic") == [Right.BOTH]


def test_a_token_that_is_not_valid_is_refused_with_the_reason(keyring, build):
    policy = build(audience="here")
    assert "aud is missing" in policy.by_token(keyring.token(), PUBLIC).message
    assert "expired" in policy.by_token(keyring.token(exp=keyring.now - 31, aud="here"), PUBLIC).message
    assert rights(policy.by_token(keyring.token(aud="here"), PUBLIC), "cellar") == [Right.READ]


def test_an_admin_may_do_everything(keyring, build):
    identity = build().by_token(keyring.token(admin=True), PUBLIC)
    assert identity.is_admin
    assert identity.grants is EVERYTHING


def test_a_subject_has_what_all_its_patterns_give(keyring, build):
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
def test_a_star_is_any_run_of_characters(keyring, build, name, yes, no):
    policy = build(subject=(SubjectTable(name, {"x": "r"}),))
    for sub, right in [*((each, Right.READ) for each in yes), *((each, Right.NONE) for each in no)]:
        assert rights(policy.by_token(keyring.token(sub=sub), PUBLIC), "x") == [right], sub


def test_many_stars_take_no_time(keyring, build):
    policy = build(subject=(SubjectTable("a*" * 99 + "b", {"x": "r"}),))
    assert rights(policy.by_token(keyring.token(sub="a" * 200), PUBLIC), "x") == [Right.NONE]


def test_those_who_have_nothing_of_their_own_share_one_object(keyring, build):
    policy = build()
    identity = policy.by_token(keyring.token(sub="bob"), PUBLIC)
    assert identity.grants is policy.anonymous(PUBLIC).grants


def test_a_certificate_is_an_identity_where_it_is_asked_for(build):
    policy = build()
    identity = policy.by_certificate(b"sensor-7", SECURE)
    assert rights(identity, "sensors.a", "seven", "news") == [Right.WRITE, Right.READ, Right.READ]
    assert (identity.subject, identity.expires, identity.is_admin) == (b"sensor-7", None, False)
    assert policy.by_certificate(b"sensor-7", TRUSTED) == policies.NO_CERTIFICATES


@pytest.mark.parametrize("name", [b"", b"~ann", b"a\nb", b"\xff", b"x" * 201])
def test_a_common_name_must_be_fit_to_be_shown(build, name):
    assert build().by_certificate(name, SECURE) == policies.BAD_COMMON_NAME


def test_a_review_gives_those_without_a_token_what_they_have_now(build):
    identity = build().anonymous(PUBLIC)
    assert rights(build(anonymous={"attic": "r"}).review(identity, PUBLIC), "news", "attic") == [Right.NONE, Right.READ]


def test_a_review_keeps_what_a_token_itself_grants(keyring, build):
    identity = build().by_token(keyring.token(channels={"kitchen": "rw"}), PUBLIC)
    after = build(anonymous={}, subject=(SubjectTable("ann", {"attic": "r"}),)).review(identity, PUBLIC)
    assert rights(after, "kitchen", "news", "cellar", "attic") == [Right.BOTH, Right.NONE, Right.NONE, Right.READ]
    assert (after.subject, after.expires, after.proof) == (identity.subject, identity.expires, identity.proof)
    again = build().review(after, PUBLIC)
    assert rights(again, "kitchen", "news", "cellar", "attic") == [Right.BOTH, Right.READ, Right.READ, Right.NONE]


def test_a_review_keeps_an_admin(keyring, build):
    identity = build().by_token(keyring.token(admin=True), PUBLIC)
    assert build(anonymous={}).review(identity, PUBLIC).grants is EVERYTHING


def test_a_review_refuses_those_whose_key_is_gone_or_another(keyring, build, tmp_path):
    identity = build().by_token(keyring.token(), PUBLIC)
    assert build(key=()).review(identity, PUBLIC) == policies.GONE_KEY
    (tmp_path / "key").write_bytes(b"x" * 32)
    changed = KeyTable("2026-11", "HS256", str(tmp_path / "key"))
    assert build(key=(changed,)).review(identity, PUBLIC) == policies.GONE_KEY
    rotated = (changed, KeyTable("old", "HS256", str(keyring.folder / "HS256")))
    assert isinstance(build(key=rotated).review(identity, PUBLIC), Identity), "that very key is still there"


def test_a_review_refuses_tokens_for_another_audience(keyring, build):
    identity = build(audience="the kitchen").by_token(keyring.token(aud="the kitchen"), PUBLIC)
    assert isinstance(build(audience="the kitchen").review(identity, PUBLIC), Identity)
    for audience in ("kitchen", None):
        assert build(audience=audience).review(identity, PUBLIC) == policies.OTHER_AUDIENCE


def test_a_review_refuses_tokens_that_never_expire_once_they_must(keyring, build):
    identity = build(expiry_required=False).by_token(keyring.token({"sub": "ann"}), PUBLIC)
    assert identity.expires is None
    assert isinstance(build(expiry_required=False).review(identity, PUBLIC), Identity)
    assert build().review(identity, PUBLIC) == policies.EXPIRY_WANTED


def test_a_review_looks_at_certificates_anew(build):
    identity = build().by_certificate(b"ann", SECURE)
    assert rights(build(subject=()).review(identity, SECURE), "cellar") == [Right.NONE]
    assert build(listener=()).review(identity, SECURE) == policies.NO_CERTIFICATES


def test_a_key_that_cannot_be_read_is_named_by_its_place(build, keyring):
    good = KeyTable("a", "HS256", str(keyring.folder / "HS256"))
    with pytest.raises(AccessError) as caught:
        build(key=(good, KeyTable("b", "ES256", "/nowhere/key")))
    assert str(caught.value) == "access.key[1].file: cannot read /nowhere/key: No such file or directory"


def test_what_is_odd_about_a_key_is_there_to_be_logged(build, keyring, tmp_path):
    assert build().warnings == ()
    (tmp_path / "key").write_bytes(keyring.secret)
    (tmp_path / "key").chmod(0o644)
    (warning,) = build(key=(KeyTable("a", "HS256", str(tmp_path / "key")),)).warnings
    assert "others than its owner can read the secret" in warning


def test_the_proof_does_not_hold_the_token(keyring, build):
    token = keyring.token()
    identity = build().by_token(token, PUBLIC)
    assert not isinstance(identity, Error)
    for part in token.decode().split("."):
        assert part not in repr(identity)
