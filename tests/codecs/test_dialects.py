"""Each encoding exists once, and is framed as its socket needs it."""

import pytest

from twistedsock.codecs.encoders import JSON_MESSAGE_ENCODER, LINE_ENCODER, LINE_MESSAGE_ENCODER
from twistedsock.session.encoder import Encoder


@pytest.mark.parametrize(
    ("dialect", "notice"),
    [
        (LINE_ENCODER, b"NOTICE hi\n"),
        (LINE_MESSAGE_ENCODER, b"\x81\x09NOTICE hi"),
        (JSON_MESSAGE_ENCODER, b'\x81\x1d{"type":"notice","text":"hi"}'),
    ],
)
def test_each_dialect_in_its_frame(dialect: Encoder, notice: bytes) -> None:
    """The same notice, as each kind of peer hears it."""
    assert dialect.notice(b"hi") == notice
