"""Twisted finds the command and the reactor in every folder, without importing the package."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
TWISTD = Path(sys.executable).parent / "twistd"


def run(*command: str | Path, folder: Path) -> str:
    """The output of a command in another folder, so that the checkout is not on Python's path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([TWISTD, "--help"], "\n    sockbridge "),
        ([sys.executable, "-m", "twisted", "--help"], "\n    sockbridge "),
        ([TWISTD, "sockbridge", "--help"], "sockbridge [options]"),
        ([TWISTD, "--help-reactors"], "\n    sockbridge\t"),
    ],
)
def test_twisted_lists_the_command_and_the_reactor(tmp_path: Path, command: list[str | Path], words: str) -> None:
    listing = run(*command, folder=tmp_path)
    assert words in listing
    assert "Traceback" not in listing


def test_finding_the_command_imports_nothing(tmp_path: Path) -> None:
    question = (
        "import sys; from twisted.application.service import IServiceMaker; from twisted.plugin import getPlugins;"
        "print([maker.tapname for maker in getPlugins(IServiceMaker)], [*filter(None, map(str, sys.modules))])"
    )
    answer = run(sys.executable, "-c", question, folder=tmp_path)
    assert "'sockbridge'" in answer
    assert "'twistedsock" not in answer


def test_finding_the_reactor_imports_nothing(tmp_path: Path) -> None:
    """A reactor that is imported can no longer be chosen."""
    question = (
        "import sys; from twisted.application.reactors import getReactorTypes;"
        "print([reactor.shortName for reactor in getReactorTypes()], [*filter(None, map(str, sys.modules))])"
    )
    answer = run(sys.executable, "-c", question, folder=tmp_path)
    assert "'sockbridge'" in answer
    assert "'twistedsock" not in answer
    assert "'twisted.internet.reactor'" not in answer


@pytest.mark.parametrize("folder", ["twisted", "twisted/plugins"])
def test_plugin_folders_are_not_packages(folder: str) -> None:
    """An __init__.py in twisted/ would hide Twisted, and one in twisted/plugins/ would hide the plugin."""
    assert not (CHECKOUT / folder / "__init__.py").exists()
