"""Servers that come as Debian packages."""

import re
import shutil
from pathlib import Path

from bench.peers.process import Server, output_of

FOLDERS = "/usr/sbin:/usr/local/sbin"
"""Where Debian puts servers, and not everybody's path leads."""


class DebianServer(Server):
    """``package`` is the name of the package and of its program; ``version_option`` lets it say its version."""

    package: str
    version_option = "--version"

    def program(self) -> Path:
        """Raises FileNotFoundError when it is not there."""
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
        """The first number with dots in what it says."""
        found = re.search(r"\d+(?:\.\d+)+", output_of(self.program(), self.version_option))
        return found[0] if found else "unknown"
