"""These packages load no framework, and the central modules load few modules of the project.

import-linter checks the imports in the source (`make layers`). These tests import the packages, so that modules that
libraries load count as well.
"""

import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import twistedsock

FRAMEWORKS = {"autobahn", "twisted", "txaio", "zope"}
WITHOUT_FRAMEWORK = ["twistedsock.errors", "twistedsock.stats"] + [
    f"twistedsock.{package}" for package in ("auth", "codecs", "limits", "metrics", "pubsub", "session")
]


def loaded_by(folder: Path, *modules: str) -> set[str]:
    """All modules that a new interpreter loads for these."""
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    return set(finished.stdout.split())


def modules_of(name: str) -> list[str]:
    """A module by itself, or all modules of a package."""
    (root,) = twistedsock.__path__
    folder = Path(root, *name.split(".")[1:])
    return [f"{name}.{module.name}" for module in pkgutil.iter_modules([str(folder)])] or [name]


@pytest.mark.parametrize("name", WITHOUT_FRAMEWORK)
def test_packages_load_no_framework(name: str, tmp_path: Path) -> None:
    modules = modules_of(name)
    loaded = loaded_by(tmp_path, *modules)
    assert loaded >= set(modules)
    assert not FRAMEWORKS & {module.partition(".")[0] for module in loaded}


@pytest.mark.parametrize(("module", "limit"), [("twistedsock.session.session", 18), ("twistedsock.server.tcp", 41)])
def test_few_modules_must_be_read_to_understand_one(module: str, limit: int, tmp_path: Path) -> None:
    """Modules that are loaded for their types only, under TYPE_CHECKING, do not count, and neither does the compiled
    one, whose twins say what it does."""
    loaded = [name for name in loaded_by(tmp_path, module) if name.startswith("twistedsock.")]
    packages = {name.rpartition(".")[0] for name in loaded}
    assert len(set(loaded) - packages - {"twistedsock._speed"}) <= limit, sorted(loaded)


def test_no_module_imports_a_test_module() -> None:
    files = Path(__file__).parent.rglob("*.py")
    importing = re.compile(r"^\s*(?:from|import) (?:\w+\.)+test_\w+", re.MULTILINE)
    assert [str(file) for file in files if importing.search(file.read_text())] == []
