"""`sockbridge keygen`: keys that other users cannot read, and files that are never overwritten."""

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
    """Permit everything by default, so that the command must set the permissions itself."""
    before = os.umask(0)
    yield
    os.umask(before)


def test_creates_secret_and_prints_entry(run_command):
    outcome = run_command("keygen")
    assert (outcome.status, outcome.errors) == (0, "")
    (entry,) = tomllib.loads(outcome.out)["access"]["key"]
    assert entry == {"id": f"{date.today():%Y-%m}", "algorithm": "HS256", "file": "key"}
    assert mode_of("key") == 0o600
    key = read_key(entry["id"], entry["algorithm"], Path("key"))
    assert len(key.material) == 43, "32 bytes in base64url"
    assert key.warning == ""
    assert key.material.decode() not in outcome.out


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_creates_key_pair_and_prints_entry_of_public_key(run_command, algorithm):
    outcome = run_command("keygen", "shop", "--algorithm", algorithm, "--id", "from-the-shop")
    (entry,) = tomllib.loads(outcome.out)["access"]["key"]
    assert entry == {"id": "from-the-shop", "algorithm": algorithm, "file": "shop.pub"}
    assert (mode_of("shop"), mode_of("shop.pub")) == (0o600, 0o644)
    public, private = read_key("x", algorithm, Path("shop.pub")), read_signing_key(None, Path("shop"))
    assert public.fingerprint == private.fingerprint
    assert public.warning == private.warning == ""


def test_keys_differ(run_command):
    run_command("keygen", "a")
    run_command("keygen", "b")
    assert Path("a").read_bytes() != Path("b").read_bytes()


def test_entry_can_be_appended_to_configuration_file(run_command):
    text = (
        'tcp = "none"\n[access]\nanonymous = {}'
        + run_command("keygen", 'a "key"', "--id", "1").out
        + run_command("keygen", "b").out
    )
    keys = tomllib.loads(text)["access"]["key"]
    assert [key["file"] for key in keys] == ['a "key"', "b"]


@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
@pytest.mark.parametrize("there", ["key", "key.pub"])
def test_does_not_overwrite_files(error_of, run_command, algorithm, there):
    run_command("check", "x")  # into the empty folder
    Path(there).write_text("mine")
    if (algorithm, there) == ("HS256", "key.pub"):
        assert run_command("keygen").status == 0
    else:
        words = error_of("keygen", "--algorithm", algorithm)
        assert words == f"cannot write {there}: File exists: no key was created"
        assert os.listdir() == [there], "nothing is left behind"
    assert Path(there).read_text() == "mine"


def test_does_not_follow_links(error_of, run_command, tmp_path):
    run_command("check", "x")
    os.symlink(tmp_path / "elsewhere", "key")
    assert "File exists" in error_of("keygen")
    assert not (tmp_path / "elsewhere").exists()


def test_error_names_missing_directory(error_of):
    assert error_of("keygen", "nowhere/key") == (
        "cannot write nowhere/key: No such file or directory: no key was created"
    )


def test_rejects_unknown_algorithm(run_command):
    outcome = run_command("keygen", "--algorithm", "none")
    assert (outcome.status, outcome.out) == (2, "")
    assert not os.listdir()
