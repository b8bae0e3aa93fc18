"""HELP begins with what can be copied."""

import pytest

from twistedsock.codecs.line_decoder import LINE_DECODER, USAGE
from twistedsock.codecs.line_encoder import HELP_LINES
from twistedsock.session import commands


def test_every_verb_has_its_help() -> None:
    """What is understood is explained, and what is explained is understood."""
    assert set(HELP_LINES) == {b"", *USAGE}


@pytest.mark.parametrize("verb", HELP_LINES, ids=lambda verb: verb.decode() or "all")
def test_each_line_begins_with_one_whole_example(verb: bytes) -> None:
    """Whoever copies the example from a line has a command that works."""
    for line in HELP_LINES[verb]:
        example, gap, text = line.partition(b"   ")
        assert gap and text.strip(), line
        command = LINE_DECODER.decode(example)
        assert command is not None and not isinstance(command, commands.InvalidCommand), line
        assert example.split()[0] == verb or not verb


def test_a_help_line_fits_a_screen() -> None:
    """With INFO before it, no line is wider than 110 columns, and all of them are plain ASCII."""
    for lines in HELP_LINES.values():
        for line in lines:
            assert len(line) <= 105 and line.isascii() and line.decode().isprintable(), line
