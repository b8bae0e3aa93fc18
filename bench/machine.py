"""Properties of the machine that the figures depend on."""

import os
import platform
import re
import time
from pathlib import Path


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
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load average before": " ".join(f"{value:.2f}" for value in os.getloadavg()),
    }


def _file(name: str) -> str:
    try:
        return Path(name).read_text()
    except OSError:
        return ""
