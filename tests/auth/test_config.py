"""The table ``[access]``, and errors that name the place in it."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from twistedsock.auth.config import MAX_KEYS, MAX_PATTERNS, AccessTable, KeyTable, ListenerTable, SubjectTable

WHOLE = """
anonymous = { "lobby.*" = "rw", "news" = "r" }
audience = "sockbridge"
leeway = 5
expiry-required = false
cookie = "token"
[[key]]
id = "2026-11"
algorithm = "HS256"
file = "key"
[[listener]]
endpoint = "ssl:8443"
allow = { ">" = "rw" }
client-ca = "ca.pem"
[[listener]]
endpoint = "unix:/run/sockbridge"
[[subject]]
name = "sensor-*"
allow = { "sensors.>" = "w" }
"""


def read(text):
    return msgspec.convert(tomllib.loads(text), AccessTable)


def error_of(text):
    with pytest.raises(msgspec.ValidationError) as caught:
        read(text)
    return str(caught.value)


def test_reads_complete_table():
    assert read(WHOLE) == AccessTable(
        anonymous={"lobby.*": "rw", "news": "r"},
        audience="sockbridge",
        leeway=5.0,
        expiry_required=False,
        cookie="token",
        key=(KeyTable("2026-11", "HS256", "key"),),
        listener=(
            ListenerTable("ssl:8443", {">": "rw"}, "ca.pem"),
            ListenerTable("unix:/run/sockbridge", None, None),
        ),
        subject=(SubjectTable("sensor-*", {"sensors.>": "w"}),),
    )


def test_empty_table_has_defaults():
    table = read("")
    assert (table.anonymous, table.key, table.audience, table.cookie) == ({}, (), None, None)
    assert (table.leeway, table.expiry_required) == (30.0, True)


def test_paths_are_relative_to_the_file():
    table = read(WHOLE).resolve_files(Path("/etc/bridge"))
    assert table.key[0].file == "/etc/bridge/key"
    assert table.client_ca("ssl:8443") == Path("/etc/bridge/ca.pem")
    assert table.client_ca("unix:/run/sockbridge") is table.client_ca("tcp:1") is None
    absolute = read('[[key]]\nid = "a"\nalgorithm = "ES256"\nfile = "/run/secrets/key"').resolve_files(Path("/etc"))
    assert absolute.key[0].file == "/run/secrets/key"


KEY = '[[key]]\nid = "a"\nalgorithm = "HS256"\nfile = "key"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("colour = 1", "unknown field `colour`"),
        ("anonymous = []", "Expected `object`, got `array` - at `$.anonymous`"),
        ('anonymous = { "a\u200b" = "r" }', r"invalid pattern 'a\u200b': contains the invisible character U+200B"),
        ('anonymous = { "a b" = "r" }', "anonymous: invalid pattern 'a b'"),
        ('anonymous = { "a" = "x" }', "anonymous: 'x' is no right"),
        ('anonymous = { "a" = ["r"] }', "Expected `str`, got `array` - at `$.anonymous[...]`"),
        ("leeway = -1", "Expected `float` >= 0.0 - at `$.leeway`"),
        ("leeway = 601", "Expected `float` <= 600.0 - at `$.leeway`"),
        ("leeway = nan", "- at `$.leeway`"),
        ('audience = ""', "- at `$.audience`"),
        ('audience = ["a"]', "- at `$.audience`"),
        ('cookie = "a b"', "the name of the cookie must be"),
        ('cookie = ""', "the name of the cookie must be"),
        ('cookie = "a;b"', "the name of the cookie must be"),
        ("key = {}", "- at `$.key`"),
        ('[[key]]\nid = "a"\nalgorithm = "HS256"', "missing required field `file` - at `$.key[0]`"),
        ('[[key]]\nid = "a"\nalgorithm = "none"\nfile = "x"', "Invalid enum value 'none' - at `$.key[0].algorithm`"),
        ('[[key]]\nid = "a"\nalgorithm = "HS512"\nfile = "x"', "Invalid enum value 'HS512'"),
        (KEY.replace('"a"', '""'), "the id must be 1 to 64 visible ASCII characters - at `$.key[0]`"),
        (KEY.replace('"a"', '"a b"'), "the id must be"),
        (KEY + KEY, "repeated key id 'a'"),
        ('[[listener]]\nallow = { ">" = "r" }', "missing required field `endpoint`"),
        ('[[listener]]\nendpoint = "tcp:1"\nallow = { "" = "r" }', "allow: invalid pattern ''"),
        ('[[listener]]\nendpoint = "tcp:1"\nclient-ca = "ca"', "client-ca requires an endpoint that begins with ssl:"),
        ('[[listener]]\nendpoint = "tcp:1"\n' * 2, "repeated listener 'tcp:1'"),
        ('[[subject]]\nname = "a"', "missing required field `allow`"),
        ('[[subject]]\nname = ""\nallow = {}', "the name must be 1 to 200 bytes"),
        ('[[subject]]\nname = "a\u200b*"\nallow = {}', "the name must be 1 to 200 bytes"),
        ('[[subject]]\nname = "~a"\nallow = {}', "the name must be 1 to 200 bytes"),
        ('[[subject]]\nname = "a"\nallow = { "#" = "r" }', "allow: invalid pattern '#'"),
        ('[[subject]]\nname = "a"\nallow = {}\n' * 2, "repeated subject 'a'"),
    ],
)
def test_error_names_invalid_value(text, words):
    assert words in error_of(text)


def test_rejects_too_many_keys_or_patterns():
    keys = "".join(KEY.replace('"a"', f'"{number}"') for number in range(MAX_KEYS))
    assert len(read(keys).key) == MAX_KEYS
    assert "- at `$.key`" in error_of(keys + KEY)
    patterns = ",".join(f'"c{number}" = "r"' for number in range(MAX_PATTERNS + 1))
    assert "- at `$.anonymous`" in error_of(f"anonymous = {{ {patterns} }}")
