"""The client of a trusted proxy, from ``X-Forwarded-For``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.auth.trusted_proxies import NO_PROXIES, Source, TrustedProxies, parse_source, parse_trusted

OURS = parse_trusted(["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.1"])
PROXY = "10.0.0.1"


@pytest.mark.parametrize("host", ["10.1.2.3", "192.0.2.1", "2001:db8:1::7", "2001:DB8:1:0::7", "::ffff:10.0.0.1"])
def test_trusts_address_in_trusted_network(host: str) -> None:
    assert OURS.trusts(host)


@pytest.mark.parametrize("host", ["11.0.0.1", "192.0.2.2", "2001:db8:2::1", "::1", "127.0.0.1", "", "proxy.example"])
def test_does_not_trust_other_addresses(host: str) -> None:
    assert not OURS.trusts(host)
    assert not NO_PROXIES.trusts(host)


def test_ignores_zone_of_address() -> None:
    assert parse_trusted(["fe80::/10"]).trusts("fe80::1%eth0")


def test_trusts_unix_sockets_if_configured() -> None:
    trusted = parse_trusted(["unix"])
    assert trusted == TrustedProxies((), True)
    assert trusted.trusts("")
    assert not trusted.trusts("127.0.0.1")


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("proxy.example", "'proxy.example' is not an address, a network (10.0.0.0/8) or the word unix"),
        ("", "'' is not an address"),
        ("10.0.0.0/33", "'10.0.0.0/33' is not an address"),
        ("10.0.0.1/8", "'10.0.0.1/8' is not a network: did you mean 10.0.0.0/8?"),
    ],
)
def test_error_quotes_invalid_proxy(word: str, words: str) -> None:
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
def test_client_is_last_address_that_is_not_a_trusted_proxy(forwarded: str, source: Source) -> None:
    assert OURS.find_client(forwarded, PROXY) == source


@pytest.mark.parametrize(
    "garbage",
    [
        *("unknown", "_hidden", "client.example", "203.0.113", "203.0.113.256", "203.0.113.07", "203.0.113.7:"),
        *("203.0.113.7:65536", "203.0.113.7:-1", "203.0.113.7 198.51.100.1", "203.0.113.7;", '"203.0.113.7"'),
        *("[203.0.113.7", "[2001:db8::7", "2001:db8::7]", "2001:db8:::7", "fe80::1%eth0", "²03.0.113.7"),
        *("203.0.113.7\n", ":" * 16_000),
    ],
)
def test_garbage_gives_no_client(garbage: str) -> None:
    assert OURS.find_client(garbage, PROXY) is None
    assert OURS.find_client(f"203.0.113.7, {garbage}, 10.1.1.1", PROXY) is None


HERE = parse_trusted(["127.0.0.1", "::1", "unix", "10.0.0.0/8"])
LOOPBACK = ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"]


@pytest.mark.parametrize("trusted", [OURS, HERE])
@pytest.mark.parametrize("loopback", LOOPBACK)
def test_loopback_address_from_remote_proxy_means_the_proxy(trusted: TrustedProxies, loopback: str) -> None:
    assert trusted.find_client(loopback, "10.0.0.1") == Source("10.0.0.1")
    assert trusted.find_client(f"[{loopback}]:4711" if ":" in loopback else f"{loopback}:4711", "10.0.0.1") == Source(
        "10.0.0.1", 4711
    )
    assert trusted.find_client(f"{loopback}, 10.0.0.9", "10.0.0.1") == Source("10.0.0.9")
    assert Source(loopback, 5).relative_to("2001:db8::1") == Source("2001:db8::1", 5)


@pytest.mark.parametrize("proxy", [*LOOPBACK, ""])
@pytest.mark.parametrize("loopback", ["127.0.0.1", "::1"])
def test_loopback_address_from_local_proxy_means_this_machine(loopback: str, proxy: str) -> None:
    assert HERE.find_client(loopback, proxy) == Source(loopback)
    assert HERE.find_client(f"{loopback}, 127.0.0.1", proxy) == Source(loopback)
    assert Source("", 0).relative_to(proxy) == Source("", 0)


def test_each_address_is_relative_to_the_proxy_that_appended_it() -> None:
    # The proxy on this machine reports 10.0.0.9, and that proxy reports its own loopback.
    assert HERE.find_client("127.0.0.1, 10.0.0.9, 127.0.0.1", "127.0.0.1") == Source("10.0.0.9")
    assert HERE.find_client("127.0.0.1, 127.0.0.1, 10.0.0.9", "") == Source("10.0.0.9")
    assert HERE.find_client("203.0.113.7, 127.0.0.1", "10.0.0.9") == Source("203.0.113.7")


def test_loopback_is_a_proxy_only_if_trusted() -> None:
    assert OURS.find_client("203.0.113.7, 127.0.0.1", "10.0.0.9") == Source("10.0.0.9")


def test_unix_socket_from_remote_proxy_means_the_proxy() -> None:
    assert Source("").relative_to("10.0.0.1") == Source("10.0.0.1")


def test_other_addresses_do_not_depend_on_the_proxy() -> None:
    for proxy in ("10.0.0.1", "127.0.0.1", ""):
        assert Source("203.0.113.7", 1).relative_to(proxy) == Source("203.0.113.7", 1)


def test_empty_header_gives_no_client() -> None:
    assert OURS.find_client("", PROXY) is OURS.find_client(" , ", PROXY) is None


@given(st.text())
def test_any_text_gives_an_address_or_none(text: str) -> None:
    source = OURS.find_client(text, PROXY)
    assert source is None or parse_source(source.host, source.port) == source


@given(st.text(), st.ip_addresses())
def test_client_cannot_spoof_its_address(written: str, address: object) -> None:
    honest = OURS.find_client(f"{address}", PROXY)
    assert honest is not None
    if not OURS.trusts(honest.host):
        assert (
            OURS.find_client(f"{written}, {address}", PROXY)
            == OURS.find_client(f"{written}, {address}, 10.1.1.1", PROXY)
            == honest
        )
