"""A proxy is believed if it is trusted, and what a stranger wrote is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.core.proxies import NOBODY, Source, TrustedProxies, parse_trusted, source_of

OURS = parse_trusted(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.1"])


@pytest.mark.parametrize("host", ["10.1.2.3", "192.0.2.1", "2001:db8:1::7", "2001:DB8:1:0::7", "::ffff:10.0.0.1"])
def test_an_address_in_a_trusted_network_is_trusted(host: str) -> None:
    assert OURS.trusts(host)


@pytest.mark.parametrize("host", ["11.0.0.1", "192.0.2.2", "2001:db8:2::1", "::1", "127.0.0.1", "", "proxy.example"])
def test_all_others_are_not(host: str) -> None:
    assert not OURS.trusts(host)
    assert not NOBODY.trusts(host)


def test_an_interface_does_not_matter() -> None:
    assert parse_trusted(["fe80::/10"]).trusts("fe80::1%eth0")


def test_who_comes_by_a_unix_socket_is_trusted_where_that_is_said() -> None:
    trusted = parse_trusted(["unix"])
    assert trusted == TrustedProxies((), True)
    assert trusted.trusts("")
    assert not trusted.trusts("127.0.0.1")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("proxy.example", "'proxy.example' is no address, no network such as 10.0.0.0/8, and not the word unix"),
        ("", "'' is no address"),
        ("10.0.0.0/33", "'10.0.0.0/33' is no address"),
        ("10.0.0.1/8", "'10.0.0.1/8' has bits set behind its mask; is 10.0.0.0/8 meant?"),
    ],
)
def test_what_is_no_proxy_is_named(word: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_trusted(["::1", word])
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("forwarded", "source"),
    [
        ("203.0.113.7", Source("203.0.113.7")),
        ("203.0.113.7:4711", Source("203.0.113.7", 4711)),
        ("2001:db8::7", Source("2001:db8::7")),
        ("[2001:DB8::7]", Source("2001:db8::7")),
        ("[2001:db8:0::7]:4711", Source("2001:db8::7", 4711)),
        ("::ffff:203.0.113.7", Source("203.0.113.7")),
        ("198.51.100.1, 203.0.113.7", Source("203.0.113.7")),
        ("198.51.100.1,203.0.113.7,\t10.1.1.1 , [2001:db8:1::1]:5", Source("203.0.113.7")),
        ("nonsense, 203.0.113.7, 10.1.1.1", Source("203.0.113.7")),
        ("203.0.113.7, ,", Source("203.0.113.7")),
        ("10.1.1.1, 10.2.2.2", Source("10.1.1.1")),
    ],
)
def test_the_client_is_the_last_that_is_no_proxy_of_ours(forwarded: str, source: Source) -> None:
    assert OURS.find_client(forwarded) == source


@pytest.mark.parametrize(
    "garbage",
    [
        "unknown",
        "_hidden",
        "client.example",
        "203.0.113",
        "203.0.113.256",
        "203.0.113.07",
        "203.0.113.7:",
        "203.0.113.7:65536",
        "203.0.113.7:-1",
        "203.0.113.7 198.51.100.1",
        "203.0.113.7;",
        '"203.0.113.7"',
        "[203.0.113.7",
        "[2001:db8::7",
        "2001:db8::7]",
        "2001:db8:::7",
        "fe80::1%eth0",
        "²03.0.113.7",
        "203.0.113.7\n",
        ":" * 16_000,
    ],
)
def test_garbage_is_no_client(garbage: str) -> None:
    assert OURS.find_client(garbage) is None
    assert OURS.find_client(f"203.0.113.7, {garbage}, 10.1.1.1") is None


def test_nothing_told_is_no_client() -> None:
    assert OURS.find_client("") is OURS.find_client(" , ") is None


@given(st.text())
def test_any_text_gives_an_address_or_nothing(text: str) -> None:
    source = OURS.find_client(text)
    assert source is None or source_of(source.host, source.port) == source


@given(st.text(), st.ip_addresses())
def test_what_a_stranger_writes_changes_nothing(written: str, address: object) -> None:
    honest = OURS.find_client(f"{address}")
    assert honest is not None
    if not OURS.trusts(honest.host):
        assert (
            OURS.find_client(f"{written}, {address}") == OURS.find_client(f"{written}, {address}, 10.1.1.1") == honest
        )
