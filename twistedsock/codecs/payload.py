"""Payloads: text, JSON or bytes, checked once when they are published, and written for lines or as JSON.

In the line protocol (docs/reference/line-protocol.md, "Payloads") a payload stays on one line and cannot control the
terminal that shows it. JSON from clients is checked and copied, never parsed and written again. Bytes are base64 (RFC
4648 section 4) wherever only text is possible.
"""

import re
from binascii import a2b_base64, b2a_base64
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import cast

import msgspec

from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.values import BYTES, JSON, TEXT, PayloadKind, Payloads
from twistedsock.speedups import compiled

BOM = b"\xef\xbb\xbf"
"""Byte order mark, which some editors on Windows write at the start. It is not part of the text (RFC 8259 section
8.1)."""

JSON_WHITESPACE = b" \t\r\n"
"""Allowed around a JSON value (RFC 8259 section 2)."""

JSON_START = (b"{", b"[", b'"')

# C0 except tab, and DEL. C1 is two bytes in UTF-8: C2 80 to C2 9F.
_C0_DEL = bytes({*range(32), 127} - {9})

_C1 = re.compile(rb"\xc2[\x80-\x9f]")

_DEL_C1 = re.compile(rb"\x7f|\xc2[\x80-\x9f]")

_BREAKS = bytes.maketrans(b"\r\n", b"  ")

_check = msgspec.json.Decoder(msgspec.Raw).decode

_encode = msgspec.json.Encoder().encode


NOT_UTF8_LINE = Error(ErrorCode.NOT_UTF8, "line skipped: not valid UTF-8")


def is_utf8(data: bytes) -> bool:
    """True for valid UTF-8 (RFC 3629)."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_json(payload: bytes) -> bool:
    """True if a payload of a line, which is valid UTF-8, is a JSON object, array or string."""
    if not payload.startswith(JSON_START):
        return False
    try:
        _check(payload)
    except (msgspec.DecodeError, RecursionError):
        return False
    return not is_too_deep(payload)


MAX_DEPTH = 100
"""Maximum nesting of a JSON payload (RFC 8259 section 9 allows a limit). Real data has far fewer levels. The parsers of
subscribers would fail on the whole event at 128 (Rust's serde), 512 (PHP) or less than 1,000 (Python)."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")

_NO_BRACKETS = bytes({*range(256)} - {*b"[]{}"})


def is_too_deep(payload: bytes) -> bool:
    """True if a JSON value has more than ``MAX_DEPTH`` levels."""
    if len(payload) <= 2 * MAX_DEPTH or payload.count(b"[") + payload.count(b"{") <= MAX_DEPTH:
        return False
    # Each bracket becomes 1 or -1, as a signed byte.
    steps = memoryview(_STRING.sub(b"", payload).translate(_STEPS, _NO_BRACKETS)).cast("b")
    return max(accumulate(steps)) > MAX_DEPTH


UNPAIRED_SURROGATE = Error(
    ErrorCode.BAD_JSON,
    "unpaired surrogate in a JSON string: send the whole character, or U+FFFD instead",
)
"""The grammar of JSON allows ``"\\ud83d"`` (RFC 8259 section 8.2), but it cannot be written in UTF-8, and many parsers
reject it."""

_HALF = rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"

_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"

# Everything before the next unpaired surrogate, then that. It never backtracks.
_NEXT_HALF = re.compile(rb"((?:[^\\]++|%b|(?!%b)\\.)*+)%b" % (_PAIR, _HALF, _HALF), re.DOTALL)


def replace_unpaired_surrogates(text: bytes) -> bytes:
    """JSON text with U+FFFD for each unpaired surrogate. Returns the same object if there is none."""
    if b"\\u" not in text:
        return text
    pieces: list[bytes] = []
    position = 0
    while (found := _NEXT_HALF.match(text, position)) is not None:
        pieces += (found[1], b"\\ufffd")
        position = found.end()
    return b"".join((*pieces, text[position:])) if pieces else text


def has_unpaired_surrogate(payload: bytes) -> bool:
    """True if a payload would be JSON without its unpaired surrogates."""
    replaced = replace_unpaired_surrogates(payload)
    return replaced is not payload and is_json(replaced)


def quote(text: bytes) -> bytes:
    """A UTF-8 text as a JSON string literal."""
    return _encode(text.decode())


@lru_cache(maxsize=4096)
def quote_name(name: bytes) -> bytes:
    """``quote`` with a cache, for texts that many messages contain: names, epochs and the addresses of the server."""
    return quote(name)


BAD_BASE64 = Error(
    ErrorCode.BAD_BASE64,
    "invalid base64: send the standard alphabet with padding and without white space (RFC 4648 section 4)",
)


def encode_base64(payload: bytes) -> bytes:
    """Bytes as base64, without line breaks."""
    return b2a_base64(payload, newline=False)


def decode_base64(encoded: bytes) -> bytes | None:
    """The bytes that ``encode_base64`` writes as ``encoded``, None if there are none. So all bytes have exactly one
    form: unused bits of the last character must be zero (RFC 4648 section 3.5)."""
    try:
        decoded = a2b_base64(encoded)
    except ValueError:
        return None
    return decoded if encode_base64(decoded) == encoded else None


def payload_field(kind: PayloadKind) -> bytes:
    """The name of the field that holds ``payload_to_json`` in JSON objects."""
    return b"base64" if kind is BYTES else b"data"


def payload_to_json(payload: bytes, kind: PayloadKind) -> bytes:
    """The payload as JSON text. Bytes are a string in base64."""
    if kind is TEXT:
        return quote(payload)
    return payload if kind is JSON else b'"%b"' % encode_base64(payload)


_NOT_PLAIN_JSON = bytes({*range(32), *range(127, 256)})

NOT_PLAIN_TEXT = _NOT_PLAIN_JSON + b'"\\'
"""Bytes that JSON escapes in a text, and all that is not ASCII."""

# As integers: to look for a byte with a bytes object costs ten times as much (CPython first tries it as an integer).
_BRACE, _BRACKET = b"{["


def build_payloads(items: Sequence[bytes], kind: PayloadKind) -> Payloads:
    """Payloads of one kind. They are checked together, because that is faster than one by one."""
    if kind is BYTES:
        return Payloads(tuple(items), sum(map(len, items)), kind)
    joined = items[0] if len(items) == 1 else b"".join(items)
    size = len(joined)
    is_plain = len(joined.translate(None, _NOT_PLAIN_JSON if kind is JSON else NOT_PLAIN_TEXT)) == size
    if is_plain and kind is TEXT and (_BRACE in joined or _BRACKET in joined):
        is_plain = not any([item.startswith(JSON_START) for item in items])
    # The garbage collector stops tracking a tuple of bytes; it would traverse a list as long as a history holds it.
    return Payloads(tuple(items), size, kind, is_plain)


def payload_to_line(payload: bytes, kind: PayloadKind) -> bytes:
    """The payload as text without line breaks or control characters. Bytes are base64."""
    if kind is BYTES:
        return encode_base64(payload)
    if kind is JSON:
        return json_to_line(payload)
    if (
        payload.startswith(JSON_START)
        or len(payload.translate(None, _C0_DEL)) != len(payload)
        or (not payload.isascii() and _C1.search(payload))
    ):
        return _escape(quote(payload))
    return payload


def json_to_line(text: bytes) -> bytes:
    """JSON text without line breaks, which can only be between tokens, or characters that control a terminal."""
    return _escape(text.translate(_BREAKS))


def _escape(text: bytes) -> bytes:
    """Write DEL and C1 as ``\\u00xx``: JSON allows them, and terminals act on them. They occur in strings only."""
    return _DEL_C1.sub(lambda match: b"\\u00%02x" % match[0][-1], text)


# Messages in a row that differ only in one text. A busy publisher sends many of them, and programs write all their
# messages in the same form, so they are read without parsing each.

MESSAGES_PER_STEP = 32
"""Messages that are checked together. If one is not plain, the check was useless, so a check of all messages would let
a client cause work that grows with the square of their number."""


def alike_texts(
    messages: Sequence[object], position: int, start: int, stop: int, max_bytes: int | None = None
) -> list[bytes]:
    """The texts of the messages from ``position`` on that differ only in their text from the one before, which is valid
    JSON. ``start`` and ``stop`` are the bounds of its text, with a quote on both sides. Ends before a text of more than
    ``max_bytes``."""
    first = messages[position - 1]
    assert isinstance(first, bytes)
    following = messages[position] if position < len(messages) else None
    prefix, suffix = first[:start], first[stop:]
    if not isinstance(following, bytes) or not following.startswith(prefix) or b"\\" in first or b"\n" in first:
        return []
    texts: list[bytes] = []
    for index in range(position, len(messages), MESSAGES_PER_STEP):
        some = texts_between(messages[index : index + MESSAGES_PER_STEP], prefix, suffix)
        if max_bytes is not None and some and len(max(some, key=len)) > max_bytes:
            break
        texts += some
        if len(some) < MESSAGES_PER_STEP:
            break
    return texts


@compiled
def texts_between(messages: Sequence[object], prefix: bytes, suffix: bytes) -> list[bytes]:
    """The texts between prefix and suffix, which ends and begins with a quote, and have no line feed. Returns none
    unless all messages have both and all texts are plain: a text with a quote could end before the suffix."""
    if set(map(type, messages)) != {bytes}:
        return []
    joined = b"\n".join(cast(Sequence[bytes], messages))
    if len(joined) < len(prefix) + len(suffix) or not (joined.startswith(prefix) and joined.endswith(suffix)):
        return []
    texts = joined[len(prefix) : -len(suffix)].split(suffix + b"\n" + prefix)
    # The joint between two texts begins and ends with a quote. There are as many joints as there should be, and no
    # other quotes.
    joined = b"".join(texts)
    if len(texts) != len(messages) or len(joined.translate(None, NOT_PLAIN_TEXT)) != len(joined):
        return []
    return texts
