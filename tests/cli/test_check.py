"""`sockbridge check` says in plain words what a file allows whom, and whether a bridge would start with it."""

import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.authority import Authority
from twistedsock.cli.memory_estimate import estimate_memory
from twistedsock.limits.settings import Limits

LOCAL = 'tcp = "tcp:8081:interface=127.0.0.1"\nweb = "none"'
PUBLIC = 'tcp = "tcp:8081"\nweb = "none"'


@pytest.fixture
def told(say, configure):
    """Status and words."""

    def told(*parts):
        outcome = say("check", configure(*parts))
        assert outcome.errors == ""
        return outcome.status, outcome.out

    return told


def test_the_defaults(told):
    status, words = told("")
    assert status == 0
    memory = words[words.index("Memory") :]
    assert words == (
        "Listeners\n"
        "  lines on 127.0.0.1, port 8081; only this machine can reach it, no TLS\n"
        "  web on 127.0.0.1, port 8082; only this machine can reach it, no TLS\n"
        "Who may do what\n"
        "  everybody: everything, as there is no [access]\n"
        f"{memory}"
    )


WHOLE = """
tcp = ["tcp:8081:interface=127.0.0.1", "unix:/run/bridge:mode=660", "systemd:domain=INET:index=0"]
web = "ssl:8443:privateKey=server.key:certKey=server.pem"
[access]
anonymous = { "lobby.*" = "rw", "news" = "r", "weather" = "r", "logs.>" = "w" }
audience = "here"
cookie = "session"
[[access.listener]]
endpoint = "unix:/run/bridge:mode=660"
allow = { ">" = "rw" }
[[access.listener]]
endpoint = "ssl:8443:privateKey=server.key:certKey=server.pem"
client-ca = "authority.pem"
[[access.subject]]
name = "sensor-*"
allow = { "sensors.>" = "w" }
"""


def test_all_of_it(told, say, tmp_path):
    Authority(tmp_path).issue("server", "localhost")
    status, words = told(WHOLE, say("keygen", "--id", "2026-11").out)
    assert status == 0
    *lines, key, title, tokens = words.partition("Memory")[0].splitlines()
    assert lines == [
        "Listeners",
        "  lines on 127.0.0.1, port 8081; only this machine can reach it, no TLS",
        "  lines on /run/bridge; its file rights say who can reach it, no TLS",
        "  lines on where the socket unit of systemd says, no TLS",
        "  web on every address, port 8443; other machines can reach it, TLS, clients need a certificate",
        "Who may do what",
        "  without a token: read news, weather; publish on logs.>; read and publish on lobby.*",
        "  without a token, at unix:/run/bridge:mode=660: read and publish on every channel",
        "  with a token: that, and what its claim channels says; with admin in it, everything",
        "  with a certificate: that, and what is said of its common name",
        "  sensor-*, by token or certificate: also publish on sensors.>",
        "Keys",
    ]
    assert key.startswith(f"  2026-11: HS256, {tmp_path}/key, fingerprint ")
    assert len(key.rpartition(" ")[2]) == 8
    assert (title, tokens) == (
        "Tokens",
        "  must expire; 30 s of leeway; for the audience here; also in the cookie session",
    )


@pytest.mark.parametrize("tls", [False, True])
def test_the_most_memory_is_told(told, tmp_path, tls):
    Authority(tmp_path).issue("server", "localhost")
    end = "ssl:1:interface=127.0.0.1:privateKey=server.key:certKey=server.pem" if tls else "none"
    for access in ("", '[access]\nanonymous = { "a" = "r" }'):
        _, words = told("max-connections = 100", f'web = "{end}"', access)
        total = re.search(r"^Memory\n  at most ([\d,]+) MiB, with every limit reached .*100 connections", words, re.M)
        assert total is not None, words
        most = estimate_memory(Limits(max_connections=100), tls).total
        parts = re.findall(r"([\d,]+) for ", total[0] + words[total.end() :])
        sums = [int(number.replace(",", "")) for number in (total[1], *parts)]
        assert abs(sums[0] - most / 2**20) <= 0.5 and abs(sums[0] - sum(sums[1:])) <= len(parts)


def test_nothing_is_opened(told, tmp_path):
    told('tcp = "unix:socket"\nweb = "none"')
    assert os.listdir(tmp_path) == ["sockbridge.toml"]


def test_a_public_listener_without_a_policy_keeps_a_bridge_from_starting(told):
    status, words = told(PUBLIC)
    assert status == 1
    assert "A bridge would not start\n  tcp:8081 would let other machines in, and nobody is asked" in words
    assert told("allow-insecure = true", PUBLIC)[0] == 0
    assert (
        "Dangers\n  whoever reaches tcp:8081 may do everything, as allow-insecure = true"
        in told("allow-insecure = true", PUBLIC)[1]
    )
    assert told(PUBLIC, '[access]\nanonymous = { "a" = "r" }')[0] == 0


@pytest.mark.parametrize(
    ("access", "words"),
    [
        ("", "nobody may do anything: there is no key, and nothing is said of those without a token"),
        ('anonymous = { ">" = "w" }', "whoever reaches tcp:8081 may publish on every channel without a token"),
        ('anonymous = { "*>" = "rw" }', "whoever reaches tcp:8081 may publish on every channel without a token"),
        ("expiry-required = false", "a token without an end can be taken back only with its key"),
        ('[[access.subject]]\nname = "a"\nallow = { "b" = "r" }', "nobody can prove to be one of the subjects"),
    ],
)
def test_dangers(told, access, words):
    status, said = told(PUBLIC, "[access]", access)
    assert status == 0
    assert words in said.partition("Dangers")[2]


def test_those_whom_a_proxy_brings_are_strangers(told):
    web = 'web = "tcp:8082:interface=127.0.0.1"\ntcp = ["tcp:1:interface=127.0.0.1", "tcp:2:interface=127.0.0.1"]'
    proxy = 'trusted-proxy = "127.0.0.1"\nproxy-protocol = "tcp:2:interface=127.0.0.1"'
    status, words = told(web, proxy, '[access]\nanonymous = { ">" = "rw" }')
    assert status == 0
    brought = [line for line in words.splitlines() if ", and a trusted proxy brings others, no TLS" in line]
    assert [line.split(";")[0] for line in brought] == ["  lines on 127.0.0.1, port 2", "  web on 127.0.0.1, port 8082"]
    assert words.partition("Dangers")[2].count("may publish on every channel without a token") == 2


def test_certificates_without_rights_are_told(told, tmp_path):
    Authority(tmp_path).issue("server", "localhost")
    end = "ssl:1:privateKey=server.key:certKey=server.pem"
    access = f'tcp = "{end}"\nweb = "none"\n[[access.listener]]\nendpoint = "{end}"\nclient-ca = "authority.pem"\n'
    assert "nobody may do anything" in told(access)[1]
    subject = '[[access.subject]]\nname = "*"\nallow = { ">" = "r" }'
    assert "Dangers" not in told(access, subject)[1]


def test_a_loopback_may_be_trusted(told):
    assert "Dangers" not in told(LOCAL, '[access]\nanonymous = { ">" = "rw" }')[1]


def test_what_a_listener_allows_counts_for_it(told):
    strict = '[access]\nanonymous = { ">" = "rw" }\n[[access.listener]]\nendpoint = "tcp:8081"\nallow = { "a" = "rw" }'
    assert "publish on every channel without" not in told(PUBLIC, strict)[1]
    lax = '[access]\n[[access.listener]]\nendpoint = "tcp:8081"\nallow = { ">" = "rw" }'
    assert "publish on every channel without" in told(PUBLIC, lax)[1]


def test_tokens_in_clear_are_a_danger(told, say):
    key = say("keygen").out
    assert "tokens travel to tcp:8081 in clear" in told(PUBLIC, key)[1]
    assert "in clear" not in told(LOCAL, key)[1]


def test_a_secret_that_others_can_read_is_a_danger(told, say):
    key = say("keygen").out
    Path("key").chmod(0o644)
    assert "others than its owner can read the secret in" in told(LOCAL, key)[1].partition("Dangers")[2]


def test_open_and_access_are_too_much(told):
    assert "allow-insecure = true is not needed with [access]" in told("allow-insecure = true", LOCAL, "[access]")[1]


def test_a_key_that_cannot_be_read_keeps_a_bridge_from_starting(told, say):
    key = say("keygen").out
    Path("key").unlink()
    status, words = told(LOCAL, key)
    assert status == 1
    assert "A bridge would not start\n  access.key[0].file: cannot read " in words


@pytest.mark.parametrize("endpoint", ["pigeon:1", "tcp:", "ssl:1:privateKey=none.key:certKey=none.pem"])
def test_an_endpoint_that_is_none_keeps_a_bridge_from_starting(told, endpoint):
    status, words = told(f'tcp = "{endpoint}"\nweb = "none"')
    assert status == 1
    assert f"A bridge would not start\n  cannot use the endpoint '{endpoint}': " in words
    assert "Listeners\n  none\n" in words


def test_all_that_keeps_a_bridge_from_starting_is_told(told):
    _, words = told('tcp = ["pigeon:1", "tcp:8081"]')
    assert len(words.partition("would not start\n")[2].splitlines()) == 2


def test_a_file_that_is_none_is_told(refused, configure):
    assert refused("check", "x.toml") == "cannot read x.toml: No such file or directory"
    assert "unknown option 'colour'" in refused("check", configure("colour = 1"))


def test_a_certificate_that_has_ended_is_a_danger(told, tmp_path):
    Authority(tmp_path).issue("server", "localhost", until=datetime(2021, 1, 1, tzinfo=UTC))
    _, words = told('tcp = "none"\nweb = "ssl:8443:interface=127.0.0.1:privateKey=server.key:certKey=server.pem"')
    assert "server.pem expired at 2021-01-01" in words.partition("Dangers")[2]


def test_a_proxy_that_lets_the_world_in_is_noticed(told):
    status, words = told('trusted-proxy = "127.0.0.1"', LOCAL)[:2]
    assert status == 1 and "trusted-proxy would let other machines in" in words
    status, words = told('trusted-proxy = "127.0.0.1"', "allow-insecure = true", LOCAL)[:2]
    assert status == 0 and "whoever comes through a trusted-proxy may do everything" in words


HOOK = '[[webhook]]\nurl = "https://example.org/hook?key=1"\nevents = ["channel-occupied", "event-published"]\n'
INLINE = 'secret = "0123456789abcdef"\n'


def webhooks_in(words):
    return re.search(r"^Webhooks\n((?:  .*\n)*)", words, re.M)[1]


def test_whom_the_bridge_tells_what(told, tmp_path):
    (tmp_path / "sockbridge.toml").touch(0o600)
    status, words = told(LOCAL, HOOK, INLINE, 'name = "office"\nchannels = ["kitchen.*", "$sys/closed"]')
    assert status == 0
    assert webhooks_in(words) == (
        "  office: tells https://example.org/hook?…\n"
        "    of kitchen.*, $sys/closed: channel-occupied, event-published\n"
        "    up to 10,000 events, or 8.0 MiB, wait for it\n"
    )
    assert "Dangers" not in words
    assert "0123456789" not in words
    for access in ("", '[access]\nanonymous = { "a" = "r" }\n'):
        assert "    of every channel but the server's own: " in webhooks_in(told(LOCAL, access, HOOK, INLINE)[1])
    assert "Webhooks" not in told(LOCAL)[1]


def test_what_is_told_in_clear_is_dangerous(told):
    for host, is_dangerous in (("example.org", True), ("10.1.2.3", True), ("localhost:9000", False), ("[::1]", False)):
        _, words = told(LOCAL, HOOK.replace("https://example.org", f"http://{host}"), INLINE)
        assert (f"what webhook {host} tells travels in clear: use https" in words) is is_dangerous


def test_a_secret_that_others_can_read_is_dangerous(told, tmp_path):
    file = tmp_path / "sockbridge.toml"
    file.touch(0o600)
    assert "Dangers" not in told(LOCAL, HOOK, INLINE)[1]
    file.chmod(0o644)
    assert "others than its owner can read sockbridge.toml, and the secret of a webhook" in told(LOCAL, HOOK, INLINE)[1]
    secret = tmp_path / "hook.secret"
    secret.write_text("0123456789abcdef")
    secret.chmod(0o644)
    _, words = told(LOCAL, HOOK, 'secret-file = "hook.secret"')
    assert f"others than its owner can read the secret in {secret} (mode 0644): chmod 600" in words
    assert "a webhook in it" not in words


def test_a_webhook_without_its_files_keeps_a_bridge_from_starting(told, tmp_path):
    status, words = told(LOCAL, HOOK, 'secret-file = "gone"')
    assert status == 1
    assert f"A bridge would not start\n  webhook[0].secret-file: cannot read {tmp_path}/gone: No such file" in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '[[webhook]]\nurl = "http://a..b/"\nevents = ["event-published"]\nsecret = "0123456789abcdef"',
            "webhook[0]: the",
        ),
        ('allow-origin = ["*"]', "allow-origin: invalid origin '*'"),
        ('allow-host = ["h.example/page"]', "allow-host: invalid host 'h.example/page'"),
        ('tcp = "none"\nweb = "none"', "nothing to listen on"),
        ('tcp = "8081"', "cannot use the endpoint '8081': write tcp:8081:interface=127.0.0.1"),
        ('tcp = "tcp:65536"', "cannot use the endpoint 'tcp:65536': 65536 is no port"),
    ],
)
def test_what_no_server_would_start_with_is_a_fault(say, configure, text, words):
    outcome = say("check", configure(text))
    assert outcome.status == 1
    assert words in outcome.out + outcome.errors
