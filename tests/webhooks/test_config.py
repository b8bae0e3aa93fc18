"""The tables [[webhook]] and the files that they name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.authority import Authority
from tests.webhooks.conftest import Describe
from twistedsock.config import Settings, SettingsError, read_settings
from twistedsock.webhooks.config import (
    MAX_FILE_BYTES,
    MAX_WEBHOOKS,
    ChannelMatcher,
    WebhookError,
    WebhookTable,
    WebhookTarget,
    check_names,
    read_targets,
)

MINIMAL = 'url = "https://example.org/hook"\nevents = ["event-published"]\n'
SECRET = 'secret = "0123456789abcdef"\n'


Read = Callable[..., tuple[WebhookTable, ...]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Read the webhooks of a configuration file."""

    def read(*tables: str) -> tuple[WebhookTable, ...]:
        file = tmp_path / "bridge.toml"
        file.write_text("".join(f"[[webhook]]\n{table}\n" for table in tables))
        return read_settings(str(file), {}).webhook

    return read


def test_there_are_no_webhooks_by_default() -> None:
    assert Settings().webhook == ()


def test_minimal_table_has_defaults(read: Read) -> None:
    (table,) = read(MINIMAL + SECRET)
    assert (table.title, table.channels, table.debounce) == ("example.org", (">",), 3.0)


def test_file_names_are_relative_to_the_configuration_file(read: Read, tmp_path: Path) -> None:
    (table,) = read(MINIMAL + 'secret-file = "hook.secret"\nca-file = "/etc/ca.pem"')
    assert (table.secret_file, table.ca_file) == (str(tmp_path / "hook.secret"), "/etc/ca.pem")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MINIMAL, "webhook[0]: it requires either secret-file or secret"),
        (MINIMAL + SECRET + 'secret-file = "x"', "webhook[0]: it requires either secret-file or secret"),
        (MINIMAL + 'secret = "short"', "webhook[0]: the secret must have at least 16 bytes"),
        (SECRET + 'url = "https://example.org"', "webhook[0]: object missing required field events"),
        (SECRET + 'url = "https://example.org"\nevents = []', "webhook[0].events: expected array of length >= 1"),
        (SECRET + 'url = "https://a"\nevents = ["all"]', "webhook[0].events[0]: invalid enum value 'all'"),
        (MINIMAL + SECRET + "colour = 1", "webhook[0]: object contains unknown field colour"),
        (MINIMAL + SECRET + 'channels = ["a\u200b.*"]', r"webhook[0]: invalid pattern 'a\u200b.*'"),
        (MINIMAL + SECRET + 'channels = ["a b"]', "webhook[0]: invalid pattern 'a b'"),
        (MINIMAL + SECRET + "channels = []", "webhook[0].channels: expected array of length >= 1"),
        (MINIMAL + SECRET + 'name = "a b"', "webhook[0]: the name must be 1 to 64 visible ASCII characters"),
        (MINIMAL + SECRET + "timeout = 0", "webhook[0].timeout: expected float >= 1.0"),
        (MINIMAL + SECRET + "batch-events = 0", "webhook[0].batch-events: expected int >= 1"),
    ],
)
def test_rejects_an_invalid_table_without_showing_the_secret(read: Read, text: str, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert words in str(caught.value)
    assert "0123456789" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.org", "ftp://example.org/", "https://", "https:///hook", "https://a b.org/", "//example.org"),
        *("https://example.org:port/", "https://example.org:99999/", "https://example.org:0/", "https://[::1/"),
        *("https://ann:secret@example.org/", "https://example.org/#there", "https://bücher.example/"),
        "https://example.org/" + "x" * 2_000,
        *("http://example..org/", "http://.example.org/", "http://-example.org/", "http://example-.org/"),
        *("http://a,b/", "http://%41/", "http://h%/", "http://" + "a" * 64 + "/", "http://" + "a." * 127 + "a/"),
        *("http://300.1.1.1/", "http://1.2.3/", "http://0x7f.1/", "http://1.2.3.4./", "http://2130706433/"),
        *("http://[v1.x]/", "http://[fe80::1%25eth0]/", "http://[::1]x/", "http://[1.2.3.4]/", "http://::1/"),
        *("http://example.org:/", "http://example.org:+80/", "http://example.org:000080/"),
    ],
)
def test_rejects_an_invalid_url(describe: Describe, url: str) -> None:
    with pytest.raises(ValueError, match="^the url "):
        describe(url=url)


@pytest.mark.parametrize(
    ("url", "host", "is_secure"),
    [
        ("https://example.org", "example.org", True),
        ("HTTPS://Example.org:8443/a?b=c", "example.org", True),
        ("http://127.0.0.1:9000/", "127.0.0.1", False),
        ("http://[::1]:9000/", "::1", False),
        ("http://my_service:9000/", "my_service", False),
        ("https://_hook.a_b.example/", "_hook.a_b.example", True),
        ("http://example.org./", "example.org.", False),
        ("http://xn--a/", "xn--a", False),
        ("http://3com.example/", "3com.example", False),
        ("http://" + "a" * 63 + "/", "a" * 63, False),
    ],
)
def test_parses_a_url(describe: Describe, url: str, host: str, is_secure: bool) -> None:
    table = describe(url=url)
    assert (table.host, table.is_secure) == (host, is_secure)


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("HTTPS://Example.org", b"https://example.org/"),
        ("https://example.org?a=b", b"https://example.org/?a=b"),
        ("https://example.org/?", b"https://example.org/?"),
        ("https://example.org/?key=%ff%e4&a=[1]", b"https://example.org/?key=%ff%e4&a=[1]"),
        ("https://example.org/a%2Fb/%zz;c", b"https://example.org/a%2Fb/%zz;c"),
        ('https://example.org/{a}"b"?c|d\\e', b"https://example.org/%7Ba%7D%22b%22?c%7Cd%5Ce"),
    ],
)
def test_requests_use_the_configured_url(describe: Describe, url: str, sent: bytes) -> None:
    assert describe(url=url).request_url == sent


def test_rejects_authorities_without_tls(describe: Describe) -> None:
    with pytest.raises(ValueError, match="ca-file requires a url that begins with https:"):
        describe(url="http://example.org", ca_file="ca.pem")


def test_hides_secrets_in_representations(describe: Describe) -> None:
    table = describe(url="https://example.org/?key=s3cret")
    settings = Settings(webhook=(table,))
    for text in (repr(table), str(settings), table.shown_url):
        assert "0123456789" not in text
        assert "s3cret" not in text
    assert table.shown_url == "https://example.org/?…"
    assert describe().shown_url == "https://example.org/hook"


def test_rejects_equal_names_and_too_many_webhooks(read: Read, describe: Describe) -> None:
    with pytest.raises(SettingsError, match="bridge.toml: webhook: two webhooks have the name 'example.org'"):
        read(MINIMAL + SECRET, MINIMAL + SECRET)
    assert len(read(MINIMAL + SECRET, MINIMAL + SECRET + 'name = "other"')) == 2
    with pytest.raises(ValueError, match="too many webhooks: 33, the maximum is 32"):
        check_names(tuple(describe(name=str(place)) for place in range(MAX_WEBHOOKS + 1)))


class TestChannelMatcher:
    def test_default_matches_all_but_sys_channels(self, describe: Describe) -> None:
        matches = ChannelMatcher(describe())
        assert matches(b"kitchen")
        assert matches(b"$system")
        assert not matches(b"$sys/figures")

    @pytest.mark.parametrize("text", [">", "*/figures", "$*/figures", "$sys*>"])
    def test_wildcard_does_not_match_sys_channels(self, describe: Describe, text: str) -> None:
        assert not ChannelMatcher(describe(channels=(text,)))(b"$sys/figures")

    def test_pattern_with_sys_prefix_matches_sys_channels(self, describe: Describe) -> None:
        matches = ChannelMatcher(describe(channels=("$sys/fig*", "kitchen.*")))
        assert [matches(name) for name in (b"$sys/figures", b"$sys/closed", b"kitchen.oven", b"cellar")] == [
            *(True, False, True, False)
        ]

    def test_cache_is_limited(self, describe: Describe, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ChannelMatcher, "MAX_CACHED", 2)
        matches = ChannelMatcher(describe(channels=("a*",)))
        for _ in range(2):
            assert [matches(name) for name in (b"a", b"b", b"ab", b"c")] == [True, False, True, False]


def test_keeps_absolute_file_names(describe: Describe) -> None:
    assert (
        describe(secret=None, secret_file="/run/secret").with_absolute_paths(Path("/etc")).secret_file == "/run/secret"
    )


# Files.


ReadTarget = Callable[..., WebhookTarget]


@pytest.fixture
def read_target(describe: Describe, tmp_path: Path) -> ReadTarget:
    """Read a webhook whose secret is in a file with this content."""

    def read_target(content: bytes = b"0123456789abcdef", mode: int = 0o600, **options: Any) -> WebhookTarget:
        file = tmp_path / "hook.secret"
        file.write_bytes(content)
        file.chmod(mode)
        (target,) = read_targets([describe(secret=None, secret_file=str(file), **options)])
        return target

    return read_target


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_reads_a_secret_without_its_line_end(read_target: ReadTarget, end: bytes) -> None:
    target = read_target(b"0123456789abcdef" + end)
    assert (target.secret, target.warning, target.authorities) == (b"0123456789abcdef", "", None)


def test_accepts_a_secret_in_the_table(describe: Describe) -> None:
    (target,) = read_targets([describe(secret="schlüssel-schlüssel")])
    assert target.secret == "schlüssel-schlüssel".encode()
    assert "schl" not in repr(target)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_warns_of_a_secret_that_other_users_can_read(read_target: ReadTarget, mode: int) -> None:
    assert read_target(mode=mode).warning.startswith("users other than the owner can read the secret in /")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"short\n", "contains 5 bytes: a secret must have at least 16"),
        (b"x" * (MAX_FILE_BYTES + 1), "is larger than 1,048,576 bytes"),
    ],
)
def test_rejects_an_unusable_secret_file(read_target: ReadTarget, content: bytes, words: str) -> None:
    with pytest.raises(WebhookError) as caught:
        read_target(content)
    assert str(caught.value).startswith("webhook[0].secret-file: /")
    assert words in str(caught.value)


def test_reports_a_missing_secret_file(describe: Describe) -> None:
    with pytest.raises(WebhookError, match=r"^webhook\[1\].secret-file: cannot read /gone: No such file or directory$"):
        read_targets([describe(), describe(secret=None, secret_file="/gone")])
    with pytest.raises(WebhookError, match=r"^webhook\[0\].secret-file: cannot read .*null byte"):
        read_targets([describe(secret=None, secret_file="a\0b")])


def test_reads_certificate_authorities(read_target: ReadTarget, tmp_path: Path) -> None:
    Authority(tmp_path)
    assert read_target(ca_file=str(tmp_path / "authority.pem")).authorities.startswith(b"-----BEGIN CERTIFICATE-----")
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(WebhookError, match=r"^webhook\[0\].ca-file: .*empty.pem contains no PEM certificates"):
        read_target(ca_file=str(tmp_path / "empty.pem"))
