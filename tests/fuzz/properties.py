"""Properties: tests whose docstring is one sentence that must be true for any input.

``make test`` runs the same few examples of each property every time. ``make fuzz`` runs new ones for a given time. Both
use the same strategies.
"""

import json
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from hypothesis import HealthCheck, given, settings

from twistedsock.codecs.json_encoder import JSON_MESSAGE_ENCODER
from twistedsock.codecs.line_encoder import LINE_ENCODER
from twistedsock.pubsub.values import JSON
from twistedsock.session.commands import Publish
from twistedsock.session.encoder import Encoder
from twistedsock.testing import read_frames

USUAL_EXAMPLES = 100
"""Inputs of a test under the usual profile (tests/conftest.py)."""
SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    max_examples=settings().max_examples,
    suppress_health_check=list(HealthCheck),
)


class Property:
    """``sentence`` is the docstring; ``under`` returns the same test with other settings."""

    def __init__(self, check: Callable[..., None], strategies: dict[str, Any], examples: list[Any]) -> None:
        self.sentence = " ".join((check.__doc__ or "").split())
        self._check = check
        self._strategies = strategies
        self._examples = examples

    def under(self, how: settings) -> Any:
        test: Any = given(**self._strategies)(self._check)
        for found in self._examples:
            test = found(test)
        return how(test)


def holds(examples: int = 100, found: Iterable[Any] = (), **strategies: Any) -> Callable[[Callable[..., None]], Any]:
    """Turn a function into a property with ``examples`` inputs in ``make test``, and as much less in ``make check`` as
    its profile of Hypothesis has less than the usual one. ``found`` has the failing inputs of earlier fuzz runs as
    ``example(…)`` of Hypothesis; every run tries them."""
    share = min(settings.default.max_examples / USUAL_EXAMPLES, 1)

    def decorate(check: Callable[..., None]) -> Any:
        described = Property(check, strategies, list(found))
        test = described.under(settings(SETTINGS, max_examples=max(1, int(examples * share))))
        test.property = described
        return test

    return decorate


def buffered_bytes(value: Any) -> int:
    """Bytes of memory that an object holds in buffers, with the overhead of the interpreter. Only objects of codecs are
    traversed, because all other objects refer to each other."""
    if isinstance(value, bytes | bytearray):
        return sys.getsizeof(value) if value else 0
    if isinstance(value, list | tuple | set | deque):
        return sum(map(buffered_bytes, value)) + (sys.getsizeof(value) if value else 0)
    if isinstance(value, dict):
        return sum(map(buffered_bytes, value.values()))
    if isinstance(value, Enum) or not type(value).__module__.startswith("twistedsock.codecs."):
        return 0
    names = [*getattr(type(value), "__slots__", ()), *getattr(value, "__dict__", ())]
    return sum(buffered_bytes(getattr(value, name, None)) for name in names)


def buffer_limit(size: int) -> int:
    """The maximum of ``buffered_bytes`` for a limit of ``size`` bytes: buffers grow by an eighth in advance, and some
    objects have a header each."""
    return size + size // 8 + 300


def cut(data: bytes, positions: Iterable[int]) -> list[bytes]:
    """The same bytes in pieces; positions beyond the end are taken modulo the length, so that they cut as well."""
    ends = sorted({position % (len(data) + 1) for position in positions} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


def split_publications(commands: Sequence[Any]) -> list[Any]:
    """Split each joined publication into its events. The other commands stay the same."""
    separate: list[Any] = []
    for command in commands:
        if isinstance(command, Publish):
            separate += [
                ("publish", command.channel, command.name, payload, command.payloads.kind is JSON, tag)
                for payload, tag in zip(command.payloads.items, command.tags, strict=True)
            ]
        else:
            separate.append(command)
    return separate


def reject_constant(word: str) -> None:
    """For ``json.loads``: NaN and Infinity are not JSON."""
    raise ValueError(word)


def is_printable(line: str) -> bool:
    """Whether a line contains no character that controls a terminal: C0 except tab, DEL and C1."""
    return not any(sign < " " and sign != "\t" or "\x7f" <= sign <= "\x9f" for sign in line)


def parse_output(encoder: Encoder, data: bytes) -> list[str]:
    """The messages in the output of an encoder, checked: printable UTF-8 lines, complete text frames, valid JSON."""
    if encoder is LINE_ENCODER:
        assert not data or data.endswith(b"\n")
        messages = data.decode().split("\n")[:-1]
    else:
        messages = read_frames(data)
    for message in messages:
        if encoder is JSON_MESSAGE_ENCODER:
            fields = json.loads(message, parse_constant=reject_constant, parse_int=str)
            assert isinstance(fields, dict) and isinstance(fields["type"], str)
        else:
            assert message and is_printable(message)
    return messages
