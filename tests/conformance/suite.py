"""Installs the Autobahn WebSocket TestSuite from PyPI, in an environment of Python 2.7, which it needs."""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
FOLDER = CHECKOUT / ".venvs" / "conformance"

SUITE = "autobahntestsuite==25.10.1"
VIRTUALENV = "virtualenv<20.22"
"""The last version that supports Python 2.7."""

WITH_PYTHON2 = {"bullseye", "focal", "jammy"}
"""Releases of Debian and Ubuntu that still have Python 2.7."""

PACKAGES = ("python2.7", "python2.7-dev", "gcc", "libc6-dev")
"""One of the suite's dependencies is compiled."""


def candidates(environment: Mapping[str, str], home: Path) -> Iterator[Path]:
    """Possible paths of Python 2.7: of PYTHON2, on the path, of pyenv."""
    if named := environment.get("PYTHON2"):
        yield Path(named)
    for folder in environment.get("PATH", "").split(os.pathsep):
        yield from (Path(folder, name) for name in ("python2.7", "python2"))
    pyenv = Path(environment.get("PYENV_ROOT") or home / ".pyenv")
    yield from sorted(pyenv.glob("versions/2.7*/bin/python2.7"), reverse=True)


def is_python2(python: Path) -> bool:
    """True if this is a working Python 2.7. It may be a stub that only prints an error."""
    question = "import sys; print(sys.version_info[:2] == (2, 7))"
    try:
        answer = subprocess.run([python, "-c", question], capture_output=True, text=True)
    except OSError:
        return False
    return answer.returncode == 0 and answer.stdout.strip() == "True"


def find_python2(pythons: Iterable[Path]) -> Path | None:
    """The first working one."""
    return next((python for python in pythons if python.is_file() and is_python2(python)), None)


def has_package(os_release: str) -> bool:
    """True if the system with this /etc/os-release has a package of Python 2.7."""
    fields = dict(line.split("=", 1) for line in shlex.split(os_release, comments=True) if "=" in line)
    return fields.get("VERSION_CODENAME") in WITH_PYTHON2


def get_python2() -> Path | None:
    """Find Python 2.7, or install its package. Raises CalledProcessError."""
    python = find_python2(candidates(os.environ, Path.home()))
    release = Path("/etc/os-release")
    if python is None and release.exists() and has_package(release.read_text(encoding="utf-8")):
        subprocess.run([CHECKOUT / "tools" / "apt-install", *PACKAGES], check=True)
        python = find_python2(candidates(os.environ, Path.home()))
    return python


def install(python2: Path) -> list[Path]:
    """The command that runs the suite, which is installed if necessary. Raises CalledProcessError."""
    maker, environment, note = FOLDER / "virtualenv", FOLDER / "python2", FOLDER / "made-of"
    made_of = f"{FOLDER}\n{python2}\n{VIRTUALENV}\n{SUITE}\n"
    if not note.exists() or note.read_text(encoding="utf-8") != made_of:
        print(f"Installing {SUITE} for {python2} into {FOLDER}", flush=True)
        note.unlink(missing_ok=True)
        options = ("install", "--quiet", "--disable-pip-version-check")
        _run(sys.executable, "-m", "venv", "--clear", "--without-pip", maker)
        _run(sys.executable, "-m", "pip", "--python", maker / "bin" / "python", *options, VIRTUALENV)
        _run(maker / "bin" / "python", "-m", "virtualenv", "--quiet", "--clear", "-p", python2, environment)
        _run(environment / "bin" / "python", "-m", "pip", *options, "--no-python-version-warning", SUITE)
        note.write_text(made_of, encoding="utf-8")
    return [environment / "bin" / "python", environment / "bin" / "wstest"]


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        done.check_returncode()
