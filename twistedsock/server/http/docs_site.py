"""The documentation site at ``/docs/``: the files that ``make docs`` has built in the checkout of this package.

They are listed once, at the start, so that no path of a request reaches the file system. Their content is read when it
is requested, because a server does not need 5 MB of documentation in memory.
"""

import os
import re
from base64 import b64encode
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

from twistedsock.server.http.headers import PAGE_HEADERS
from twistedsock.server.http.static import ServedFile, StaticFile, content_type_of

CACHED_FILES = 16
"""Files that are kept compressed: a page with its styles and scripts."""

_SCRIPT = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)

_STYLE = re.compile(rb"<style[^>]*>(.*?)</style>", re.DOTALL)

_STYLE_ATTRIBUTE = re.compile(rb'\sstyle="([^"]*)"')


class DocsFile:
    """A file of the site. It is read again if it has changed on the disk."""

    is_public = False

    def __init__(self, name: str, path: Path) -> None:
        self.content_type = content_type_of(name)
        self._name = name
        self._path = path

    def response(self, if_none_match: bytes, accept_encoding: bytes) -> tuple[int, bytes, dict[bytes, bytes]]:
        """404 if the file has been removed since the start."""
        try:
            found = os.stat(self._path)
            file = _read(self._name, self._path, found.st_mtime_ns, found.st_size)
        except OSError:
            return 404, b"", dict(PAGE_HEADERS)
        return file.response(if_none_match, accept_encoding)


class Redirect:
    """Leads to a relative address, which is right behind a proxy too."""

    is_public = False
    content_type = b"text/plain; charset=utf-8"

    def __init__(self, location: bytes) -> None:
        self._location = location

    def response(self, if_none_match: bytes, accept_encoding: bytes) -> tuple[int, bytes, dict[bytes, bytes]]:
        return 308, b"", {**PAGE_HEADERS, b"Location": self._location}


@lru_cache(maxsize=CACHED_FILES)
def _read(name: str, path: Path, mtime_ns: int, size: int) -> StaticFile:
    body = path.read_bytes()
    policy = content_security_policy(body if name.endswith(".html") else b"")
    return StaticFile(name, body, {**PAGE_HEADERS, b"Content-Security-Policy": policy})


def content_security_policy(page: bytes) -> bytes:
    """The policy of one page: its own files, and the scripts and styles that are written in it, each by its hash. The
    search needs a form, and reads other pages."""
    scripts = _hashes(_SCRIPT.findall(page))
    styles = _hashes([*_STYLE.findall(page), *_STYLE_ATTRIBUTE.findall(page)])
    return b"; ".join(
        (
            b"default-src 'none'",
            b"script-src 'self'" + scripts,
            b"style-src 'self'" + (b" 'unsafe-hashes'" + styles if styles else b""),
            b"img-src 'self' data:",
            b"font-src 'self'",
            b"connect-src 'self'",
            b"form-action 'self'",
            b"base-uri 'none'",
            b"frame-ancestors 'none'",
        )
    )


def _hashes(pieces: Iterable[bytes]) -> bytes:
    return b"".join([b" 'sha256-%b'" % b64encode(sha256(piece).digest()) for piece in dict.fromkeys(pieces)])


def built_docs() -> Path | None:
    """The folder of the site, if this package runs from a checkout in which it was built."""
    checkout = Path(str(files("twistedsock"))).resolve().parent
    folder = checkout / "build" / "docs"
    return folder if (checkout / "setup.cfg").is_file() and (folder / "index.html").is_file() else None


def docs_files(folder: Path | None) -> dict[bytes, ServedFile]:
    """All files of the site by URL path. Hidden files and links to other places are left out."""
    if folder is None:  # /docs says so
        return {b"/docs/": Redirect(b"../docs")}
    found: dict[bytes, ServedFile] = {b"/docs": Redirect(b"docs/")}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if any(part.startswith(".") for part in relative.parts) or path.is_symlink() or not path.is_file():
            continue
        if path.resolve().is_relative_to(folder.resolve()):
            name = f"/docs/{relative.as_posix()}"
            found[name.encode()] = DocsFile(name, path)
    found[b"/docs/"] = found[b"/docs/index.html"]
    return found
