"""The optional compiled module, ``twistedsock._speed``: functions in C in place of the same functions in Python.

It is built from ``_speed.c`` when sockbridge is installed, if there are a C compiler and the headers of Python. The
functions in Python define what both do, and are used if the module is missing or switched off.
"""

import os
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

SWITCH = "SOCKBRIDGE_PURE_PYTHON"
"""The environment variable that switches the compiled module off, unless it is empty or 0."""


SOURCE_DIGEST = "a2084462ae961296cb3baef52d2118c5090f4c7d0ff6e97a8a8c7d68a79b1051"
"""The SHA-256 digest of ``_speed.c``. A module that was built from another version of the file is not used: a build can
stay when the code in Python changes, for example in an editable installation."""


def load(switch: str) -> ModuleType | None:
    """The compiled module. None if it is missing or was built from another source, or if ``switch``, the value of the
    variable, switches it off."""
    if switch not in ("", "0"):
        return None
    try:
        module = import_module("twistedsock._speed")
    except ImportError:
        return None
    return module if getattr(module, "_source_digest", "") == SOURCE_DIGEST else None


_speed = load(os.environ.get(SWITCH, ""))

IMPLEMENTATION = "pure-python" if _speed is None else "compiled"
"""Shown with the version."""

TWINS: dict[str, Callable[..., object]] = {}
"""The functions in Python by name, also if the compiled ones are in use."""


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Replace a function by the compiled one of the same name, if that is in use. Arguments must be given by
    position."""
    name = function.__name__
    TWINS[name] = function
    replacement: Callable[P, R] = getattr(_speed, name, function)
    return replacement
