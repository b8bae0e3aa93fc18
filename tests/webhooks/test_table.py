"""The tables [[webhook]]: what can be said, and what cannot be meant."""

from pathlib import Path

import pytest

from twistedsock.config import Settings, SettingsError, read_settings
from twistedsock.webhooks.config import MAX_WEBHOOKS, Matching, check_names

LEAST = 'url = "https://example.org/hook"\nevents = ["event-published"]\n'
SECRET = 'secret = "0123456789abcdef"\n'


@pytest.fixture
def read(tmp_path):
    """The webhooks of a file."""

    def read(*tables):
        file = tmp_path / "bridge.toml"
        file.write_text("".join(f"[[webhook]]\n{table}\n" for table in tables))
        return read_settings(str(file), {}).webhook

    return read


def test_without_a_word_there_is_none():
    assert Settings().webhook == ()


def test_little_must_be_said(read):
    (table,) = read(LEAST + SECRET)
    assert (table.title, table.channels, table.debounce) == ("example.org", (">",), 3.0)


def test_files_are_beside_the_file_of_options(read, tmp_path):
    (table,) = read(LEAST + 'secret-file = "hook.secret"\nca-file = "/etc/ca.pem"')
    assert (table.secret_file, table.ca_file) == (str(tmp_path / "hook.secret"), "/etc/ca.pem")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LEAST, "webhook[0]: it needs secret-file, or secret, and not both"),
        (LEAST + SECRET + 'secret-file = "x"', "webhook[0]: it needs secret-file, or secret, and not both"),
        (LEAST + 'secret = "short"', "webhook[0]: the secret must have 16 bytes or more"),
        (SECRET + 'url = "https://example.org"', "webhook[0]: object missing required field events"),
        (SECRET + 'url = "https://example.org"\nevents = []', "webhook[0].events: expected array of length >= 1"),
        (SECRET + 'url = "https://a"\nevents = ["all"]', "webhook[0].events[0]: invalid enum value 'all'"),
        (LEAST + SECRET + "colour = 1", "webhook[0]: object contains unknown field colour"),
        (LEAST + SECRET + 'channels = ["a\u200b.*"]', r"webhook[0]: 'a\u200b.*' is no pattern"),
        (LEAST + SECRET + 'channels = ["a b"]', "webhook[0]: 'a b' is no pattern"),
        (LEAST + SECRET + "channels = []", "webhook[0].channels: expected array of length >= 1"),
        (LEAST + SECRET + 'name = "a b"', "webhook[0]: the name is 1 to 64 visible ASCII characters"),
        (LEAST + SECRET + "timeout = 0", "webhook[0].timeout: expected float >= 1.0"),
        (LEAST + SECRET + "batch-events = 0", "webhook[0].batch-events: expected int >= 1"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(read, text, words):
    with pytest.raises(SettingsError) as caught:
        read(text)
    assert words in str(caught.value)
    assert "0123456789" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "example.org",
            "ftp://example.org/",
            "https://",
            "https:///hook",
            "https://exa mple.org/",
            "//example.org",
        ),
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
def test_what_is_no_url_is_refused(describe, url):
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
def test_urls(describe, url, host, is_secure):
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
def test_requests_use_the_url_of_the_operator(describe, url, sent):
    assert describe(url=url).request_url == sent


def test_authorities_are_for_tls(describe):
    with pytest.raises(ValueError, match="ca-file is for urls that begin with https"):
        describe(url="http://example.org", ca_file="ca.pem")


def test_a_secret_is_not_shown(describe):
    table = describe(url="https://example.org/?key=s3cret")
    settings = Settings(webhook=(table,))
    for text in (repr(table), str(settings), table.shown_url):
        assert "0123456789" not in text
        assert "s3cret" not in text
    assert table.shown_url == "https://example.org/?…"
    assert describe().shown_url == "https://example.org/hook"


def test_two_with_one_name_are_refused(read, describe):
    with pytest.raises(SettingsError, match="bridge.toml: webhook: two webhooks are called 'example.org'; give each a"):
        read(LEAST + SECRET, LEAST + SECRET)
    assert len(read(LEAST + SECRET, LEAST + SECRET + 'name = "other"')) == 2
    with pytest.raises(ValueError, match="there are 33 webhooks, and 32 at most can be"):
        check_names(tuple(describe(name=str(place)) for place in range(MAX_WEBHOOKS + 1)))


class TestMatching:
    def test_all_but_the_servers_own(self, describe):
        matches = Matching(describe())
        assert matches(b"kitchen")
        assert matches(b"$system")
        assert not matches(b"$sys/figures")

    @pytest.mark.parametrize("text", [">", "*/figures", "$*/figures", "$sys*>"])
    def test_no_pattern_matches_the_servers_own_by_chance(self, describe, text):
        assert not Matching(describe(channels=(text,)))(b"$sys/figures")

    def test_the_servers_own_where_that_is_said(self, describe):
        matches = Matching(describe(channels=("$sys/fig*", "kitchen.*")))
        assert [matches(name) for name in (b"$sys/figures", b"$sys/closed", b"kitchen.oven", b"cellar")] == [
            *(True, False, True, False)
        ]

    def test_what_is_remembered_is_bounded(self, describe, monkeypatch):
        monkeypatch.setattr(Matching, "MAX_KNOWN", 2)
        matches = Matching(describe(channels=("a*",)))
        for _ in range(2):
            assert [matches(name) for name in (b"a", b"b", b"ab", b"c")] == [True, False, True, False]


def test_paths_that_are_absolute_stay(describe):
    assert describe(secret=None, secret_file="/run/secret").beside(Path("/etc")).secret_file == "/run/secret"
