"""Addresses of servers."""

from pathlib import Path

import pytest

from sockbridge.address import DEFAULT_SERVER, Address, parse_address, tls_context
from sockbridge.errors import AddressError


@pytest.mark.parametrize(
    ("text", "address", "again"),
    [
        (DEFAULT_SERVER, Address("tcp", "127.0.0.1", 8081), DEFAULT_SERVER),
        ("example.org", Address("tcp", "example.org", 8081), "tcp://example.org:8081"),
        ("example.org:7", Address("tcp", "example.org", 7), "tcp://example.org:7"),
        ("tcp://[::1]:7/", Address("tcp", "::1", 7), "tcp://[::1]:7"),
        ("tls://example.org", Address("tls", "example.org", 8443), "tls://example.org:8443"),
        ("unix:///run/a", Address("unix", path="/run/a"), "unix:///run/a"),
        ("ws://a:8082", Address("ws", "a", 8082, "/ws"), "ws://a:8082/ws"),
        ("http://a/", Address("ws", "a", 80, "/ws"), "ws://a:80/ws"),
        ("https://a/x/ws", Address("wss", "a", 443, "/x/ws"), "wss://a:443/x/ws"),
    ],
)
def test_address_has_its_parts(text: str, address: Address, again: str) -> None:
    assert parse_address(text) == address and str(address) == again == str(parse_address(again))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ftp://a", "expected tcp://host:port"),
        ("tcp://", "expected tcp://host:port"),
        ("tcp://a:x", "Port could not be cast"),
        ("tcp://a:70000", "Port out of range"),
        ("tcp://a/path", "a path is only for ws://"),
        ("unix://run/a", "an absolute path"),
        ("ws://a/?token=secret", "give a token as token"),
        ("ws://ann:secret@a", "give a token as token"),
    ],
)
def test_invalid_address_is_an_error_without_secrets(text: str, words: str) -> None:
    with pytest.raises(AddressError, match=words) as raised:
        parse_address(text)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "secure"), [("tcp://a", False), ("ws://a", False), ("tls://a", True), ("wss://a", True)]
)
def test_only_secure_addresses_use_tls(text: str, secure: bool) -> None:
    assert (tls_context(parse_address(text)) is not None) is secure


def test_file_without_certificates_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    for name, reason in (("absent.pem", "no such file or directory"), ("empty.pem", "no certificates in PEM")):
        with pytest.raises(AddressError, match=f"{name}: {reason}"):
            tls_context(parse_address("tls://a"), str(tmp_path / name))
