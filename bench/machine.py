"""Properties of the machine that the figures depend on."""

import functools
import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import NamedTuple


def describe() -> dict[str, object]:
    """The machine: name and description of each property."""
    cpu = _file("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.*)", cpu)
    memory = re.search(r"MemTotal:\s+(\d+)", _file("/proc/meminfo"))
    virtual = re.search(r"^flags.*\bhypervisor\b", cpu, re.MULTILINE)
    product = _file("/sys/class/dmi/id/product_name").strip()
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processors": f"{os.cpu_count()} x {model[1] if model else platform.machine()}"
        + (f", virtual{f' ({product})' if product else ''}" if virtual else ""),
        "memory": f"{int(memory[1]) / 1024**2:.1f} GiB" if memory else "unknown",
        "kernel": f"{platform.system()} {platform.release()}",
        "python of the generator": f"{platform.python_implementation()} {platform.python_version()}",
        "python of sockbridge": server_python().version,
        "load average before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


DEBIAN_PYTHON = Path("/usr/bin/python3")

ASK = """\
import json, platform, sys, sysconfig
arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
print(json.dumps([platform.python_implementation(), platform.python_version(), "--enable-optimizations" in arguments]))
"""


class Python(NamedTuple):
    """An interpreter. ``packages`` is the folder with the packages of this environment."""

    path: str
    version: str
    packages: str


@functools.cache
def server_python() -> Python:
    """The interpreter for sockbridge and for the floor in Python: this one, or Debian's if only that is built with
    profile-guided optimization (PGO) and has the same minor version. It makes a third of difference, and most users
    have such a build."""
    packages = sysconfig.get_path("purelib")
    release, version, is_optimized = _asked(Path(sys.executable))
    if not is_optimized and DEBIAN_PYTHON.exists():
        debian, debian_version, is_debian_optimized = _asked(DEBIAN_PYTHON)
        if is_debian_optimized and debian == release:
            return Python(str(DEBIAN_PYTHON), debian_version, packages)
    return Python(sys.executable, version, packages)


def _asked(python: Path) -> tuple[str, str, bool]:
    """Minor version, description, and whether it is built with PGO. Debian's and Ubuntu's packages are, by make
    profile-opt (debian/rules of the package), without the option of configure."""
    output = subprocess.run([python, "-I", "-c", ASK], capture_output=True, check=True, timeout=60).stdout
    implementation, version, is_optimized = json.loads(output)
    is_debian = python.resolve().parent == DEBIAN_PYTHON.parent and Path("/etc/debian_version").exists()
    words = f"{implementation} {version}{' of Debian' if is_debian else ''}, "
    is_optimized = is_optimized or is_debian
    return version.rpartition(".")[0], words + ("built with PGO" if is_optimized else "built without PGO"), is_optimized


def _file(name: str) -> str:
    try:
        return Path(name).read_text()
    except OSError:
        return ""
