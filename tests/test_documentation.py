"""Compares the documentation with the code: tables, file names, links and examples."""

import configparser
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

import twistedsock
from tests.documents import CHECKOUT, fenced
from twistedsock.cli.memory_estimate import estimate_memory
from twistedsock.codecs.problem_details import HTTP_STATUS
from twistedsock.config import HEADINGS, OPTIONS, Option, read_settings
from twistedsock.errors import ErrorCode
from twistedsock.limits.settings import Limits
from twistedsock.server.web_endpoints import BINARY_PROTOCOL, JSON_PROTOCOL, LINE_PROTOCOL

PAGES = sorted([CHECKOUT / "README.md", CHECKOUT / "examples" / "README.md", *(CHECKOUT / "docs").rglob("*.md")])


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def outside_of_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.*)$", outside_of_code(text_of(page)), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def contract_files() -> list[Path]:
    """All files that name parts of the public protocols."""
    folders = [CHECKOUT / name for name in ("docs", "clients", "examples", "twistedsock")]
    kinds = (".md", ".py", ".js", ".mjs", ".ts", ".json", ".html", ".sh", ".toml")
    found = [file for folder in folders for file in folder.rglob("*") if file.suffix in kinds]
    return [file for file in [CHECKOUT / "README.md", *found] if "node_modules" not in file.parts]


def test_files_name_only_supported_subprotocols() -> None:
    named = {file: set(re.findall(r"sockbridge\.v\d+\.\w+", text_of(file))) for file in contract_files()}
    assert [file for file, names in named.items() if names - {JSON_PROTOCOL, LINE_PROTOCOL, BINARY_PROTOCOL}] == []
    for place in ("docs/reference/json-protocol.md", "twistedsock/static/openapi.json"):
        assert named[CHECKOUT / place] == {JSON_PROTOCOL, LINE_PROTOCOL, BINARY_PROTOCOL}
    assert named[CHECKOUT / "twistedsock/static/sockbridge.js"] == {JSON_PROTOCOL}


def documented_errors() -> dict[str, tuple[str, int]]:
    """The protocols and the HTTP status of each error code."""
    rows = re.findall(
        r"^\| `([a-z0-9-]+)` \| ([\w, ]+) \| (\d{3}) \|", text_of(CHECKOUT / "docs/reference/errors.md"), re.M
    )
    return {code: (protocols, int(status)) for code, protocols, status in rows}


def test_errors_page_lists_every_code_with_its_status() -> None:
    statuses = {code: status for code, (_, status) in documented_errors().items()}
    assert statuses == {code.decode(): status for code, status in HTTP_STATUS.items()}
    assert set(statuses) == {code.decode() for code in ErrorCode}


def test_api_description_and_types_list_the_codes_of_their_protocol() -> None:
    codes = {code.decode() for code in ErrorCode}
    json_codes = {code for code, (protocols, _) in documented_errors().items() if "JSON" in protocols}
    assert json_codes == codes - {"unknown-command", "too-long", "not-utf8"}
    assert {code for code, (protocols, _) in documented_errors().items() if "lines" in protocols} == codes - {
        "bad-type"
    }
    openapi = msgspec.json.decode(text_of(CHECKOUT / "twistedsock/static/openapi.json"))
    assert set(openapi["components"]["schemas"]["Code"]["enum"]) == set(documented_errors())
    declared = text_of(CHECKOUT / "twistedsock/static/sockbridge.d.ts").partition("type ServerCode =")[2]
    assert set(re.findall(r"'([a-z0-9-]+)'", declared.partition(";")[0])) == json_codes


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_links_within_the_checkout_have_targets(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", outside_of_code(text_of(page))):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_an_index_links_every_page() -> None:
    """The index of docs, or of a folder with an index of its own."""
    docs = CHECKOUT / "docs"
    listed = {docs / "index.md"}
    for index in docs.rglob("index.md"):
        listed |= {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#]+\.md)\)", text_of(index))}
    assert [page for page in docs.rglob("*.md") if page not in listed] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_commands_write_secrets_into_private_files(page: Path) -> None:
    lines = [line for kind in ("sh", "console") for block in fenced(page, kind) for line in block.splitlines()]
    for line in lines:
        if re.search(r"(sockbridge token|openssl rand)\b.*>", line):
            assert line.startswith("(umask 077; "), line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(CHECKOUT)))
def test_http_responses_have_the_length_that_their_head_names(page: Path) -> None:
    """The sessions are played with other ports, so that test cannot compare the lengths."""
    for block in fenced(page, "console"):
        for length, body in re.findall(r"^Content-Length: (\d+)\n(?:.+\n)*\n(.*\n)", block, re.MULTILINE):
            assert len(body.encode()) == int(length), body


@pytest.mark.parametrize("name", ["docs/tutorial/first-five-minutes.md", "docs/how-to/run.md"])
def test_pages_with_make_run_activate_the_environment_before_other_commands(name: str) -> None:
    """`make run` installs them into `.venv/bin`."""
    text = text_of(CHECKOUT / name)
    command = re.search(r"^(\$ )?(twistd -n|sockbridge (keygen|token|check)) ", text, re.MULTILINE)
    assert command and text.index("make run") < command.start()
    assert text.index(". .venv/bin/activate") < command.start()


def option_tables() -> dict[str, dict[str, str]]:
    """The defaults by option by heading, as docs/reference/options.md shows them."""
    tables = {}
    for section in re.split(r"^## ", text_of(CHECKOUT / "docs/reference/options.md"), flags=re.MULTILINE)[1:]:
        rows = re.findall(r"^\| `--([a-z-]+)`(?:, `-c`)? \| (.*?) \|", section, re.MULTILINE)
        if rows:
            tables[section.partition("\n")[0]] = {name: default.strip("`") for name, default in rows}
    return tables


def shown_default(option: Option) -> str:
    if option.is_repeatable:
        return ", ".join(option.default) or "none"
    if not option.unit:
        return "off"
    return f"{option.default:g}" if isinstance(option.default, float) else str(option.default) or "none"


def test_options_page_shows_each_option_under_its_heading_with_its_default() -> None:
    expected = {
        heading: {option.name: shown_default(option) for option in OPTIONS if option.heading == heading}
        for heading in HEADINGS
    }
    tables = option_tables()
    assert set(tables.pop("Other")) == {"config", "version", "help"}
    assert {**expected, **tables} == expected == {heading: tables[heading] for heading in expected}


@pytest.mark.parametrize(
    ("page", "text"), [pytest.param(page, text, id=page.stem) for page in PAGES for text in fenced(page, "toml")]
)
def test_configuration_files_in_documentation_are_valid(tmp_path: Path, page: Path, text: str) -> None:
    file = tmp_path / "sockbridge.toml"
    file.write_text(text)
    read_settings(str(file), {})


@pytest.mark.parametrize("unit", ["sockbridge.service", "sockbridge.socket"])
def test_documentation_links_units_of_systemd(unit: str) -> None:
    assert any(f"examples/systemd/{unit})" in text_of(page) for page in PAGES)


def test_unit_of_systemd_can_write_to_the_documented_state_directory() -> None:
    (name,) = re.findall(
        r"^StateDirectory=(\S+)$", text_of(CHECKOUT / "examples/systemd/sockbridge.service"), re.MULTILINE
    )
    assert f'`state = "/var/lib/{name}"`' in text_of(CHECKOUT / "docs/how-to/keep-history.md")


def test_page_about_embedding_shows_the_example() -> None:
    (shown,) = (text for text in fenced(CHECKOUT / "docs/how-to/embed.md", "python") if "UDPServer" in text)
    assert shown == text_of(CHECKOUT / "examples/sensors.tac")
    assert len([line for line in shown.splitlines() if line]) <= 32


def test_page_about_frameworks_shows_the_recipes() -> None:
    page = text_of(CHECKOUT / "docs/how-to/frameworks.md")
    shown = [name for name in re.findall(r"recipes/([\w-]+\.\w+)\)", page)]
    assert len(shown) == 7
    for name in shown:
        assert f"\n{text_of(CHECKOUT / 'examples/recipes' / name)}```\n" in page, name


def test_python_api_page_names_all_of_the_api() -> None:
    text = text_of(CHECKOUT / "docs/reference/python-api.md")
    assert [name for name in twistedsock.__all__ if name not in text] == []


def test_example_of_small_limits_stays_below_its_documented_memory() -> None:
    example = next(text for page in PAGES for text in fenced(page, "toml") if "max-subscriptions" in text)
    limits = msgspec.convert(tomllib.loads(example), Limits)
    assert estimate_memory(limits).total < 450 * 1024**2
    assert 2 * 1024**3 < estimate_memory(Limits()).total < 2.7 * 1024**3


def test_security_page_names_test_files_that_exist() -> None:
    named = re.findall(r"`([\w/]+\.py)`", text_of(CHECKOUT / "docs/explanation/security.md"))
    assert len(named) > 100
    assert [file for file in named if not (CHECKOUT / "tests" / file).exists()] == []


def test_contributing_page_quotes_the_layer_contract() -> None:
    config = configparser.ConfigParser()
    config.read(CHECKOUT / "setup.cfg", encoding="utf-8")
    layers = config["importlinter:contract:layers"]["layers"].strip().splitlines()
    (quoted,) = (block for block in fenced(CHECKOUT / "docs/contributing.md", "") if "twistedsock.tap" in block)
    assert quoted.splitlines() == layers
    rows = re.findall(r"^\| `(\w+)` \|", text_of(CHECKOUT / "docs/contributing.md"), re.MULTILINE)
    assert rows == [name.removeprefix("twistedsock.") for layer in layers for name in layer.split(" | ")]


def test_recipes_name_files_that_exist() -> None:
    recipes = text_of(CHECKOUT / "docs/contributing.md").partition("\n## Recipes\n")[2].partition("\n## ")[0]
    named = re.findall(r"`((?:twistedsock|docs|tests)/[\w/.-]+)`", recipes)
    assert len(named) > 20
    assert [path for path in named if not (CHECKOUT / path).exists()] == []


def test_contributing_page_lists_every_make_target() -> None:
    makefile = text_of(CHECKOUT / "Makefile")
    targets = set(re.findall(r"^([a-z]+):.*## ", makefile, re.MULTILINE)) - {"help"}
    listed = set(re.findall(r"^\| `make (\w+)` \|", text_of(CHECKOUT / "docs/contributing.md"), re.MULTILINE))
    assert listed == targets


def test_source_files_name_pages_and_sections_that_exist() -> None:
    folders = [CHECKOUT / name for name in ("bench", "changes", "clients", "examples", "tests", "tools", "twistedsock")]
    kinds = {".cfg", ".js", ".json", ".md", ".mjs", ".py", ".service", ".sh", ".socket", ".toml", ".ts"}
    skipped = {"node_modules", ".peers", "results"}
    files = [file for folder in folders for file in folder.rglob("*") if file.suffix in kinds]
    wrong = []
    for file in files:
        if skipped & set(file.parts):
            continue
        for page, section in re.findall(r'\b(docs/[a-z/-]+\.md)(?:, "([^"]+)")?', text_of(file)):
            path = CHECKOUT / page
            if not path.exists() or (section and f"# {section}\n" not in text_of(path)):
                wrong.append(f"{file.relative_to(CHECKOUT)}: {page} {section}")
    assert wrong == []
