"""The files of our pages: read once, packed once, and told apart by their tags."""

import gzip
import mimetypes
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable

from twistedsock.server.http.request import PAGE, HTTPRequest

# The types that matter must not depend on the machine's own table.
_TYPES = {
    "js": "text/javascript",
    "mjs": "text/javascript",
    "css": "text/css",
    "html": "text/html",
    "svg": "image/svg+xml",
    "json": "application/json",
    "txt": "text/plain",
    "ts": "text/plain",
    "woff2": "font/woff2",
    "png": "image/png",
}

_TEXTS = ("text/", "image/svg", "application/json")

FOR_EVERYBODY = frozenset({"/sockbridge.js", "/sockbridge.d.ts", "/stream.js"})
"""The client is for anybody's page to import, and an import across origins asks for a header."""


class StaticFile:
    """One file, as it is and packed. ``name`` is its path in the folder."""

    def __init__(self, name: str, body: bytes) -> None:
        kind = _TYPES.get(name.rpartition(".")[2]) or mimetypes.guess_type(name)[0] or "application/octet-stream"
        is_text = kind.startswith(_TEXTS)
        # JSON is UTF-8 always, and has no such parameter (RFC 8259 section 11).
        has_charset = is_text and kind != "application/json"
        self._kind = (kind + "; charset=utf-8" * has_charset).encode()
        self._body = body
        # Without the time, so that the same file is the same bytes.
        self._packed = gzip.compress(body, mtime=0) if is_text else body
        if len(self._packed) >= len(body):
            self._packed = b""
        self._tag = sha256(body).hexdigest()[:16].encode()
        self._headers = {b"Cache-Control": b"no-cache", **PAGE}
        self.is_for_everybody = name in FOR_EVERYBODY
        varies = ([b"Accept-Encoding"] if self._packed else []) + ([] if self.is_for_everybody else [b"Origin"])
        if varies:
            self._headers[b"Vary"] = b", ".join(varies)
        if self.is_for_everybody:
            self._headers[b"Access-Control-Allow-Origin"] = b"*"
            self._headers[b"Access-Control-Expose-Headers"] = b"ETag"

    def answer(self, request: HTTPRequest) -> None:
        """To GET and HEAD."""
        packed = bool(self._packed) and accepts_gzip(request.header(b"accept-encoding"))
        tag = b'"%s%s"' % (self._tag, b"-gzip" if packed else b"")
        headers = {b"ETag": tag, **self._headers}
        if names(request.header(b"if-none-match"), tag):
            request.answer(304, b"", b"", headers)
            return
        if packed:
            headers[b"Content-Encoding"] = b"gzip"
        request.answer(200, self._kind, self._packed if packed else self._body, headers)


def accepts_gzip(header: bytes) -> bool:
    """Whether Accept-Encoding says so (RFC 9110 section 12.5.3)."""
    for one in header.lower().split(b","):
        coding, _, weight = one.partition(b";")
        if coding.strip() in (b"gzip", b"*"):
            return weight.replace(b" ", b"").rstrip(b"0.") not in (b"q=", b"q")
    return False


def names(header: bytes, tag: bytes) -> bool:
    """Whether If-None-Match has a tag (RFC 9110 section 13.1.2)."""
    return any(one.strip().removeprefix(b"W/") in (tag, b"*") for one in header.split(b",")) if header else False


@cache
def static_files() -> dict[bytes, StaticFile]:
    """All files by path. A folder's ``index.html`` stands where the folder does."""
    found = {}
    for name, file in _walk(files("twistedsock").joinpath("static"), ""):
        folder, _, index = name.rpartition("/")
        path = folder or "/" if index == "index.html" else name
        found[path.encode()] = StaticFile(name, file.read_bytes())
    return found


def _walk(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{path}/{entry.name}")
        else:
            yield f"{path}/{entry.name}", entry
