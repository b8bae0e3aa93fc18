"""What channels, events and nicks may be called (docs/protocol-lines.md, "Names")."""

import re

CHANNEL_BYTES = 200
"""Long enough for a path of identifiers, short enough that 100,000 names stay in a few megabytes."""
EVENT_NAME_BYTES = 64
"""An event name is a word, and is written out with each event."""
NICK_BYTES = 32
"""A nick is read by people, one line each."""

RESERVED = b"$sys/"
"""With this begin the channels on which the server tells of itself: clients may read them, but not publish there."""

DEFAULT_EVENT_NAME = b"message"
"""The name of an event whose publisher gave none."""

# \s is exactly str.isspace() here; * > # + ? are kept for patterns.
_FORBIDDEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f*>#+?]")


def _is_name(candidate: bytes, most: int) -> bool:
    if not 0 < len(candidate) <= most:
        return False
    try:
        text = candidate.decode()
    except UnicodeDecodeError:
        return False
    return _FORBIDDEN.search(text) is None


def is_channel(candidate: bytes) -> bool:
    """Whether a channel may be called so."""
    return _is_name(candidate, CHANNEL_BYTES)


def is_reserved(channel: bytes) -> bool:
    """Whether a channel is the server's own."""
    return channel.startswith(RESERVED)


def is_event_name(candidate: bytes) -> bool:
    """Whether an event may be called so."""
    return candidate == DEFAULT_EVENT_NAME or _is_name(candidate, EVENT_NAME_BYTES)


def is_nick(candidate: bytes) -> bool:
    """Whether a peer may call itself so; that it is nobody's id is asked elsewhere."""
    return _is_name(candidate, NICK_BYTES)
