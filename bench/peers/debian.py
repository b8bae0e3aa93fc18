"""Servers that come as Debian packages."""

import re
import shutil
from pathlib import Path

from bench.peers.process import Server, output_of

FOLDERS = "/usr/sbin:/usr/local/sbin"
"""Directories in which Debian installs servers and which are not on every search path."""


class DebianServer(Server):
    """``package`` is the name of the package and of its program; ``version_option`` makes the program print its
    version."""

    package: str
    version_option = "--version"

    def program(self) -> Path:
        """Raises FileNotFoundError if it is not installed."""
        found = shutil.which(self.package) or shutil.which(self.package, path=FOLDERS)
        if found is None:
            raise FileNotFoundError(self.package)
        return Path(found)

    def missing(self) -> str:
        try:
            self.program()
        except FileNotFoundError:
            return f"the Debian package {self.package} is missing; run bench/install"
        return ""

    def version(self) -> str:
        """The first number with dots in its output."""
        found = re.search(r"\d+(?:\.\d+)+", output_of(self.program(), self.version_option))
        return found[0] if found else "unknown"
