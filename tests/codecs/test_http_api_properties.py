"""Any body of a publish request is read or rejected."""

import json

from hypothesis import strategies as st

from tests.fuzz.grammars import SOUND
from tests.fuzz.properties import holds
from twistedsock.codecs.http_api import join_neighbours, read_batch, read_body
from twistedsock.codecs.payload import payload_to_json
from twistedsock.codecs.problem_details import ApiError
from twistedsock.errors import Error
from twistedsock.pubsub.values import TEXT

TYPES = st.sampled_from(
    [b"", b"application/json", b"text/plain", b"application/x-www-form-urlencoded", b'text/x; charset="utf-8"']
)


@holds(examples=150, body=SOUND | st.text().map(str.encode) | st.binary(), kind=TYPES | st.binary(max_size=30))
def test_any_body(body: bytes, kind: bytes) -> None:
    """Any body with any content type is one payload, text or valid JSON, or it is rejected with an ``ApiError``."""
    try:
        content = read_body(body, kind)
    except ApiError:
        return
    (payload,) = content.items
    parsed = json.loads(payload_to_json(payload, content.kind), parse_int=str)  # Python reads no number of 4,301 digits
    if content.kind is TEXT and not kind.startswith(b"application/json"):
        assert parsed == body.decode() and payload == body


@holds(examples=150, message=SOUND | st.text().map(str.encode) | st.binary(), kind=TYPES)
def test_any_batch(message: bytes, kind: bytes) -> None:
    """Any batch body is a list of events and errors, or it is rejected; ``join_neighbours`` keeps all events."""
    for body in (message, b'{"events":[%b,{"channel":"a","data":1},%b]}' % (message, message)):
        try:
            asked = read_batch(body, kind, 1_000)
        except ApiError:
            continue
        events = [one for one in asked if not isinstance(one, tuple)]
        assert all(isinstance(one[1], Error) for one in asked if isinstance(one, tuple))
        assert sum(len(row.payloads) for row in join_neighbours(events)) == len(events)
