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

SETTINGS = settings(
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    max_examples=settings().max_examples,
    suppress_health_check=list(HealthCheck),
)


class Property:
    """``sentence`` is the docstring; ``under`` makes the same test with other settings."""

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
    """Make a property of a function, with ``examples`` inputs in ``make test``. ``found`` has examples that a fuzz run
    has found before, as ``example(…)`` of Hypothesis; every run tries them."""

    def decorate(check: Callable[..., None]) -> Any:
        described = Property(check, strategies, list(found))
        test = described.under(settings(SETTINGS, max_examples=examples))
        test.property = described
        return test

    return decorate


def kept(thing: Any) -> int:
    """Bytes of memory that an object holds in buffers, with the overhead of the interpreter. Only objects of codecs are
    traversed, because all other objects refer to each other."""
    if isinstance(thing, bytes | bytearray):
        return sys.getsizeof(thing) if thing else 0
    if isinstance(thing, list | tuple | set | deque):
        return sum(map(kept, thing)) + (sys.getsizeof(thing) if thing else 0)
    if isinstance(thing, dict):
        return sum(map(kept, thing.values()))
    if isinstance(thing, Enum) or not type(thing).__module__.startswith("twistedsock.codecs."):
        return 0
    names = [*getattr(type(thing), "__slots__", ()), *getattr(thing, "__dict__", ())]
    return sum(kept(getattr(thing, name, None)) for name in names)


def room(size: int) -> int:
    """What ``kept`` may be where ``size`` bytes may be kept: buffers grow by an eighth in advance, and each of a few
    has its head."""
    return size + size // 8 + 300


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The same bytes in pieces; a place beyond the end is counted round, so that it cuts as well."""
    ends = sorted({place % (len(data) + 1) for place in places} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False) if end > start]


def one_by_one(commands: Sequence[Any]) -> list[Any]:
    """Publishes that were gathered into one, as the several that they are."""
    told: list[Any] = []
    for command in commands:
        if isinstance(command, Publish):
            told += [
                ("publish", command.channel, command.name, payload, command.payloads.kind is JSON, tag)
                for payload, tag in zip(command.payloads.items, command.tags, strict=True)
            ]
        else:
            told.append(command)
    return told


def no_constant(word: str) -> None:
    """For ``json.loads``: NaN and Infinity are not JSON."""
    raise ValueError(word)


def said(dialect: Encoder, data: bytes) -> list[str]:
    """The messages that an encoder has written, checked: printable UTF-8 lines, complete text frames, valid JSON."""
    if dialect is LINE_ENCODER:
        assert not data or data.endswith(b"\n")
        messages = data.decode().split("\n")[:-1]
    else:
        messages = read_frames(data)
    for message in messages:
        if dialect is JSON_MESSAGE_ENCODER:
            told = json.loads(message, parse_constant=no_constant, parse_int=str)
            assert isinstance(told, dict) and isinstance(told["type"], str)
        else:
            assert message and not any(ord(sign) < 32 and sign != "\t" or 127 <= ord(sign) < 160 for sign in message)
    return messages
