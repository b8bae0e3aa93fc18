"""Configuration of the documentation site: Sphinx, MyST for Markdown, the theme Furo. `make docs` builds it."""

import re
from importlib.metadata import version as version_of
from pathlib import Path

from pygments.lexers.html import HtmlLexer
from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

DOCS = Path(__file__).parent

project = "sockbridge"
author = "sockbridge contributors"
copyright = author
release = version = version_of("sockbridge")

extensions = ["myst_parser"]
html_theme = "furo"
html_title = f"sockbridge {release}"
html_copy_source = False
html_show_sphinx = False
html_permalinks_icon = "#"
html_favicon = "../twistedsock/static/icon.svg"

# Headings get the anchors that GitHub gives them, so that one link works on both sites.
myst_heading_anchors = 6


class TranscriptLexer(TextLexer):
    """The conversations that tests/test_transcripts.py plays."""

    name = "Transcript"
    aliases = ["transcript"]


def navigation(index: str) -> str:
    """The sidebar, from the tables of index.md: a group for each heading, a page for each link."""
    groups = [""]
    for heading, section in re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", index, re.MULTILINE):
        pages = "\n".join(re.findall(r"\]\(([\w/-]+)\.md\)", section))
        groups.append(f"```{{toctree}}\n:hidden:\n:caption: {heading}\n\n{pages}\n```\n")
    return "\n".join(groups)


def link_sources(page: Path, text: str) -> str:
    """Let links that leave docs/ work: the site gets a copy of each file, and a folder stays as plain text."""

    def link(match: re.Match[str]) -> str:
        words, target = match.groups()
        target = target.partition("#")[0]
        path = (page.parent / target).resolve()
        if path.is_relative_to(DOCS) or not path.exists():
            return match[0]
        return words if path.is_dir() else f"[{words}](path:{target})"

    return re.sub(r"(?<!!)\[([^][]*)\]\((\.\./[^()\s]+)\)", link, text)


def prepare(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = link_sources(DOCS / f"{docname}.md", source[0])
    if docname == "index":
        source[0] += navigation(source[0])
    elif docname.endswith("/index"):
        pages = "\n".join(re.findall(r"\]\(([\w/.-]+)\.md\)", source[0]))
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{pages}\n```\n"


def setup(app: Sphinx) -> None:
    app.add_lexer("transcript", TranscriptLexer)
    app.add_lexer("svelte", HtmlLexer)
    app.connect("source-read", prepare)
