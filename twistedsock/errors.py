"""What a peer can be refused, and with which words.

There is one catalogue: every dialect uses the same codes, so that a person at telnet, a page and a
script read the same thing. A refusal is always the peer's concern; a fault of ours is an exception that
is logged, and the peer hears ``internal``.
"""

from enum import Enum, IntEnum

import msgspec


class CloseReason(IntEnum):
    """Why a connection is closed by us, as WebSocket close codes (RFC 6455 section 7.4.1 and the IANA registry)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    POLICY = 1008
    TRY_AGAIN = 1013


class ErrorCode(bytes, Enum):
    """The codes of ``ERR <code> <words>`` and ``{"type":"error","code":…}``."""

    UNKNOWN_COMMAND = b"unknown-command"
    BAD_ARGUMENT = b"bad-argument"
    BAD_CHANNEL = b"bad-channel"
    BAD_NAME = b"bad-name"
    BAD_JSON = b"bad-json"
    BAD_TYPE = b"bad-type"
    TOO_LONG = b"too-long"
    NOT_UTF8 = b"not-utf8"
    NOT_SUBSCRIBED = b"not-subscribed"
    UNAUTHORIZED = b"unauthorized"
    FORBIDDEN = b"forbidden"
    LIMIT = b"limit"
    RATE = b"rate"
    UNAVAILABLE = b"unavailable"
    INTERNAL = b"internal"


class Error(msgspec.Struct, frozen=True):
    """Why something was not done: a code of the catalogue and a sentence for people."""

    code: ErrorCode
    message: str


BAD_CHANNEL = Error(
    ErrorCode.BAD_CHANNEL,
    "a channel is 1 to 200 bytes of UTF-8 without white space, control characters or * > # + ?",
)

BAD_EVENT_NAME = Error(
    ErrorCode.BAD_NAME,
    "an event name is 1 to 64 bytes of UTF-8 without white space, control characters or * > # + ?",
)

BAD_NICK = Error(
    ErrorCode.BAD_NAME,
    "a nick is 1 to 32 bytes of UTF-8 without white space, control characters or * > # + ?",
)

NICK_IS_AN_ID = Error(ErrorCode.BAD_NAME, "that is the id of another peer")

NOT_SUBSCRIBED = Error(ErrorCode.NOT_SUBSCRIBED, "you are not subscribed to that channel")

SINCE_WITHOUT_EPOCH = Error(ErrorCode.BAD_ARGUMENT, "since and epoch come together or not at all")

TOO_MANY_CHANNELS = Error(ErrorCode.LIMIT, "this server has no room for another channel")

TOO_MANY_SUBSCRIPTIONS = Error(ErrorCode.LIMIT, "you are subscribed to as many channels as one peer may be")

TOO_MANY_SUBSCRIPTIONS_IN_ALL = Error(ErrorCode.LIMIT, "this server has no room for another subscription")

TOO_MANY_CONNECTIONS = Error(ErrorCode.LIMIT, "this server has no room for another connection, try again later")

TOO_MANY_OF_IDENTITY = Error(ErrorCode.LIMIT, "too many connections with your token's identity, try again later")

TOO_MANY_FROM_ADDRESS = Error(ErrorCode.LIMIT, "too many connections from your address, try again later")

TOO_MANY_ASK_WHO = Error(ErrorCode.LIMIT, "too many answers to that are waiting to be read, try again later")

TOO_MUCH_HELD = Error(
    ErrorCode.LIMIT, "this server holds as much unfinished input and unread output as it may, try again later"
)

TOO_FAST = Error(ErrorCode.RATE, "that was faster than you may send; it was not done, slow down")

RESERVED_CHANNEL = Error(
    ErrorCode.FORBIDDEN, "channels that begin with $sys/ are the server's own, and can only be read"
)

FOR_ADMINS = Error(ErrorCode.FORBIDDEN, "that is for administrators")

FOR_ADMINS_WITH_TOKEN = Error(ErrorCode.UNAUTHORIZED, "that is for administrators, and takes their token")

UNAVAILABLE = Error(ErrorCode.UNAVAILABLE, "the backplane did not answer, try again later")

INTERNAL = Error(ErrorCode.INTERNAL, "a fault of this server; it has been logged")

NO_KEYS = Error(ErrorCode.UNAUTHORIZED, "this server has no keys to check a token with, and asks for none")

TOO_MANY_TOKENS = b"too many tokens that are not valid"

TOKEN_EXPIRED = b"your token has run out"

RIGHTS_NOT_CHECKED = b"internal error while your rights were checked: connect and subscribe again"

READS_TOO_SLOWLY = b"you read too slowly; what you have missed may still be in the history"

EPOCH_CHANGED = b"the events of a channel that you read are numbered anew: connect and subscribe again"

FLOODED = b"you went on sending faster than you may"
