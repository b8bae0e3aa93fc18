"""Runs the unit tests under every supported Python on this machine, each in an environment of its own in .venvs/.

The Python that also runs all other tests gets the oldest dependencies that setup.cfg allows, and does not use the
compiled module. The other versions get the newest, and use the module of the checkout.
"""

import configparser
import hashlib
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

SUPPORTED = [(3, 11), (3, 12), (3, 13), (3, 14)]
CHECKOUT = Path(__file__).resolve().parent.parent
OF_THE_CHECKOUT = ["test_documentation.py", "test_layers.py", "test_fuzz.py"]
"""Tests of what is the same under any Python: pages, imports, the command that looks for new inputs."""
OF_ALL_PROTOCOLS = ["bench", "behaviours"]
"""Each behaviour over all pairs of protocols, and the comparison with other servers: a third of the time. The
dependencies matter to them, but the version of Python only to the modules that other tests try one by one."""

NEEDS_HEADERS = "codecs/test_speedups.py"
"""Builds the compiled module with the headers of its Python, which only one Python may have."""


def written(version: tuple[int, int]) -> str:
    """As in the name of the program."""
    return f"{version[0]}.{version[1]}"


def version_of(python: Path) -> tuple[int, int] | None:
    """The version that really runs there; None if none can make an environment, as with a pyenv shim."""
    question = "import sys, venv; print(*sys.version_info[:2])"
    answer = subprocess.run([python, "-c", question], capture_output=True, text=True)
    if answer.returncode != 0:
        return None
    major, minor = answer.stdout.split()
    return int(major), int(minor)


def find_pythons() -> dict[tuple[int, int], Path]:
    """The first working interpreter of each supported version: this one's own, on the path, or pyenv's."""
    own = Path(sys.base_prefix, "bin", f"python{written(sys.version_info[:2])}")
    found = {sys.version_info[:2]: own}
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)]
    folders += sorted(Path.home().glob(".pyenv/versions/*/bin"))
    for version in SUPPORTED:
        for folder in folders:
            python = folder / f"python{written(version)}"
            if version not in found and python.exists() and version_of(python) == version:
                found[version] = python
    return dict(sorted(found.items()))


def oldest_dependencies(setup: str) -> str:
    """What setup.cfg requires, as pip constraints that allow the oldest versions only."""
    parser = configparser.ConfigParser()
    parser.read_string(setup)
    lines = parser["options"]["install_requires"].split()
    return "\n".join(re.sub(r"\[.*?\]", "", line).replace(">=", "==") for line in lines)


def prepare(python: Path, environment: Path, constraints: str) -> None:
    """Makes the environment, unless it was made from the same Python and the same setup.cfg before."""
    setup = (CHECKOUT / "setup.cfg").read_text()
    origin = hashlib.sha256(f"{CHECKOUT}\n{python}\n{constraints}\n{setup}".encode()).hexdigest()
    stamp = environment / "made-from"
    if stamp.exists() and stamp.read_text() == origin:
        return
    # With the pip of this environment, and without compiling modules that no test imports.
    subprocess.run([python, "-m", "venv", "--clear", "--without-pip", environment], check=True)
    (environment / "constraints.txt").write_text(constraints)
    pip = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "--quiet"]
    options = ["--disable-pip-version-check", "--no-compile", "--constraint", environment / "constraints.txt"]
    # Without a compiler, the compiled module in the checkout, which other tests are using, is not replaced.
    environ = {**os.environ, "CC": "false"}
    subprocess.run([*pip, "install", *options, "--editable", ".[unit]"], cwd=CHECKOUT, env=environ, check=True)
    stamp.write_text(origin)


def main() -> int:
    """Prepare the environments one after the other (editable builds share a folder in the checkout), then run all
    tests at once. Each result is printed when its run ends."""
    constraints = oldest_dependencies((CHECKOUT / "setup.cfg").read_text())
    pythons = find_pythons()
    runs = []
    for version, python in pythons.items():
        oldest = version == sys.version_info[:2]
        environment = CHECKOUT / ".venvs" / written(version)
        prepare(python, environment, constraints if oldest else "")
        title = f"Python {written(version)}" + (" with the oldest dependencies" if oldest else "")
        ignored = ["end_to_end", *OF_THE_CHECKOUT, *([] if oldest else [*OF_ALL_PROTOCOLS, NEEDS_HEADERS])]
        switch = {"SOCKBRIDGE_PURE_PYTHON": "1" if oldest else "0"}
        runs.append((title, environment / "bin" / "pytest", environment / "output.txt", ignored, switch))

    # The main run looks for what only chance would find, with five times as many examples, and runs the slow tests:
    # what they show does not depend on the version of Python.
    environ = {**os.environ, "HYPOTHESIS_PROFILE": "short"}
    processes = []
    for _, pytest, output, ignored, switch in runs:
        command = [pytest, "-q", "-m", "not end_to_end and not slow", "-p", "no:cacheprovider"]
        command += [f"--ignore=tests/{name}" for name in ignored]
        with output.open("w") as file:
            processes.append(subprocess.Popen(command, cwd=CHECKOUT, env=environ | switch, stdout=file, stderr=file))

    failed = 0
    with ThreadPoolExecutor(len(runs)) as pool:
        waits = {pool.submit(process.wait): run for run, process in zip(runs, processes, strict=True)}
        for wait in as_completed(waits):
            title, _, output, *_ = waits[wait]
            if wait.result() == 0:
                print(f"{title}: {output.read_text().splitlines()[-1]}", flush=True)
            else:
                failed += 1
                print(f"{title}: FAILED\n{output.read_text()}", flush=True)
    missing = [written(version) for version in SUPPORTED if version not in pythons]
    if missing:
        print(f"Not on this machine, so not tested: Python {', '.join(missing)}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
