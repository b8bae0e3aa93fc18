"""Each encoding exists once, and is framed as its socket needs it."""

import pytest

from twistedsock.codecs.encoders import JSON_IN_MESSAGES, LINES, LINES_IN_MESSAGES
from twistedsock.session.encoder import Encoder


@pytest.mark.parametrize(
    ("dialect", "notice"),
    [
        (LINES, b"NOTICE hi\n"),
        (LINES_IN_MESSAGES, b"\x81\x09NOTICE hi"),
        (JSON_IN_MESSAGES, b'\x81\x1d{"type":"notice","text":"hi"}'),
    ],
)
def test_each_dialect_in_its_frame(dialect: Encoder, notice: bytes) -> None:
    """The same notice, as each kind of peer hears it."""
    assert dialect.notice(b"hi") == notice
