"""What setup.cfg cannot say: the compiled module, which is left out where it cannot be built."""

import sysconfig
from hashlib import sha256
from pathlib import Path

from setuptools import Extension, setup

SOURCE = "twistedsock/_speed.c"

# Limited API: one wheel for Python 3.11 and all later versions. Free-threaded Pythons up to 3.14 do not have it.
speed = Extension(
    "twistedsock._speed",
    [SOURCE],
    define_macros=[
        ("Py_LIMITED_API", "0x030B0000"),
        ("SOURCE_DIGEST", f'"{sha256(Path(SOURCE).read_bytes()).hexdigest()}"'),
    ],
    py_limited_api=True,
    optional=True,
)

if sysconfig.get_config_var("Py_GIL_DISABLED"):
    setup()
else:
    setup(ext_modules=[speed], options={"bdist_wheel": {"py_limited_api": "cp311"}})
