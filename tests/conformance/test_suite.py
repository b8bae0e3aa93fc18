"""The Python 2.7 that the suite needs is found, and nothing else is mistaken for it."""

from pathlib import Path

import pytest

from tests.conformance.suite import candidates, find_python2, has_package, is_python2


def program(file: Path, script: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def test_searches_environment_path_and_pyenv(tmp_path: Path) -> None:
    pyenvs = [tmp_path / ".pyenv/versions" / version / "bin/python2.7" for version in ("2.7.18", "2.7.9")]
    for python in (*pyenvs, tmp_path / ".pyenv/versions/3.11.7/bin/python3.11"):
        program(python, "")
    found = list(candidates({"PYTHON2": "/mine", "PATH": "/first:/second"}, tmp_path))
    assert found[:5] == [
        Path("/mine"),
        *(Path("/first/python2.7"), Path("/first/python2")),
        *(Path("/second/python2.7"), Path("/second/python2")),
    ]
    assert sorted(found[5:]) == sorted(pyenvs)


def test_searches_pyenv_root(tmp_path: Path) -> None:
    python = program(tmp_path / "elsewhere/versions/2.7.18/bin/python2.7", "")
    assert python in candidates({"PYENV_ROOT": str(tmp_path / "elsewhere")}, tmp_path)


def test_selects_the_first_that_runs(tmp_path: Path) -> None:
    stub = program(tmp_path / "stub", "echo 'pyenv: python2.7: command not found' >&2; exit 127")
    newer = program(tmp_path / "newer", "echo False")
    right = program(tmp_path / "right", "echo True")
    assert find_python2([tmp_path / "none", tmp_path, stub, newer, right]) == right
    assert find_python2([stub, newer]) is None


@pytest.mark.parametrize("content", ["", "no program"])
def test_rejects_programs_that_cannot_be_run(content: str, tmp_path: Path) -> None:
    file = tmp_path / "python2.7"
    file.write_text(content)
    assert not is_python2(file)


@pytest.mark.parametrize(
    ("release", "has"),
    [
        ('PRETTY_NAME="Debian GNU/Linux 11 (bullseye)"\nVERSION_CODENAME=bullseye\nID=debian\n', True),
        ('NAME="Ubuntu"\n# a comment\nVERSION_CODENAME="jammy"\n', True),
        ("VERSION_CODENAME=bookworm\nID=debian\n", False),
        ("ID=alpine\n", False),
        ("", False),
    ],
)
def test_names_a_package_of_some_releases(release: str, has: bool) -> None:
    assert has_package(release) is has
