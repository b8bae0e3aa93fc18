"""What plain HTTP gets: the page and its files, with headers that keep it from doing or loading anything else."""

import json
import re
from hashlib import sha256
from importlib.resources import files
from pathlib import Path

import pytest
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from twistedsock.auth.origins import AllowedOrigins
from twistedsock.codecs.http import MAX_HEADERS
from twistedsock.server.http.connection import IDLE_TIMEOUT_SECONDS, HTTPConnection
from twistedsock.server.http.headers import DATA_HEADERS, PAGE_HEADERS
from twistedsock.server.http.origin_policy import OriginPolicy
from twistedsock.server.http.routes import build_routes
from twistedsock.server.http.routing import Routes
from twistedsock.server.http.site import HTTPSite
from twistedsock.server.sockets import DEFAULT_LISTENER
from twistedsock.testing import FakeServer

LINES = [{"kind": "tcp", "host": "127.0.0.1", "port": 8081}]
STATIC = Path(str(files("twistedsock"))) / "static"
NAMES = sorted(str(file.relative_to(STATIC)) for file in STATIC.rglob("*") if file.is_file())


class Answer:
    def __init__(self, data):
        head, _, self.body = data.partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


@pytest.fixture
def ask(reactor, wire):
    """Ask on one connection: ``ask(path, method="GET", host=…, body=b"", **headers)``."""
    context = FakeServer().context
    site = HTTPSite(
        reactor,
        context,
        OriginPolicy(AllowedOrigins()),
        Routes(build_routes(context, reactor, lambda: LINES)),
        DEFAULT_LISTENER,
    )
    transport = wire(port=8082)
    protocol = HTTPConnection(site, transport.getPeer())
    protocol.makeConnection(transport)

    def asking(path, method="GET", host="127.0.0.1:8082", body=b"", **headers):
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        protocol.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        return Answer(transport.heard())

    asking.transport, asking.protocol = transport, protocol
    return asking


@pytest.mark.parametrize("name", NAMES)
def test_each_file_of_the_page_is_served_as_what_it_is(ask, name):
    kinds = {"js": "text/javascript", "css": "text/css", "html": "text/html", "svg": "image/svg+xml"}
    kinds |= {"ts": "text/plain", "md": "text/markdown"}
    answer = ask("/" + name.removesuffix("index.html").rstrip("/"))
    assert (answer.status, answer.body) == (200, (STATIC / name).read_bytes())
    kind = kinds.get(name.rpartition(".")[2])
    other = "application/json" if name.endswith(".json") else "application/octet-stream"
    assert answer.headers["content-type"] == (f"{kind}; charset=utf-8" if kind else other)
    assert answer.headers["content-length"] == str(len(answer.body))
    assert answer.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("page, own", [("index.html", "page"), ("console/index.html", "console/console")])
def test_the_pages_name_only_files_that_are_there(page, own):
    named = set(re.findall(r'(?:src|href)="/?([^"#:]+)"', (STATIC / page).read_text()))
    assert named <= {*NAMES, "", "console", "/"}
    assert {f"{own}.js", f"{own}.css"} <= named


def imports(entry):
    """The modules that it names, however far down; with itself."""
    found, waiting = set(), [entry]
    while waiting:
        module = waiting.pop()
        found.add(module)
        named = re.findall(r"""^(?:import .*|}) from '(\.[^']+)';$""", module.read_text(), re.MULTILINE)
        waiting += {(module.parent / name).resolve() for name in named} - found
    return found


@pytest.mark.parametrize("page, entry", [("index.html", "page.js"), ("console/index.html", "console/console.js")])
def test_each_page_announces_all_its_modules(page, entry):
    """So that a browser need not read one to hear of the next."""
    announced = re.findall(r'rel="modulepreload" href="/?([^"]+)"', (STATIC / page).read_text())
    needed = {str(module.relative_to(STATIC.resolve())) for module in imports((STATIC / entry).resolve())}
    assert {*announced, entry} == needed


@pytest.mark.parametrize("path", ["/", "/sockbridge.js", "/bridge.json", "/ws", "/nothing"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE", "OPTIONS"])
def test_every_answer_has_the_security_headers(ask, path, method):
    answer = ask(path, method)
    for name, value in (
        PAGE_HEADERS if answer.status == 200 and path in ("/", "/sockbridge.js") else DATA_HEADERS
    ).items():
        assert answer.headers[name.decode().lower()] == value.decode()


def test_the_policy_lets_the_page_load_its_own_files_and_nothing_else(ask):
    rules = dict(rule.strip().split(" ", 1) for rule in ask("/").headers["content-security-policy"].split(";"))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["img-src"] == "'self'"


def test_only_the_client_may_be_imported_by_pages_of_others(ask):
    for path in ("/sockbridge.js", "/stream.js", "/sockbridge.d.ts"):
        assert ask(path).headers["access-control-allow-origin"] == "*"
    for path in ("/", "/page.js", "/bridge.json", "/nothing"):
        assert "access-control-allow-origin" not in ask(path).headers


def test_what_the_browser_has_is_not_sent_again(ask):
    tag = ask("/page.js").headers["etag"]
    assert tag == f'"{sha256((STATIC / "page.js").read_bytes()).hexdigest()[:16]}"'
    answer = ask("/page.js", If_None_Match=tag)
    assert (answer.status, answer.body) == (304, b"")
    assert ask("/page.js", If_None_Match='"other"').status == 200


@pytest.mark.parametrize("path", ["/", "/bridge.json", "/nothing", "/ws"])
def test_head_is_get_without_the_body(ask, path):
    told, whole = ask(path, "HEAD"), ask(path)
    assert (told.status, told.body) == (whole.status, b"")
    assert told.headers["content-length"] == str(len(whole.body))


def test_the_page_is_told_where_the_line_ports_are(ask):
    answer = ask("/bridge.json")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) == {"lines": LINES, "version": "0.0"}


@pytest.mark.parametrize(
    "path", ["/index.html", "/static/page.js", "/../setup.cfg", "/%2e%2e/setup.cfg", "//", "/PAGE_HEADERS.JS"]
)
def test_what_is_not_there_is_not_found(ask, path):
    assert ask(path).status == 404


def test_a_query_does_not_matter(ask):
    assert ask("/?channel=kitchen").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "QUARREL"])
def test_other_methods_are_refused(ask, method):
    answer = ask("/", method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


def test_another_host_is_refused_at_every_request(ask):
    assert [ask("/", host=host).status for host in ("127.0.0.1", "evil.example", "127.0.0.1")] == [200, 421, 200]


def test_requests_are_not_logged(ask, logged):
    ask("/?token=secret")
    assert logged == []


@pytest.mark.parametrize("length", ["9" * 5_000, "9" * 20, "+5", "5, 5", "0x5", "-1", "5_0", ""])
def test_a_length_that_is_no_number_we_read_is_refused(ask, length):
    """5,000 digits are more than Python reads."""
    answer = ask("/", "POST", body=b"GET /bridge.json HTTP/1.1\r\n\r\n", Content_Length=length)
    assert answer.status == 400
    assert ask.transport.disconnecting
    assert ask.transport.heard() == b""


def test_every_request_of_a_connection_has_no_more_headers_than_the_first(ask):
    assert ask("/", **{f"X{number}": "" for number in range(MAX_HEADERS - 1)}).status == 200
    assert ask("/", **{f"X{number}": "" for number in range(MAX_HEADERS)}).status == 400


def test_what_comes_behind_a_refusal_is_not_read(ask):
    """TLS delivers it: one record for the refused request, and one for the empty line that Twisted trips over."""
    ask.protocol.dataReceived(b"nonsense\r\n")
    assert Answer(ask.transport.heard()).status == 400
    ask.protocol.dataReceived(b"\r\n")
    assert ask.transport.heard() == b""


def test_who_does_not_let_go_is_cut_off(ask, reactor, logged):
    """A peer that does not answer the goodbye of TLS would stay for ever."""
    ask("/", Connection="close")
    assert ask.transport.disconnecting
    reactor.advance(IDLE_TIMEOUT_SECONDS - 1)
    assert not ask.transport.disconnected
    reactor.advance(1)
    assert ask.transport.disconnected
    assert logged == []


def test_who_is_silent_for_too_long_is_closed_without_a_word_in_the_log(ask, reactor, logged):
    ask("/")
    reactor.advance(IDLE_TIMEOUT_SECONDS)
    assert ask.transport.disconnecting and not ask.transport.disconnected
    reactor.advance(15)
    assert ask.transport.disconnected
    assert logged == []


@pytest.mark.parametrize("last", [b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", b"nonsense\r\n", b"GET"])
@pytest.mark.parametrize("later", [0, IDLE_TIMEOUT_SECONDS - 1, IDLE_TIMEOUT_SECONDS, IDLE_TIMEOUT_SECONDS + 20])
def test_an_end_leaves_no_timer_behind(ask, reactor, last, later):
    ask.protocol.dataReceived(last)
    reactor.advance(later)
    ask.protocol.connectionLost(Failure(ConnectionDone()))
    assert reactor.getDelayedCalls() == []
