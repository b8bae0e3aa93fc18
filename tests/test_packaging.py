"""The built distributions contain the right files, and each way to install them adds the command to `twistd`."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.end_to_end

CHECKOUT = Path(__file__).resolve().parent.parent
PLUGINS = {"twisted/plugins/sockbridge_plugin.py", "twisted/plugins/sockbridge_reactor.py"}
NOT_COPIED = shutil.ignore_patterns(
    *(".git", ".venv*", ".peers", ".*_cache", ".hypothesis", "__pycache__", "node_modules"),
    *("*.egg-info", "*.so", "build", "dist", "dropin.cache"),
)


COMPILED = "twistedsock/_speed.abi3.so"
SOURCE = "twistedsock/_speed.c"


def run(*command: str | Path, folder: Path, **variables: str) -> str:
    """Standard output of a command that runs in that folder, without the environment of these tests."""
    foreign = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"}
    environment = {name: value for name, value in os.environ.items() if name not in foreign} | variables
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout + finished.stderr


class Installation:
    """A virtual environment with our dependencies, into which the package is installed temporarily."""

    def __init__(self, folder: Path, elsewhere: Path) -> None:
        self.programs = folder / "bin"
        self.elsewhere = elsewhere
        run(sys.executable, "-m", "venv", folder, folder=elsewhere)

    def pip(self, *arguments: str | Path, **variables: str) -> str:
        pip = (self.programs / "python", "-m", "pip", "--disable-pip-version-check")
        return run(*pip, *arguments, folder=self.elsewhere, **variables)

    def twistd(self, *arguments: str) -> str:
        return run(self.programs / "twistd", *arguments, folder=self.elsewhere)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, because a build writes into its source and would find the files of an earlier one."""
    return Path(
        shutil.copytree(CHECKOUT, tmp_path_factory.mktemp("source") / "checkout", symlinks=True, ignore=NOT_COPIED)
    )


@pytest.fixture(scope="module")
def distributions(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("distributions")
    run(sys.executable, "-m", "build", "--outdir", folder, checkout, folder=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(distributions: Path) -> Path:
    (path,) = distributions.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def source_distribution(distributions: Path) -> Path:
    (path,) = distributions.glob("*.tar.gz")
    return path


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    """Contains the dependencies of our wheel, but not the package: they are fetched once for all tests of this
    module."""
    installation = Installation(tmp_path_factory.mktemp("installation"), tmp_path_factory.mktemp("elsewhere"))
    installation.pip("install", wheel)
    installation.pip("uninstall", "--yes", "sockbridge")
    return installation


def test_the_wheel_contains_only_the_package_and_the_plugins(checkout: Path, wheel: Path) -> None:
    """Detects a new folder that setup.cfg does not list, and a static file that it does not match."""
    folders = (checkout / "twistedsock", checkout / "sockbridge")
    ours = {str(path.relative_to(checkout)) for folder in folders for path in folder.rglob("*") if path.is_file()}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == (ours - {SOURCE}) | PLUGINS | {COMPILED}
    assert "twistedsock/py.typed" in held
    assert "-cp311-abi3-" in wheel.name
    assert any(name.startswith("twistedsock/static/") for name in held)


def test_the_wheel_contains_the_licence(wheel: Path) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist())


def test_the_source_distribution_can_be_tested(checkout: Path, source_distribution: Path) -> None:
    with tarfile.open(source_distribution) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "LICENSE",
        "Makefile",
        "package.json",
        "package-lock.json",
        "pyproject.toml",
        "setup.cfg",
        "setup.py",
    } | PLUGINS
    for folder in ["clients", "sockbridge", "tests", "tools", "twistedsock"]:
        needed |= {str(path.relative_to(checkout)) for path in (checkout / folder).rglob("*") if path.is_file()}
    assert needed <= held


@pytest.fixture(scope="module")
def client_wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the Python client alone."""
    folder = tmp_path_factory.mktemp("client")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, checkout / "clients" / "python", folder=folder)
    (path,) = folder.glob("*.whl")
    return path


def test_the_client_alone_is_the_same_package(wheel: Path, client_wheel: Path) -> None:
    def modules(path: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}

    alone = modules(client_wheel)
    assert alone == {name: text for name, text in modules(wheel).items() if name.startswith("sockbridge/")}
    assert client_wheel.name.split("-")[1] == wheel.name.split("-")[1], "the versions differ"


def test_client_and_server_can_be_installed_together(
    wheel: Path, client_wheel: Path, installation: Installation
) -> None:
    for first, second in ((wheel, client_wheel), (client_wheel, wheel)):
        installation.pip("install", "--no-deps", "--force-reinstall", first)
        installation.pip("install", "--no-deps", "--force-reinstall", second)
        script = "import sockbridge, twistedsock; print(sockbridge.connect)"
        assert "function connect" in run(
            installation.programs / "python", "-W", "error", "-c", script, folder=installation.elsewhere
        )
        installation.pip("uninstall", "--yes", "sockbridge", "sockbridge-client")


def test_the_client_alone_needs_nothing_else(client_wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-index", client_wheel, folder=tmp_path)
    script = "import sockbridge, sockbridge.blocking\ntry: sockbridge.blocking.connect('ws://127.0.0.1:1').__enter__()"
    script += "\nexcept sockbridge.SockbridgeError as error: print(error)"
    assert "pip install websockets" in run(python, "-c", script, folder=tmp_path)


WAYS = ["wheel", "source distribution without a compiler", "folder", "editable folder"]


@pytest.mark.parametrize("way", WAYS)
def test_each_way_to_install_adds_the_command_to_twistd(
    way: str, checkout: Path, wheel: Path, source_distribution: Path, installation: Installation
) -> None:
    arguments: dict[str, list[str | Path]] = {
        "wheel": [wheel],
        "source distribution without a compiler": [source_distribution],
        "folder": [checkout],
        "editable folder": ["--editable", checkout],
    }
    compiler = {"CC": "false"} if "without" in way else {}
    said = installation.pip("install", "--no-deps", "--force-reinstall", *arguments[way], **compiler)
    try:
        assert "_speed" not in said and "error" not in said.lower()
        implementation = "pure-python" if "without" in way else "compiled"
        command = (installation.programs / "sockbridge", "--version")
        assert run(*command, folder=installation.elsewhere).endswith(f" {implementation}\n")
        assert "\n    sockbridge " in installation.twistd("--help")
        assert "Traceback" not in installation.twistd("sockbridge", "--help")
        assert "\n    sockbridge\t" in installation.twistd("--help-reactors")
    finally:
        installation.pip("uninstall", "--yes", "sockbridge")

    listing = installation.twistd("--help")
    assert "\n    web " in listing, "uninstalling took a part of Twisted along"
    assert "sockbridge" not in listing
    assert "Traceback" not in listing
