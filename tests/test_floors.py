"""Rules, codecs, policy and monitoring stand without any framework, and each of their modules has tests of its own.

import-linter reads the imports (`make floors`); here they are run, so that what a library pulls in counts as well.
"""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
FLOORS = ["core", "wire", "access", "monitoring"]
FRAMEWORKS = {"autobahn", "twisted", "txaio", "zope"}
MODULES = sorted(
    path.relative_to(CHECKOUT / "twistedsock").with_suffix("")
    for floor in FLOORS
    for path in (CHECKOUT / "twistedsock" / floor).rglob("*.py")
    if path.name != "__init__.py"
)


def name_of(module: Path) -> str:
    """As it is written in an import."""
    return ".".join(["twistedsock", *module.parts])


@pytest.mark.parametrize("floor", FLOORS)
def test_each_floor_has_modules(floor: str) -> None:
    """Without this, a renamed floor would pass every test below."""
    assert any(module.parts[0] == floor for module in MODULES)


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_loads_no_framework(module: Path, tmp_path: Path) -> None:
    program = (
        "import sys; before = set(sys.modules);"
        f"import {name_of(module)};"
        "print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    finished = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert not FRAMEWORKS & set(finished.stdout.split())


@pytest.mark.parametrize("module", MODULES, ids=name_of)
def test_a_module_has_tests_of_its_own(module: Path) -> None:
    tests = CHECKOUT / "tests" / module.parent / f"test_{module.name}.py"
    assert tests.exists(), f"{name_of(module)} has no {tests.relative_to(CHECKOUT)}"


@pytest.mark.parametrize("floor", FLOORS)
def test_no_tests_are_left_of_a_module_that_is_gone(floor: str) -> None:
    """A module has ``test_<module>.py`` and, where that would be long, ``test_<module>_<aspect>.py``."""
    for path in (CHECKOUT / "tests" / floor).rglob("test_*.py"):
        folder, subject = path.relative_to(CHECKOUT / "tests").parent, path.stem.removeprefix("test_")
        modules = [module.name for module in MODULES if module.parent == folder]
        assert any(subject == name or subject.startswith(f"{name}_") for name in modules), path
