"""The static files of the page and the console. They are read and compressed once, at the start."""

import gzip
import mimetypes
from collections.abc import Iterator, Mapping
from functools import cache
from hashlib import sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Protocol

from twistedsock.server.http.headers import PAGE_HEADERS, accepts_gzip, matches_etag

# The types that matter must not depend on the machine's own table.
_CONTENT_TYPES = {
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

_TEXT_TYPES = ("text/", "image/svg", "application/json")

PUBLIC_FILES = frozenset({"/sockbridge.js", "/sockbridge.min.js", "/sockbridge.d.ts", "/stream.js"})
"""The JavaScript client. Pages of every origin can import it: an import across origins requires a CORS header."""


def without_comments(source: str) -> str:
    """A module without the comments that fill whole lines: a tenth of the compressed console. Empty lines stay in their
    place, so that the line numbers in error messages are those of the source. Lines of template strings, which can look
    like comments, stay as they are."""
    lines, kept, number = source.split("\n"), list[str](), 0
    is_in_template = False
    while number < len(lines):
        line = lines[number]
        start = line.lstrip(" ")
        if not is_in_template and start.startswith("//"):
            kept.append("")
        elif not is_in_template and start.startswith("/*"):
            end = number
            while "*/" not in lines[end]:
                end += 1
            if not lines[end].rstrip().endswith("*/"):  # code follows
                return source
            kept += [""] * (end - number + 1)
            number = end
        else:
            is_in_template ^= line.count("`") % 2 == 1
            kept.append(line)
        number += 1
    return source if is_in_template else "\n".join(kept)


class ServedFile(Protocol):
    """The interface of a file for requests."""

    content_type: bytes
    is_public: bool

    def response(self, if_none_match: bytes, accept_encoding: bytes) -> tuple[int, bytes, dict[bytes, bytes]]:
        """Status, body and headers of the response to a GET or HEAD with these two headers."""


def content_type_of(name: str) -> bytes:
    kind = _CONTENT_TYPES.get(name.rpartition(".")[2]) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    # JSON is always UTF-8 and has no such parameter (RFC 8259 section 11).
    has_charset = kind.startswith(_TEXT_TYPES) and kind != "application/json"
    return (kind + "; charset=utf-8" * has_charset).encode()


class StaticFile:
    """One file, uncompressed and compressed. ``name`` is its path in the folder, ``headers`` are those of security."""

    def __init__(self, name: str, body: bytes, headers: Mapping[bytes, bytes] = PAGE_HEADERS) -> None:
        self.content_type = content_type_of(name)
        is_text = self.content_type.decode().startswith(_TEXT_TYPES)
        self._body = body
        # Without the time, so that the same file always has the same bytes.
        self._compressed = gzip.compress(body, mtime=0) if is_text else body
        if len(self._compressed) >= len(body):
            self._compressed = b""
        self._tag = sha256(body).hexdigest()[:16].encode()
        self._headers = {b"Cache-Control": b"no-cache", **headers}
        self.is_public = name in PUBLIC_FILES
        varies = ([b"Accept-Encoding"] if self._compressed else []) + ([] if self.is_public else [b"Origin"])
        if varies:
            self._headers[b"Vary"] = b", ".join(varies)
        if self.is_public:
            self._headers[b"Access-Control-Allow-Origin"] = b"*"
            self._headers[b"Access-Control-Expose-Headers"] = b"ETag"

    def response(self, if_none_match: bytes, accept_encoding: bytes) -> tuple[int, bytes, dict[bytes, bytes]]:
        """Status, body and headers of the response to a GET or HEAD with these two headers."""
        compressed = bool(self._compressed) and accepts_gzip(accept_encoding)
        tag = b'"%s%s"' % (self._tag, b"-gzip" if compressed else b"")
        headers = {b"ETag": tag, **self._headers}
        if matches_etag(if_none_match, tag):
            return 304, b"", headers
        if compressed:
            headers[b"Content-Encoding"] = b"gzip"
        return 200, self._compressed if compressed else self._body, headers


@cache
def static_files() -> dict[bytes, ServedFile]:
    """All files by URL path. A folder's ``index.html`` is served at the path of the folder."""
    found: dict[bytes, ServedFile] = {}
    for name, file in _walk(files("twistedsock").joinpath("static"), ""):
        folder, _, index = name.rpartition("/")
        path = folder or "/" if index == "index.html" else name
        body = file.read_bytes()
        if name.endswith(".js") and name not in PUBLIC_FILES and not name.startswith("/vendor/"):
            body = without_comments(body.decode()).encode()
        found[path.encode()] = StaticFile(name, body)
    return found


def _walk(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{path}/{entry.name}")
        else:
            yield f"{path}/{entry.name}", entry
