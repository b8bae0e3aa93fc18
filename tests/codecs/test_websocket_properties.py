"""Any frames are decoded as plain frames or left to Autobahn."""

from hypothesis import strategies as st

from tests.fuzz.grammars import CUTS, FRAMES, MASKS, PLAIN, SAME, frame
from tests.fuzz.properties import buffer_limit, buffered_bytes, cut, holds
from twistedsock.codecs.payload import is_utf8
from twistedsock.codecs.websocket import PlainFrames, text_frame, unmask

MAX_HEAD = 14
"""RFC 6455 section 5.2: two bytes, a length of eight and a mask of four."""


def slowly(data: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


def expected(data: bytes, max_bytes: int) -> tuple[list[bytes], bytes, bool]:
    """A second implementation, frame by frame, from the text of the standard: the messages, the rest, and whether the
    rest begins with another kind of frame."""
    messages: list[bytes] = []
    while data:
        if data[0] != 0x81 or (len(data) > 1 and not data[1] & 0x80):
            return messages, data, True
        if len(data) < 2:
            return messages, data, False
        width = {126: 2, 127: 8}.get(data[1] & 0x7F, 0)
        if width == 8:
            return messages, data, True
        if len(data) < 2 + width:
            return messages, data, False
        size = int.from_bytes(data[2 : 2 + width], "big") if width else data[1] & 0x7F
        if size > max_bytes or (width and size < 126):
            return messages, data, True
        body = 6 + width
        if len(data) < body + size:
            return messages, data, False
        message = slowly(data[body : body + size], data[body - 4 : body])
        if not is_utf8(message):
            return messages, data, True
        messages.append(message)
        data = data[body + size :]
    return messages, b"", False


@holds(
    examples=120, data=FRAMES | st.binary() | (PLAIN | SAME), cuts=CUTS, max_bytes=st.sampled_from([130, 512, 65_536])
)
def test_plain_frames(data: bytes, cuts: list[int], max_bytes: int) -> None:
    """Any bytes, at any cuts, give the messages of the plain frames at their start and the unchanged rest; the buffer
    never exceeds the size of one frame."""
    frames = PlainFrames(max_bytes)
    messages: list[bytes] = []
    pieces = cut(data, cuts)
    rest = b""
    for index, piece in enumerate(pieces):
        more, rest = frames.feed(piece)
        messages += more
        assert buffered_bytes(frames) <= buffer_limit(max_bytes + MAX_HEAD)
        if rest:
            rest += b"".join(pieces[index + 1 :])
            break
    expected_messages, left, is_other = expected(data, max_bytes)
    assert messages == expected_messages
    assert (rest if is_other else frames.drain()) == left


@holds(
    examples=60,
    payload=st.binary(max_size=300) | st.just(bytes(range(256)) * 274),
    mask=MASKS | st.binary(min_size=4, max_size=4),
)
def test_masks(payload: bytes, mask: bytes) -> None:
    """A payload of any length is restored by a second XOR with any mask."""
    assert unmask(payload, mask) == slowly(payload, mask)
    assert unmask(unmask(payload, mask), mask) == payload


@holds(
    examples=30,
    size=st.sampled_from([0, 1, 125, 126, 127, 1023, 1024, 65_535, 65_536, 70_000]) | st.integers(0, 70_000),
)
def test_text_frames(size: int) -> None:
    """A message of any length is one frame, with its length in the shortest form."""
    message = b"x" * size
    assert text_frame(message) == frame(0x81, message, None, 0)
