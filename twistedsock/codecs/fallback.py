"""The JSON protocol over plain HTTP, for clients that cannot open a WebSocket (docs/reference/streams.md).

The server sends its messages as server-sent events. The client sends its messages in POST requests, one in each line.
"""

from twistedsock.codecs.http_bodies import without_bom
from twistedsock.codecs.json_encoder import JsonEncoder
from twistedsock.codecs.payload import is_utf8, quote
from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.sse import SSEFraming
from twistedsock.errors import Error, ErrorCode
from twistedsock.session.encoder import Endpoints

MAX_BODY_BYTES = 256 * 1024
"""Of one POST request: enough for four messages of the maximum length."""

MESSAGE_TYPES = (b"", b"application/x-ndjson", b"application/json", b"text/plain", b"application/x-www-form-urlencoded")
"""Content types of messages. The last is the default of curl."""

INVALID_TYPE = Error(
    ErrorCode.BAD_TYPE, "unsupported Content-Type: send application/x-ndjson, one JSON message in each line"
)

NOT_UTF8 = Error(ErrorCode.NOT_UTF8, "all messages skipped: not valid UTF-8")


class FallbackOpening(JsonEncoder):
    """Adds to the welcome the secret ``key`` that the POST requests of the client must send. All other messages use the
    encoder that all fallback sessions share."""

    def __init__(self, key: bytes) -> None:
        super().__init__(SSEFraming(), "events")
        self._key = key

    def welcome(self, id: bytes, ends: Endpoints) -> bytes:
        end = b"}\n\n"
        return super().welcome(id, ends).removesuffix(end) + b',"key":' + quote(self._key) + end


def read_messages(body: bytes, content_type: bytes, max_bytes: int) -> list[bytes]:
    """The messages in a body, of at most ``max_bytes`` each. Raises ``ApiError``."""
    if content_type.partition(b";")[0].strip().lower() not in MESSAGE_TYPES:
        raise ApiError(INVALID_TYPE)
    if not is_utf8(body):
        raise ApiError(NOT_UTF8)
    lines = without_bom(body).split(b"\n")
    messages = [line for line in (line.removesuffix(b"\r") for line in lines) if line]
    if any(len(message) > max_bytes for message in messages):
        raise ApiError(Error(ErrorCode.TOO_LONG, f"all messages skipped: one is longer than {max_bytes} bytes"))
    return messages
