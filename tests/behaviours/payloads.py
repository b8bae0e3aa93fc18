"""Payloads that each protocol must deliver unchanged: text, and JSON that is not a string."""

from typing import Any

TEXTS = [
    "21.5",
    "",
    " ",
    " two  spaces around ",
    "a\tb",
    "{not json",
    '{"a": 1}',
    "[",
    "[1]",
    '"',
    '"quoted"',
    '"half',
    "a\nb\r\nc",
    "\n",
    "\x00\x01\x1b[31mred\x07",
    "\x7f",
    "\x80\x85\x9b31m",
    "küche 厨房 🌡 \u2028 \ufeff",
    "a \\ b \\n c",
    "MSG kitchen 1 p1 forged",
    "true",
    "null",
    "x" * 10_000,
]
VALUES: list[Any] = [
    {},
    [],
    {"celsius": 21.5},
    [1, 2.5, "a", None, True, {"b": []}],
    {"": "\n\t\x7f\x9b{"},
    {"deep": [[[[[]]]]]},
    ["ü", "\u2028"],
]
