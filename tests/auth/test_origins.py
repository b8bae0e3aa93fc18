"""Origins and hosts of browsers (docs/how-to/browsers-and-origins.md)."""

import pytest

from twistedsock.auth.origins import (
    AllowedOrigins,
    ListenerScope,
    OriginDecision,
    host_name,
    normalize_host,
    normalize_origin,
)

ALLOWED, FOREIGN_HOST, FOREIGN_ORIGIN = (
    OriginDecision.ALLOWED,
    OriginDecision.FOREIGN_HOST,
    OriginDecision.FOREIGN_ORIGIN,
)
LOOPBACK = ListenerScope(loopback=True, port=8082)
OPEN = ListenerScope(loopback=False, port=8082)
UNIX = ListenerScope(loopback=True, port=0)
ORIGINS = AllowedOrigins(["https://app.example.org", "null.example"], ["bridge.example.org"])


def test_decisions_are_http_statuses() -> None:
    assert (FOREIGN_HOST.value, FOREIGN_ORIGIN.value) == (421, 403)


@pytest.mark.parametrize(
    "host, door, decision",
    [
        ("localhost", LOOPBACK, ALLOWED),
        ("localhost:8082", LOOPBACK, ALLOWED),
        ("LocalHost:8082", LOOPBACK, ALLOWED),
        ("127.0.0.1:8082", LOOPBACK, ALLOWED),
        ("127.0.0.1:9999", LOOPBACK, ALLOWED),
        ("[::1]:8082", LOOPBACK, ALLOWED),
        ("[::1]", LOOPBACK, ALLOWED),
        ("bridge.example.org", LOOPBACK, ALLOWED),
        ("Bridge.Example.Org:443", LOOPBACK, ALLOWED),
        ("evil.example:8082", LOOPBACK, FOREIGN_HOST),
        ("localhost.evil.example:8082", LOOPBACK, FOREIGN_HOST),
        ("127.0.0.1.evil.example", LOOPBACK, FOREIGN_HOST),
        ("10.0.0.1:8082", LOOPBACK, FOREIGN_HOST),
        # A health check over HTTP/1.0 sends no host. Browsers always do.
        ("", LOOPBACK, ALLOWED),
        ("bridge.example.org.", LOOPBACK, ALLOWED),
        ("bridge.example.org.:8082", LOOPBACK, ALLOWED),
        ("localhost.", LOOPBACK, ALLOWED),
        ("bridge.example.org..", LOOPBACK, FOREIGN_HOST),
        (":8082", LOOPBACK, FOREIGN_HOST),
        ("localhost", UNIX, ALLOWED),
        ("evil.example", UNIX, FOREIGN_HOST),
        ("evil.example:8082", OPEN, ALLOWED),
        ("10.0.0.1:8082", OPEN, ALLOWED),
    ],
)
def test_loopback_listener_accepts_known_hosts_only(host: str, door: ListenerScope, decision: OriginDecision) -> None:
    """DNS rebinding: the name of the page points to this server, so its origin equals the host."""
    assert ORIGINS.check_host(host, door) is decision
    assert ORIGINS.check_origin(host, None, door) is decision


@pytest.mark.parametrize(
    "host, door, decision",
    [
        ("evil.example:8082", OPEN, FOREIGN_HOST),
        ("evil.example:8082", LOOPBACK, FOREIGN_HOST),
        ("10.0.0.1:8082", OPEN, ALLOWED),
        ("10.0.0.1:8082", LOOPBACK, FOREIGN_HOST),
        ("[2001:db8::1]:8082", OPEN, ALLOWED),
        ("LocalHost:8082", OPEN, ALLOWED),
        ("bridge.example.org", OPEN, ALLOWED),
        ("", OPEN, ALLOWED),
    ],
)
def test_anonymous_request_needs_known_host(host: str, door: ListenerScope, decision: OriginDecision) -> None:
    assert ORIGINS.check_anonymous_host(host, door) is decision


@pytest.mark.parametrize(
    "host, origin, door, decision",
    [
        # Not a browser.
        ("127.0.0.1:8082", None, LOOPBACK, ALLOWED),
        # Own origins.
        ("localhost:8082", "http://localhost:8082", LOOPBACK, ALLOWED),
        ("127.0.0.1:8082", "http://127.0.0.1:8082", LOOPBACK, ALLOWED),
        ("[::1]:8082", "http://[::1]:8082", LOOPBACK, ALLOWED),
        ("LOCALHOST:8082", "HTTP://LocalHost:8082", LOOPBACK, ALLOWED),
        ("10.0.0.1:8082", "http://10.0.0.1:8082", OPEN, ALLOWED),
        ("bridge.example.org", "https://bridge.example.org", OPEN, ALLOWED),
        ("bridge.example.org:443", "https://bridge.example.org", OPEN, ALLOWED),
        ("bridge.example.org", "https://bridge.example.org:443", LOOPBACK, ALLOWED),
        ("bridge.example.org", "http://bridge.example.org:80", LOOPBACK, ALLOWED),
        # The names of loopback, with the listener's port, count as one.
        ("localhost:8082", "http://127.0.0.1:8082", LOOPBACK, ALLOWED),
        ("127.0.0.1:8082", "http://[::1]:8082", LOOPBACK, ALLOWED),
        ("[::1]:8082", "http://localhost:8082", LOOPBACK, ALLOWED),
        ("localhost:9999", "http://127.0.0.1:9999", LOOPBACK, FOREIGN_ORIGIN),
        ("localhost:8082", "http://127.0.0.1:9999", LOOPBACK, FOREIGN_ORIGIN),
        ("localhost:9999", "http://127.0.0.1:8082", LOOPBACK, FOREIGN_ORIGIN),
        ("localhost:8082", "http://127.0.0.2:8082", LOOPBACK, FOREIGN_ORIGIN),
        # Allowed origins.
        ("localhost:8082", "https://app.example.org", LOOPBACK, ALLOWED),
        ("10.0.0.1:8082", "https://app.example.org", OPEN, ALLOWED),
        ("evil.example", "https://app.example.org", LOOPBACK, FOREIGN_HOST),
        # Foreign origins.
        ("localhost:8082", "http://localhost:3000", LOOPBACK, FOREIGN_ORIGIN),
        ("localhost:8082", "http://localhost", LOOPBACK, FOREIGN_ORIGIN),
        ("localhost:8082", "http://app.example.org", LOOPBACK, FOREIGN_ORIGIN),
        ("localhost:8082", "https://app.example.org:444", LOOPBACK, FOREIGN_ORIGIN),
        ("localhost:8082", "https://evil.example", LOOPBACK, FOREIGN_ORIGIN),
        ("bridge.example.org", "http://bridge.example.org:8082", LOOPBACK, FOREIGN_ORIGIN),
        ("evil.example:8082", "http://evil.example:8082", LOOPBACK, FOREIGN_HOST),
        ("evil.example:8082", "http://evil.example:8082", OPEN, FOREIGN_ORIGIN),
        ("localhost:8082", "null", LOOPBACK, FOREIGN_ORIGIN),
        ("10.0.0.1:8082", "null", OPEN, FOREIGN_ORIGIN),
        ("localhost:8082", "", LOOPBACK, FOREIGN_ORIGIN),
        ("localhost:8082", "file://", LOOPBACK, FOREIGN_ORIGIN),
        ("localhost:8082", "ftp://localhost:8082", LOOPBACK, FOREIGN_ORIGIN),
        ("localhost:8082", "chrome-extension://localhost:8082", LOOPBACK, FOREIGN_ORIGIN),
    ],
)
def test_accepts_own_and_allowed_origins_only(
    host: str, origin: str | None, door: ListenerScope, decision: OriginDecision
) -> None:
    assert ORIGINS.check_origin(host, origin, door) is decision


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8082", "10.0.0.1:8082"])
def test_rejects_foreign_host_by_default(host: str) -> None:
    assert AllowedOrigins().check_origin(host, f"http://{host}", LOOPBACK) is FOREIGN_HOST


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://a.example", "https://a.example"),
        ("https://a.example/", "https://a.example"),
        ("HTTPS://A.Example:443", "https://a.example"),
        ("http://a.example:080/", "http://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("https://a.example:8443", "https://a.example:8443"),
        ("https://a.example.", "https://a.example."),
        ("http://my_host:8000", "http://my_host:8000"),
        ("http://[0:0::1]:8000", "http://[::1]:8000"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("chrome-extension://ABCdef", "chrome-extension://abcdef"),
        ("null", "null"),
        ("file://", "file://"),
    ],
)
def test_normalizes_allowed_origin(text: str, origin: str) -> None:
    assert normalize_origin(text) == origin
    assert normalize_origin(origin) == origin
    assert (
        AllowedOrigins(origins=(normalize_origin(text),)).check_origin("localhost", origin, LOOPBACK)
        is OriginDecision.ALLOWED
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("*", "wildcards are not supported, write each name in full"),
        ("https://*.a.example", "wildcards are not supported, write each name in full"),
        ("b.example:443", "write it with its scheme, for example https://b.example"),
        ("b.example/path", "write it with its scheme, for example https://b.example"),
        ("//b.example", "write it with its scheme, for example https://example.org"),
        ("", "write it with its scheme, for example https://example.org"),
        ("wss://a.example", "write the scheme of the page, for example https://a.example"),
        ("://a.example", "write the scheme of the page, for example https://a.example"),
        ("https://", "write a host name or an address, with an optional port"),
        ("https://a.example/page", "write a host name or an address, with an optional port"),
        ("https://a.example?b", "write a host name or an address, with an optional port"),
        ("https://ann@a.example", "write a host name or an address, with an optional port"),
        ("https://a.example:", "write a host name or an address, with an optional port"),
        ("https://a.example:65536", "write a host name or an address, with an optional port"),
        ("https://[::1", "write a host name or an address, with an optional port"),
        ("https://[::1:]", "the brackets do not contain an IPv6 address"),
        ("https://a..example", "'a..example' is not a host name"),
        ("http://127.1:8000", "write the IPv4 address as four decimal numbers"),
        ("http://2130706433", "write the IPv4 address as four decimal numbers"),
        ("http://127.0.0.010", "write the IPv4 address as four decimal numbers"),
        ("http://127.0.0.0x1", "write the IPv4 address as four decimal numbers"),
        ("http://127.0.0.1.", "write the IPv4 address as four decimal numbers"),
        ("http://a.256", "write the IPv4 address as four decimal numbers"),
        ("https://-a.example", "'-a.example' is not a host name"),
        ("https://b\u00fccher.example", "write the name in ASCII, beginning with xn--"),
    ],
)
def test_rejects_origin_that_no_browser_sends(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        normalize_origin(text)
    assert str(caught.value) == f"invalid origin {text!r}: {words}"


@pytest.mark.parametrize(
    ("text", "host", "asked"),
    [
        ("H.Example", "h.example", "h.example"),
        ("h.example:8082", "h.example", "h.example:8082"),
        ("https://h.example/", "h.example", "H.example"),
        ("http://h.example:8082", "h.example", "h.example:1"),
        ("h.example.", "h.example", "h.example"),
        ("my_host", "my_host", "my_host:8082"),
        ("[2001:DB8:0::1]:8082", "2001:db8::1", "[2001:db8::1]:8082"),
        ("2001:db8::1", "2001:db8::1", "[2001:db8::1]"),
    ],
)
def test_normalizes_allowed_host(text: str, host: str, asked: str) -> None:
    assert normalize_host(text) == host
    assert normalize_host(host) == host
    assert AllowedOrigins(hosts=(host,)).check_host(asked, LOOPBACK) is OriginDecision.ALLOWED
    assert host_name(asked.lower()) == host


@pytest.mark.parametrize(
    "text", ["", "*", "*.h.example", "h example", "h.example/page", "h..example", "h:65536", "127.1", "\u00fc"]
)
def test_rejects_host_that_no_browser_asks_for(text: str) -> None:
    with pytest.raises(ValueError, match="^invalid host "):
        normalize_host(text)
