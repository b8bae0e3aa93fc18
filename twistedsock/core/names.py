"""What channels, events and nicks may be called (docs/protocol-lines.md, "Names")."""

import re

from twistedsock.core.errors import BAD_CHANNEL, BAD_EVENT_NAME, BAD_NICK, Refusal

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

INVISIBLE = (
    "\u00ad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    "\u202a-\u202e\u2060-\u206f\u2800\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters that cannot be seen, or change how the text around them is shown, as ranges of a regular expression: the
category Cf (soft hyphen, zero-width characters and joiners, bidirectional controls, tags), every other
Default_Ignorable_Code_Point (fillers, variation selectors) of Unicode 17, and the blank Braille pattern. Two names that
differ in these alone look the same (UTS 39 section 3.1)."""

_INVISIBLE = re.compile(f"[{INVISIBLE}]")
# \s is exactly str.isspace() here; * > # + ? are kept for patterns.
_FORBIDDEN = re.compile(rf"[\s\x00-\x1f\x7f-\x9f*>#+?{INVISIBLE}]")


def _is_name(candidate: bytes, most: int) -> bool:
    if not 0 < len(candidate) <= most:
        return False
    try:
        text = candidate.decode()
    except UnicodeDecodeError:
        return False
    return _FORBIDDEN.search(text) is None


def describe_invisible(text: str) -> str:
    """A phrase that names the first invisible character of a text by its number; empty if there is none."""
    found = _INVISIBLE.search(text)
    return f"contains the invisible character U+{ord(found[0]):04X}" if found else ""


def _explain(kind: str, candidate: bytes, general: Refusal) -> Refusal:
    """The error for a name that is not valid. An invisible character is named, because nobody can look for it."""
    fault = describe_invisible(candidate.decode(errors="replace"))
    return Refusal(general.code, f"invalid {kind}: {fault}") if fault else general


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


def check_channel(candidate: bytes) -> Refusal | None:
    """The error if a channel cannot have this name."""
    return None if is_channel(candidate) else _explain("channel name", candidate, BAD_CHANNEL)


def check_event_name(candidate: bytes) -> Refusal | None:
    """The error if an event cannot have this name."""
    return None if is_event_name(candidate) else _explain("event name", candidate, BAD_EVENT_NAME)


def check_nick(candidate: bytes) -> Refusal | None:
    """The error if a client cannot have this nick. Whether it is another client's id is not checked here."""
    return None if is_nick(candidate) else _explain("nick", candidate, BAD_NICK)
