"""One payload, two ways to write it: for lines and for JSON (docs/protocol-lines.md, "Payloads").

A line stays one line, and nothing reaches a terminal but text; a text comes out at any other end as the text that
went in. JSON of users is checked, but never rebuilt: it is spliced as it came.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

import msgspec

from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub.values import JSON, TEXT, PayloadKind, Payloads

BOM = b"\xef\xbb\xbf"
"""U+FEFF at the beginning, as some editors on Windows write it. It is no part of the text (RFC 8259 section 8.1)."""

JSON_WHITESPACE = b" \t\r\n"
"""What may stand around a JSON value (RFC 8259 section 2)."""

JSON_START = (b"{", b"[", b'"')

# C0 except tab, and DEL. C1 is two bytes in UTF-8: C2 80 to C2 9F.
_C0_DEL = bytes({*range(32), 127} - {9})

CONTROL_CHARACTERS = bytes({*range(32), 127})
"""The control characters of ASCII."""

_C1 = re.compile(rb"\xc2[\x80-\x9f]")

_DEL_C1 = re.compile(rb"\x7f|\xc2[\x80-\x9f]")

_BREAKS = bytes.maketrans(b"\r\n", b"  ")

_check = msgspec.json.Decoder(msgspec.Raw).decode

_encode = msgspec.json.Encoder().encode


def is_utf8(data: bytes) -> bool:
    """Whether bytes are UTF-8 (RFC 3629)."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_json(payload: bytes) -> bool:
    """Whether a payload typed on a line, valid UTF-8, is JSON: it begins like JSON and parses."""
    if not payload.startswith(JSON_START):
        return False
    try:
        _check(payload)
    except (msgspec.DecodeError, RecursionError):
        return False
    return not is_too_deep(payload)


MAX_DEPTH = 100
"""Levels of a JSON payload (RFC 8259 section 9 allows a bound): far more than data has, and fewer than the parsers of
readers bear, which would fail on the whole event: Rust's serde 128, PHP's 512, Python's less than 1,000."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")

_NO_BRACKETS = bytes({*range(256)} - {*b"[]{}"})


def is_too_deep(payload: bytes) -> bool:
    """Whether a payload that is JSON has more than MAX_DEPTH levels."""
    if len(payload) <= 2 * MAX_DEPTH or payload.count(b"[") + payload.count(b"{") <= MAX_DEPTH:
        return False
    # One up and one down, as signed bytes.
    steps = memoryview(_STRING.sub(b"", payload).translate(_STEPS, _NO_BRACKETS)).cast("b")
    return max(accumulate(steps)) > MAX_DEPTH


UNPAIRED_SURROGATE = Error(
    ErrorCode.BAD_JSON,
    "JSON with half of a surrogate pair in a string: send the whole character, or U+FFFD in its place",
)
"""``"\\ud83d"`` is allowed by the grammar of JSON (RFC 8259 section 8.2), but it is no text: it cannot be written in
UTF-8, and many parsers refuse it."""

_HALF = rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}"

_PAIR = rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"

# All before the next half of a pair, then that. Nothing is looked at twice.
_NEXT_HALF = re.compile(rb"((?:[^\\]++|%b|(?!%b)\\.)*+)%b" % (_PAIR, _HALF, _HALF), re.DOTALL)


def replace_unpaired_surrogates(text: bytes) -> bytes:
    """JSON text with U+FFFD for each half of a surrogate pair; the same object if there is none."""
    if b"\\u" not in text:
        return text
    pieces: list[bytes] = []
    place = 0
    while (found := _NEXT_HALF.match(text, place)) is not None:
        pieces += (found[1], b"\\ufffd")
        place = found.end()
    return b"".join((*pieces, text[place:])) if pieces else text


def has_unpaired_surrogate(payload: bytes) -> bool:
    """Whether a payload would be JSON but for halves of surrogate pairs."""
    whole = replace_unpaired_surrogates(payload)
    return whole is not payload and is_json(whole)


def quote(text: bytes) -> bytes:
    """A UTF-8 text as a JSON string literal."""
    return _encode(text.decode())


@lru_cache(maxsize=4096)
def quote_name(name: bytes) -> bytes:
    """``quote`` for names, which come again and again: channels, nicks, event names."""
    return quote(name)


def payload_to_json(payload: bytes, kind: PayloadKind) -> bytes:
    """The payload as JSON text."""
    return payload if kind is JSON else quote(payload)


_NOT_PLAIN_JSON = bytes({*range(32), *range(127, 256)})

_NOT_PLAIN_TEXT = _NOT_PLAIN_JSON + b'"\\'

# As integers: to look for a byte with a bytes object costs ten times as much (CPython first tries it as an integer).
_BRACE, _BRACKET = b"{["


def build_payloads(items: Sequence[bytes], kind: PayloadKind) -> Payloads:
    """Payloads of one kind. They are checked together, because that is faster than one by one."""
    joined = b"".join(items)
    size = len(joined)
    is_plain = len(joined.translate(None, _NOT_PLAIN_JSON if kind is JSON else _NOT_PLAIN_TEXT)) == size
    if is_plain and kind is TEXT and (_BRACE in joined or _BRACKET in joined):
        is_plain = not any([item.startswith(JSON_START) for item in items])
    # The garbage collector soon stops to track a tuple of bytes; it would walk a list as long as a log holds it.
    return Payloads(tuple(items), size, kind, is_plain)


def payload_to_line(payload: bytes, kind: PayloadKind) -> bytes:
    """The payload as text without line breaks or control characters."""
    if kind is JSON:
        return _escape(payload.translate(_BREAKS))
    if (
        payload.startswith(JSON_START)
        or len(payload.translate(None, _C0_DEL)) != len(payload)
        or (not payload.isascii() and _C1.search(payload))
    ):
        return _escape(quote(payload))
    return payload


def _escape(text: bytes) -> bytes:
    """Write DEL and C1, which JSON allows and a terminal obeys, as ``\\u00xx``. They can only stand in strings."""
    return _DEL_C1.sub(lambda match: b"\\u00%02x" % match[0][-1], text)
