"""Addresses of servers."""

import pytest

from twistedsock.redis.address import Address, Place, has_password, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://localhost", Address("localhost")),
        ("redis://10.0.0.1:6380/3", Address("10.0.0.1", 6380, 3)),
        ("redis://[::1]:6380/", Address("::1", 6380)),
        ("redis://ann@host", Address("host", user="ann")),
        ("redis://ann:p%40ss%2F@host", Address("host", user="ann", password="p@ss/")),
        ("redis://:secret@host", Address("host", password="secret")),
        ("rediss://host:6390/1", Address("host", 6390, 1, is_tls=True)),
        ("rediss://host?ca=/etc/ca.pem", Address("host", is_tls=True, ca_file="/etc/ca.pem")),
        ("unix:///run/redis.sock", Address(path="/run/redis.sock")),
        (
            "unix://ann:secret@/run/redis.sock?db=2",
            Address("", 6379, 2, "/run/redis.sock", user="ann", password="secret"),
        ),
        (
            "redis+cluster://ann:p@a,[::1]:1/0",
            Address(user="ann", password="p", nodes=(Place("a", 6379), Place("::1", 1))),
        ),
        ("rediss+cluster://a?ca=/ca", Address(is_tls=True, ca_file="/ca", nodes=(Place("a", 6379),))),
        ("redis+sentinel://host/main", Address(sentinels=(Place("host", 26379),), master="main")),
        (
            "rediss+sentinel://ann:p%40@[::1]:1,host:2/ma%69n/3?ca=/ca&sentinel_username=b&sentinel_password=p%26",
            Address(
                database=3,
                is_tls=True,
                ca_file="/ca",
                user="ann",
                password="p@",
                sentinels=(Place("::1", 1), Place("host", 2)),
                master="main",
                sentinel_user="b",
                sentinel_password="p&",
            ),
        ),
    ],
)
def test_reads_addresses(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:6379",
        "http://secret@host",
        "redis://",
        "redis:///0",
        "redis://:secret@",
        "redis://host:port",
        "redis://:sec/ret@host",
        "redis://:secret@host:99999",
        "redis://host/first",
        "redis://:secret@host/1?db=2",
        "redis://host?secret",
        "redis://host?ca=/file",
        "redis://host#secret",
        "redis://[secret",
        "unix://host/path",
        "unix:///",
        "unix:///path?db=x",
        "unix:///path?ca=/file",
        "redis://host1,host2",
        "redis+sentinel://host",
        "redis+sentinel://host,/main",
        "redis+sentinel://host/main/secret",
        "redis+sentinel://host/main?ca=/secret",
        "redis+cluster://host/1",
    ],
)
def test_rejects_other_addresses_without_repeating_any_part_of_them(url: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_address(url)
    assert str(caught.value).startswith("invalid address: ")
    assert "secret" not in str(caught.value) and "sec" not in str(caught.value) and caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis://ann:secret@host/1", "host:6379"),
        ("redis://[::1]", "[::1]:6379"),
        ("unix://:secret@/run/redis.sock", "/run/redis.sock"),
        ("redis+cluster://:secret@a,b:1", "the Cluster of a:6379,b:1"),
        ("redis+sentinel://:secret@a,b:1/main?sentinel_password=secret", "main of a:26379,b:1"),
    ],
)
def test_is_shown_without_user_and_password(url: str, text: str) -> None:
    assert str(parse_address(url)) == repr(parse_address(url)) == text


def test_knows_which_addresses_may_contain_a_password() -> None:
    for url in ("redis://:secret@host", "redis+sentinel://host/main?sentinel_password=secret", "x://a:b@"):
        assert has_password(url)
    for url in ("redis://ann@host:6379", "redis+sentinel://a:1,b:2/main"):
        assert not has_password(url)
