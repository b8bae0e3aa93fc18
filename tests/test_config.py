"""Settings from a file and the command line, and their errors."""

import json
from pathlib import Path

import msgspec
import pytest

from twistedsock.auth.trusted_proxies import parse_trusted
from twistedsock.config import (
    DEFAULT_TCP,
    DEFAULT_WEB,
    RENAMED_OPTIONS,
    ChannelTable,
    Settings,
    SettingsError,
    listeners,
    read_settings,
    trusted_proxies,
)

NAMES = [
    field.encode_name
    for field in msgspec.structs.fields(Settings)
    if field.name not in ("channels", "access", "webhook")
]


@pytest.fixture
def write(tmp_path):
    """Write a TOML file, and return its path."""

    def write(text):
        file = tmp_path / "bridge.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(file)

    return write


def test_defaults():
    assert read_settings(None, {}) == Settings()
    assert Settings().tcp == DEFAULT_TCP == ("tcp:8081:interface=127.0.0.1",)
    assert Settings().web == DEFAULT_WEB == ("tcp:8082:interface=127.0.0.1",)
    assert Settings().allow_insecure is False


def test_reads_ages_of_channels_in_their_order(write):
    text = '[channels."sensors/>"]\nage = "90d"\n[channels."logs.*"]\nage = "12h"\n[channels]\n">".age = "1w"\n'
    channels = read_settings(write(text), {}).channels
    assert [(name, table.age_seconds) for name, table in channels.items()] == [
        ("sensors/>", 90 * 86_400),
        ("logs.*", 12 * 3_600),
        (">", 7 * 86_400),
    ]
    assert [ChannelTable(age=age).age_seconds for age in ("90s", "15m")] == [90, 900]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('"a>b".age = "1d"', "channels.\"a>b\": invalid pattern 'a>b': must be a channel name, with * for a run"),
        ('"a".age = "1y"', 'channels."a": the age must be a number and a unit, for example 90s, 15m, 1h, 90d or 52w'),
        ('"a".age = "0d"', 'channels."a": the age must be a number and a unit'),
        ('"a".age = "-1d"', 'channels."a": the age must be a number and a unit'),
        ('"a".age = 90', 'channels."a": expected str, got int'),
        ('"a" = {}', 'channels."a": object missing required field age'),
        ('"a" = "1d"', 'channels."a": expected object, got str'),
        ('"a" = {age = "1d", bytes = 1}', 'channels."a": object contains unknown field bytes'),
        ("\n".join(f'"c{number}".age = "1d"' for number in range(101)), "channels: more than 100 patterns"),
    ],
)
def test_rejects_channels_with_the_pattern(write, text, message):
    file = write(f"[channels]\n{text}\n")
    with pytest.raises(SettingsError) as caught:
        read_settings(file, {})
    assert str(caught.value).startswith(f"{file}: {message}")


def test_rejects_channels_that_are_no_table(write):
    file = write('channels = "a"')
    with pytest.raises(SettingsError, match="channels: expected object, got str"):
        read_settings(file, {})


FILE = """
tcp = ["tcp:1111", "unix:/run/bridge"]
web = "none"
allow-insecure = true
allow-origin = ["https://example.org"]
allow-host = ["bridge.example"]
history-age = 60
max-line-bytes = 1024
slow-consumer = "close"
shutdown-timeout = 0.5
"""


def test_reads_settings_from_file(write):
    settings = read_settings(write(FILE), {})
    assert settings == Settings(
        tcp=("tcp:1111", "unix:/run/bridge"),
        web=("none",),
        allow_insecure=True,
        allow_origin=("https://example.org",),
        allow_host=("bridge.example",),
        history_age=60.0,
        max_line_bytes=1024,
        slow_consumer="close",
        shutdown_timeout=0.5,
    )


def test_command_line_overrides_file(write):
    given = {"tcp": ["tcp:2222"], "max-line-bytes": "2048", "slow-consumer": "skip"}
    settings = read_settings(write(FILE), given)
    assert (settings.tcp, settings.max_line_bytes, settings.slow_consumer) == (("tcp:2222",), 2048, "skip")
    assert (settings.web, settings.shutdown_timeout) == (("none",), 0.5)


def test_converts_numbers_of_the_command_line():
    settings = read_settings(None, {"history-age": "1.5", "max-connections": "7", "shutdown-timeout": "0"})
    assert (settings.history_age, settings.max_connections, settings.shutdown_timeout) == (1.5, 7, 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_accepts_each_name_in_a_file(write, name):
    value = msgspec.to_builtins(Settings())[name]
    # TOML and JSON write these values in the same way.
    assert read_settings(write(f"{name} = {json.dumps(value)}"), {}) == Settings()


def error_of(file, given):
    with pytest.raises(SettingsError) as caught:
        read_settings(file, given)
    words = str(caught.value)
    assert "\n" not in words
    assert "`" not in words
    assert "$" not in words
    return words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('colour = "blue"', "unknown option 'colour'"),
        ("drain = 5", "option 'drain' was renamed: use 'shutdown-timeout'"),
        ("max_line_bytes = 1024", "unknown option 'max_line_bytes'"),
        ("[limits]\nmax-line-bytes = 1024", "unknown option 'limits'"),
        ('max-line-bytes = "1024"', "max-line-bytes: expected int, got str"),
        ("max-line-bytes = 1", "max-line-bytes: expected int >= 512"),
        ("max-line-bytes = 1.5", "max-line-bytes: expected int"),
        ("tcp = 8081", "tcp: expected array, got int"),
        ("tcp = [8081]", "tcp"),
        ('slow-consumer = "panic"', "slow-consumer: invalid enum value 'panic'"),
        ("shutdown-timeout = -1", "shutdown-timeout: expected float >= 0.0"),
        ("shutdown-timeout = nan", "shutdown-timeout: expected float >= 0.0"),
        ("ping-timeout = 1", "ping-timeout: expected int >= 3"),
        ('allow-insecure = "yes"', "allow-insecure: expected bool, got str"),
        ("tcp = [", "is not valid TOML: "),
        (b"\xff\xfe", "is not valid TOML: "),
    ],
)
def test_error_names_invalid_setting_in_file(write, text, words):
    said = error_of(write(text), {})
    assert said.startswith(write(text))
    assert words in said


def test_rejects_invalid_value_in_file_even_if_overridden(write):
    assert "max-line-bytes" in error_of(write("max-line-bytes = 1"), {"max-line-bytes": "1024"})


def test_renamed_options_refer_to_existing_options():
    assert not RENAMED_OPTIONS.keys() & set(NAMES)
    assert set(RENAMED_OPTIONS.values()) <= set(NAMES)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max-line-bytes": "long"}, "max-line-bytes: expected int, got str"),
        ({"max-line-bytes": "1"}, "max-line-bytes: expected int >= 512"),
        ({"max-line-bytes": ""}, "max-line-bytes: expected int, got str"),
        ({"history-age": "old"}, "history-age: expected float, got str"),
        ({"slow-consumer": "panic"}, "slow-consumer: invalid enum value 'panic'"),
    ],
)
def test_error_names_invalid_option_of_command_line(given, words):
    assert error_of(None, given) == words


def test_accepts_byte_order_mark(write):
    """Some editors on Windows write it."""
    assert read_settings(write("\ufeffmax-line-bytes = 1024".encode()), {}).max_line_bytes == 1024


def test_error_names_unreadable_file(tmp_path):
    missing = tmp_path / "missing.toml"
    assert error_of(str(missing), {}) == f"cannot read {missing}: No such file or directory"
    assert error_of(str(tmp_path), {}) == f"cannot read {tmp_path}: Is a directory"


def test_accepts_proxies_as_list_or_single_value(write):
    settings = read_settings(write('tcp = "tcp:1"\nproxy-protocol = "tcp:1"\ntrusted-proxy = "10.0.0.0/8"'), {})
    assert (settings.proxy_protocol, settings.trusted_proxy) == (("tcp:1",), ("10.0.0.0/8",))
    assert trusted_proxies(settings) == parse_trusted(["10.0.0.0/8"])


def test_combines_endpoints_and_proxies_of_file_and_command_line(write):
    read_settings(write('tcp = "tcp:1"'), {"proxy-protocol": ["tcp:1"], "trusted-proxy": ["::1"]})
    read_settings(write('proxy-protocol = "tcp:1"\ntrusted-proxy = "::1"'), {"web": ["tcp:1"]})


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"trusted-proxy": ["10.0.0.1/8"]}, "trusted-proxy: '10.0.0.1/8' is not a network"),
        ({"trusted-proxy": ["nginx"]}, "trusted-proxy: 'nginx' is not an address, a network (10.0.0.0/8) or"),
        (
            {"proxy-protocol": ["tcp:8081"], "trusted-proxy": ["::1"]},
            "proxy-protocol: 'tcp:8081' is not an endpoint of tcp or web",
        ),
        ({"tcp": ["none"], "proxy-protocol": ["none"], "trusted-proxy": ["::1"]}, "proxy-protocol: 'none' is not"),
        ({"proxy-protocol": [DEFAULT_WEB[0]]}, "proxy-protocol: requires trusted-proxy"),
    ],
)
def test_error_explains_invalid_proxies(given, words):
    assert error_of(None, given).startswith(words)


def test_normalizes_origins_and_hosts(write):
    given = {"allow-origin": ["HTTPS://A.Example:443/"], "allow-host": ["https://H.Example:8082", "[::1]:8082"]}
    for settings in (
        read_settings(None, given),
        read_settings(write("\n".join(f"{n} = {given[n]}" for n in given)), {}),
    ):
        assert settings.allow_origin == ("https://a.example",)
        assert settings.allow_host == ("h.example", "::1")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("allow-origin", "*", "wildcards are not supported, write each name in full"),
        ("allow-origin", "b.example:443", "write it with its scheme, for example https://b.example"),
        ("allow-host", "h.example/page", "write a host name or an address, with an optional port"),
    ],
)
def test_rejects_origin_or_host_that_matches_nothing(write, name, value, words):
    sentence = f"{name}: invalid {name.removeprefix('allow-')} {value!r}: {words}"
    assert error_of(None, {name: [value]}) == sentence
    file = write(f'{name} = ["{value}"]')
    assert error_of(file, {}) == f"{file}: {sentence}"


def test_channel_of_socketio_must_be_valid() -> None:
    assert error_of(None, {"socketio-channel": "a b"}).startswith("socketio-channel: invalid channel: expected")
    assert read_settings(None, {"socketio-channel": "chat"}).socketio_channel == "chat"


@pytest.mark.parametrize("given", [{"tcp": ["none"], "web": ["none"]}, {"tcp": [], "web": ["none", "none"]}])
def test_rejects_settings_without_listener(write, given):
    assert error_of(None, given) == "nothing to listen on: give an endpoint for tcp or web"
    assert error_of(write("\n".join(f"{n} = {given[n]}" for n in given)), {}).startswith("nothing to listen on")
    read_settings(None, {**given, "tcp": ["none", "tcp:1"]})


def test_none_is_not_an_endpoint():
    assert listeners(("none",)) == []
    assert listeners(("tcp:1", "none", "tcp:2")) == ["tcp:1", "tcp:2"]


ACCESS = """
tcp = ["tcp:8081", "unix:/run/bridge"]
[access]
anonymous = { "news" = "r" }
[[access.key]]
id = "2026-11"
algorithm = "HS256"
file = "key"
[[access.listener]]
endpoint = "unix:/run/bridge"
allow = { ">" = "rw" }
"""


def test_reads_access_policy_from_file(write, tmp_path):
    access = read_settings(write(ACCESS), {}).access
    assert access is not None
    assert access.anonymous == {"news": "r"}
    assert access.key[0].file == str(tmp_path / "key"), "in every directory"
    assert read_settings(None, {}).access is None


def test_paths_of_keys_are_absolute(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    file = f"{tmp_path.name}/bridge.toml"
    write(ACCESS)
    assert read_settings(file, {}).access.key[0].file == str(tmp_path / "key")


def test_accepts_a_backplane_with_a_password_in_a_file(write, tmp_path):
    settings = read_settings(write('backplane = "redis://:secret@host"\nbackplane-password-file = "redis.txt"\n'), {})
    assert settings.backplane == "redis://:secret@host"
    assert settings.backplane_password_file == str(tmp_path / "redis.txt")
    given = {"backplane-password-file": "other"}
    settings = read_settings(write('backplane = "redis://host"\n'), given)
    assert settings.backplane_password_file == str(Path.cwd() / "other")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"backplane": "redis://:secret@host/x"}, "backplane: invalid address: the database must be a number"),
        ({"backplane": "nats://:secret@host"}, "backplane: invalid address: expected redis://"),
        ({"backplane": "redis://host", "state": "/state"}, "backplane and state cannot be used together"),
        ({"backplane": "redis://host", "workers": "2"}, "backplane and workers cannot be used together"),
        ({"backplane-password-file": "/file"}, "backplane-password-file: requires backplane"),
        ({"backplane-sentinel-password-file": "/file"}, "backplane-sentinel-password-file: requires backplane"),
        (
            {"backplane": "redis://host", "backplane-sentinel-password-file": "/file"},
            "backplane-sentinel-password-file: requires a backplane that begins with redis+sentinel://",
        ),
    ],
)
def test_rejects_a_backplane_that_cannot_be_used(given, words):
    with pytest.raises(SettingsError) as caught:
        read_settings(None, given)
    assert str(caught.value).startswith(words) and "secret" not in str(caught.value)


def test_rejects_rights_of_unknown_listener(write):
    """Even if the command line has other listeners."""
    place = f"{write(ACCESS)}: access.listener[0].endpoint: no listener 'unix:/run/bridge': write it "
    assert error_of(write(ACCESS), {"tcp": ["tcp:1"]}).startswith(place + "exactly as one of tcp:1, tcp:8082")
    default = ACCESS.replace("unix:/run/bridge", DEFAULT_WEB[0])
    assert read_settings(write(default), {}).access.listener[0].endpoint == DEFAULT_WEB[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("access = true", "access: expected object"),
        ("[access]\ncolour = 1", "access: object contains unknown field colour"),
        ('[access]\nanonymous = { "a b" = "r" }', "access: anonymous: invalid pattern 'a b'"),
        ('[[access.key]]\nid = "a"\nalgorithm = "HS256"\nfile = 1', "access.key[0].file: expected str, got int"),
        ('[[access.key]]\nid = "a"\nalgorithm = "none"\nfile = "k"', "access.key[0].algorithm: invalid enum value"),
        ('[[access.listener]]\nendpoint = "tcp:1"', "access.listener[0].endpoint: no listener 'tcp:1'"),
    ],
)
def test_error_names_place_in_access_table(write, text, words):
    said = error_of(write(text), {})
    assert said.startswith(write(text))
    assert words in said
