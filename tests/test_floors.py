"""Rules, codecs, policy and monitoring stand without any framework.

import-linter reads the imports (`make floors`); here they are run, so that what a library pulls in counts as well.
"""

import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
FLOORS = ["auth", "codecs", "limits", "pubsub", "session"]
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
