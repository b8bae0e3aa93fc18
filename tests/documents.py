"""The code blocks of the documentation."""

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
DOCS = CHECKOUT / "docs"


def blocks_in(text: str) -> list[tuple[str, str]]:
    """The kind, such as ``sh``, and the content of each code block, in their order."""
    # Reads all blocks in order: the end of one looks like the beginning of one without a kind.
    return re.findall(r"^```(.*?)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def fenced_in(text: str, kind: str) -> list[str]:
    """The code blocks of this kind in a text."""
    return [block for its_kind, block in blocks_in(text) if its_kind == kind]


def fenced(page: Path, kind: str) -> list[str]:
    """The code blocks of this kind in a file."""
    return fenced_in(page.read_text(encoding="utf-8"), kind)
