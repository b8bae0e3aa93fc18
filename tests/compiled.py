"""Builds the compiled module for tests, so that they never test an older build."""

import os
import subprocess
import sysconfig
from functools import lru_cache
from hashlib import sha256
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

SOURCE = Path(__file__).resolve().parent.parent / "twistedsock" / "_speed.c"
FLAGS = ["-DPy_LIMITED_API=0x030B0000", "-fPIC", "-shared", "-O2", "-Wall", "-Wextra", "-Werror"]


@lru_cache
def built() -> ModuleType:
    """The module, from the source of this checkout, with the CFLAGS of the environment too."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "_speed" + EXTENSION_SUFFIXES[-1])
        digest = sha256(SOURCE.read_bytes()).hexdigest()
        flags = [*FLAGS, f'-DSOURCE_DIGEST="{digest}"', "-Wno-unused-parameter", *os.environ.get("CFLAGS", "").split()]
        command = ["cc", *flags, f"-I{sysconfig.get_path('include')}", "-o", path, SOURCE]
        subprocess.run(command, check=True)
        spec = spec_from_file_location("twistedsock._speed", path)
        assert spec is not None and spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    return module
