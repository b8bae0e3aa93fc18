"""A whole conversation of the JSON dialect over plain HTTP, for who cannot open a WebSocket: what the server says comes
as server-sent events, what the client says goes by POST, a message in each line."""

from twistedsock.codecs.http_api import without_bom
from twistedsock.codecs.json_encoder import JsonEncoder
from twistedsock.codecs.payload import is_utf8, quote
from twistedsock.codecs.query import ApiError
from twistedsock.codecs.sse import SSEFraming
from twistedsock.errors import CloseReason, Error, ErrorCode
from twistedsock.session.encoder import Endpoints

MAX_BODY_BYTES = 256 * 1024
"""Bytes that one POST may bring: four of the longest messages."""

MESSAGE_TYPES = (b"", b"application/x-ndjson", b"application/json", b"text/plain", b"application/x-www-form-urlencoded")
"""Content types of messages; curl says the last of whatever it is given."""

INVALID_TYPE = Error(ErrorCode.BAD_TYPE, "messages are application/x-ndjson: JSON, one in each line")

NOT_UTF8 = Error(ErrorCode.NOT_UTF8, "messages are UTF-8; these are not, and none of them was taken")


class FallbackOpening(JsonEncoder):
    """Its welcome tells the peer the secret by which its commands are known. All else is said in the dialect that all
    share."""

    def __init__(self, key: bytes) -> None:
        super().__init__(SSEFraming(), "events")
        self._key = key

    def welcome(self, id: bytes, ends: Endpoints) -> bytes:
        end = b"}\n\n"
        return super().welcome(id, ends).removesuffix(end) + b',"key":' + quote(self._key) + end


def close_message(ending: CloseReason, reason: bytes) -> bytes:
    """The last message, in place of a close frame."""
    message = b'{"type":"close","code":%d,"reason":%b}' % (ending, quote(reason))
    return SSEFraming().frame(message)


def read_messages(body: bytes, kind: bytes, most: int) -> list[bytes]:
    """The messages in a body, of at most ``most`` bytes each; ``kind`` is its Content-Type. Raises ``ApiError``."""
    if kind.partition(b";")[0].strip().lower() not in MESSAGE_TYPES:
        raise ApiError(INVALID_TYPE)
    if not is_utf8(body):
        raise ApiError(NOT_UTF8)
    lines = without_bom(body).split(b"\n")
    messages = [line for line in (line.removesuffix(b"\r") for line in lines) if line]
    if any(len(message) > most for message in messages):
        raise ApiError(Error(ErrorCode.TOO_LONG, f"a message is at most {most} bytes; none of these was taken"))
    return messages
