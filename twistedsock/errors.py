"""The catalogue of errors and of reasons for closing a connection, the same for all protocols.

It contains no numbers and commands of a protocol: codecs map a code to a status or close code, and add how a client of
their protocol can authenticate. docs/reference/errors.md lists the catalogue. An exception in the server is logged, and
its error is ``internal``.
"""

from enum import Enum

import msgspec


class CloseReason(Enum):
    """Why the server closes a connection. The codes that a client receives are in ``codecs.websocket``."""

    NORMAL = "normal"
    GOING_AWAY = "going-away"
    POLICY = "policy"
    TRY_AGAIN = "try-again"


class ErrorCode(bytes, Enum):
    """The stable part of an error, for programs."""

    UNKNOWN_COMMAND = b"unknown-command"
    BAD_ARGUMENT = b"bad-argument"
    BAD_CHANNEL = b"bad-channel"
    BAD_NAME = b"bad-name"
    BAD_JSON = b"bad-json"
    BAD_BASE64 = b"bad-base64"
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
    """``message`` is for people. ``needs_token`` is True if a token can help: the codec adds how to send one."""

    code: ErrorCode
    message: str
    needs_token: bool = False


# Invalid input

BAD_CHANNEL = Error(
    ErrorCode.BAD_CHANNEL,
    "invalid channel: expected 1 to 200 bytes of UTF-8 without white space, control characters or * > # + ?",
)

BAD_EVENT_NAME = Error(
    ErrorCode.BAD_NAME,
    "invalid event name: expected 1 to 64 bytes of UTF-8 without white space, control characters or * > # + ?",
)

BAD_NICK = Error(
    ErrorCode.BAD_NAME,
    "invalid nick: expected 1 to 32 bytes of UTF-8 without white space, control characters or * > # + ?",
)

NICK_IS_AN_ID = Error(ErrorCode.BAD_NAME, "invalid nick: it is the id of another client")

NOT_SUBSCRIBED = Error(ErrorCode.NOT_SUBSCRIBED, "not subscribed to this channel")

KEY_REUSED = Error(ErrorCode.BAD_ARGUMENT, "this key has been used for another request")

SINCE_WITHOUT_EPOCH = Error(ErrorCode.BAD_ARGUMENT, "since and epoch must be given together")

# Limits

TOO_MANY_CHANNELS = Error(ErrorCode.LIMIT, "too many channels on this server: try again later")

TOO_MANY_SUBSCRIPTIONS = Error(ErrorCode.LIMIT, "too many subscriptions: unsubscribe from another channel first")

TOO_MANY_SUBSCRIPTIONS_IN_ALL = Error(ErrorCode.LIMIT, "too many subscriptions on this server: try again later")

TOO_MANY_CONNECTIONS = Error(ErrorCode.LIMIT, "too many connections to this server: try again later")

TOO_MANY_OF_IDENTITY = Error(ErrorCode.LIMIT, "too many connections with this identity: try again later")

TOO_MANY_FROM_ADDRESS = Error(ErrorCode.LIMIT, "too many connections from this address: try again later")

TOO_MANY_MEMBER_LISTS = Error(ErrorCode.LIMIT, "too many member lists are waiting to be read: try again later")

MEMORY_LIMIT_REACHED = Error(ErrorCode.LIMIT, "server memory limit reached: try again later")

TOO_FAST = Error(ErrorCode.RATE, "rate limit exceeded: slow down and repeat the command")

# Identity and rights

NO_KEYS = Error(ErrorCode.UNAUTHORIZED, "tokens are not accepted: this server has no access policy")

AUTHENTICATE_TO_READ = Error(ErrorCode.UNAUTHORIZED, "authentication required to read this channel", needs_token=True)

AUTHENTICATE_TO_PUBLISH = Error(
    ErrorCode.UNAUTHORIZED, "authentication required to publish on this channel", needs_token=True
)

NO_RIGHT_TO_READ = Error(ErrorCode.FORBIDDEN, "no right to read this channel")

NO_RIGHT_TO_PUBLISH = Error(ErrorCode.FORBIDDEN, "no right to publish on this channel")

RESERVED_CHANNEL = Error(ErrorCode.FORBIDDEN, "channels under $sys/ are read-only")

FOR_ADMINS = Error(ErrorCode.FORBIDDEN, "only administrators can do this")

FOR_ADMINS_WITH_TOKEN = Error(
    ErrorCode.UNAUTHORIZED, "authentication required: only administrators can do this", needs_token=True
)

# Failures of the server

UNAVAILABLE = Error(ErrorCode.UNAVAILABLE, "backplane unavailable: try again later")

INTERNAL = Error(ErrorCode.INTERNAL, "internal error: the server has logged it")

# Messages of a close

TOO_MANY_TOKENS = b"too many invalid tokens"

TOKEN_EXPIRED = b"token expired"

RIGHTS_NOT_CHECKED = b"internal error while rights were checked: connect and subscribe again"

READS_TOO_SLOWLY = b"client reads too slowly: connect again and read the missed events from the history"


RATE_EXCEEDED_REPEATEDLY = b"rate limit exceeded repeatedly"
