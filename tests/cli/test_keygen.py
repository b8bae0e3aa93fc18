"""A key is made so that nobody else can read it, and nothing is overwritten."""

import os
import stat
import tomllib
from datetime import date
from pathlib import Path

import pytest

from twistedsock.auth.keys import read_key, read_signing_key


def mode_of(file):
    return stat.S_IMODE(Path(file).stat().st_mode)


@pytest.fixture(autouse=True)
def umask():
    """The most careless one."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_a_secret_is_made_and_told(say):
    outcome = say("keygen")
    assert (outcome.status, outcome.errors) == (0, "")
    (told,) = tomllib.loads(outcome.out)["access"]["key"]
    assert told == {"id": f"{date.today():%Y-%m}", "algorithm": "HS256", "file": "key"}
    assert mode_of("key") == 0o600
    key = read_key(told["id"], told["algorithm"], Path("key"))
    assert len(key.material) == 43, "32 bytes in base64url"
    assert key.warning == ""
    assert key.material.decode() not in outcome.out


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_pair_of_keys_is_made_and_the_public_one_told(say, algorithm):
    outcome = say("keygen", "shop", "--algorithm", algorithm, "--id", "from-the-shop")
    (told,) = tomllib.loads(outcome.out)["access"]["key"]
    assert told == {"id": "from-the-shop", "algorithm": algorithm, "file": "shop.pub"}
    assert (mode_of("shop"), mode_of("shop.pub")) == (0o600, 0o644)
    public, private = read_key("x", algorithm, Path("shop.pub")), read_signing_key(None, Path("shop"))
    assert public.fingerprint == private.fingerprint
    assert public.warning == private.warning == ""


def test_no_two_are_alike(say):
    say("keygen", "a")
    say("keygen", "b")
    assert Path("a").read_bytes() != Path("b").read_bytes()


def test_what_is_told_can_be_put_behind_other_options(say):
    text = 'tcp = "none"\n[access]\nanonymous = {}' + say("keygen", 'a "key"', "--id", "1").out + say("keygen", "b").out
    keys = tomllib.loads(text)["access"]["key"]
    assert [key["file"] for key in keys] == ['a "key"', "b"]


@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
@pytest.mark.parametrize("there", ["key", "key.pub"])
def test_nothing_is_overwritten(refused, say, algorithm, there):
    say("check", "x")  # into the empty folder
    Path(there).write_text("mine")
    if (algorithm, there) == ("HS256", "key.pub"):
        assert say("keygen").status == 0
    else:
        words = refused("keygen", "--algorithm", algorithm)
        assert words == f"cannot write {there}: File exists; no key was made"
        assert os.listdir() == [there], "nothing is left behind"
    assert Path(there).read_text() == "mine"


def test_a_link_is_not_followed(refused, say, tmp_path):
    say("check", "x")
    os.symlink(tmp_path / "elsewhere", "key")
    assert "File exists" in refused("keygen")
    assert not (tmp_path / "elsewhere").exists()


def test_a_folder_that_is_not_there_is_told(refused):
    assert refused("keygen", "nowhere/key") == ("cannot write nowhere/key: No such file or directory; no key was made")


def test_a_wrong_word_is_a_mistake_in_the_call(say):
    outcome = say("keygen", "--algorithm", "none")
    assert (outcome.status, outcome.out) == (2, "")
    assert not os.listdir()
