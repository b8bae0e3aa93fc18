"""`sockbridge check`: the report, its warnings and its errors."""

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
def check(run_command, configure):
    """Check a configuration file, and return the exit status and the report."""

    def check(*parts):
        outcome = run_command("check", configure(*parts))
        assert outcome.errors == ""
        return outcome.status, outcome.out

    return check


def test_explains_defaults(check):
    status, words = check("")
    assert status == 0
    memory = words[words.index("Memory") :]
    assert words == (
        "Listeners\n"
        "  lines on 127.0.0.1, port 8081: only this machine can connect, no TLS\n"
        "  web on 127.0.0.1, port 8082: only this machine can connect, no TLS\n"
        "Rights\n"
        "  every client: everything, because there is no [access]\n"
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


def test_explains_complete_file(check, run_command, tmp_path):
    Authority(tmp_path).issue("server", "localhost")
    status, words = check(WHOLE, run_command("keygen", "--id", "2026-11").out)
    assert status == 0
    *lines, key, title, tokens = words.partition("Memory")[0].splitlines()
    assert lines == [
        "Listeners",
        "  lines on 127.0.0.1, port 8081: only this machine can connect, no TLS",
        "  lines on /run/bridge: its file permissions decide which users can connect, no TLS",
        "  lines on a socket of systemd: its socket unit decides which machines can connect, no TLS",
        "  web on every address, port 8443: other machines can connect, TLS, client certificate required",
        "Rights",
        "  without a token: read news, weather; publish on logs.>; read and publish on lobby.*",
        "  without a token, at unix:/run/bridge:mode=660: read and publish on every channel",
        "  with a token: in addition, its claim channels; everything with the claim admin",
        "  with a client certificate: in addition, the rights of its common name",
        "  sensor-*, by token or certificate: in addition, publish on sensors.>",
        "Keys",
    ]
    assert key.startswith(f"  2026-11: HS256, {tmp_path}/key, fingerprint ")
    assert len(key.rpartition(" ")[2]) == 8
    assert (title, tokens) == (
        "Tokens",
        "  must expire, leeway 30 s, audience here, also accepted in the cookie session",
    )


@pytest.mark.parametrize("tls", [False, True])
def test_shows_maximum_memory(check, tmp_path, tls):
    Authority(tmp_path).issue("server", "localhost")
    end = "ssl:1:interface=127.0.0.1:privateKey=server.key:certKey=server.pem" if tls else "none"
    for access in ("", '[access]\nanonymous = { "a" = "r" }'):
        _, words = check("max-connections = 100", f'web = "{end}"', access)
        total = re.search(r"^Memory\n  at most ([\d,]+) MiB if all limits are reached .*100 connections", words, re.M)
        assert total is not None, words
        most = estimate_memory(Limits(max_connections=100), tls).total
        parts = re.findall(r"([\d,]+) for ", total[0] + words[total.end() :])
        sums = [int(number.replace(",", "")) for number in (total[1], *parts)]
        assert abs(sums[0] - most / 2**20) <= 0.5 and abs(sums[0] - sum(sums[1:])) <= len(parts)


def test_shows_that_each_worker_needs_memory(check):
    _, words = check("workers = 4")
    assert "\n  up to 4 times this, for each worker, and the history once more in the hub\n" in words


def test_opens_no_port(check, tmp_path):
    check('tcp = "unix:socket"\nweb = "none"')
    assert os.listdir(tmp_path) == ["sockbridge.toml"]


def test_public_listener_without_policy_is_an_error(check):
    status, words = check(PUBLIC)
    error = "The server would not start\n  tcp:8081 accepts clients from other machines without an access policy: "
    assert status == 1 and error in words
    status, words = check("allow-insecure = true", PUBLIC)
    warning = "Warnings\n  tcp:8081 gives all rights to clients from other machines (allow-insecure)"
    assert status == 0 and warning in words
    assert check(PUBLIC, '[access]\nanonymous = { "a" = "r" }')[0] == 0


@pytest.mark.parametrize(
    ("access", "words"),
    [
        ("", "no client has any rights: configure anonymous, a key or a listener"),
        ('anonymous = { ">" = "w" }', "tcp:8081 lets clients without a token publish on every channel"),
        ('anonymous = { "*>" = "rw" }', "tcp:8081 lets clients without a token publish on every channel"),
        ("expiry-required = false", "revoking a token that never expires requires a new key"),
        ('[[access.subject]]\nname = "a"\nallow = { "b" = "r" }', "the rights of subjects have no effect"),
    ],
)
def test_warns_of_risky_policy(check, access, words):
    status, said = check(PUBLIC, "[access]", access)
    assert status == 0
    assert words in said.partition("Warnings")[2]


def test_clients_of_trusted_proxy_are_remote(check):
    web = 'web = "tcp:8082:interface=127.0.0.1"\ntcp = ["tcp:1:interface=127.0.0.1", "tcp:2:interface=127.0.0.1"]'
    proxy = 'trusted-proxy = "127.0.0.1"\nproxy-protocol = "tcp:2:interface=127.0.0.1"'
    status, words = check(web, proxy, '[access]\nanonymous = { ">" = "rw" }')
    assert status == 0
    brought = [line for line in words.splitlines() if ", trusted proxies connect for other machines, no TLS" in line]
    assert [line.split(":")[0] for line in brought] == ["  lines on 127.0.0.1, port 2", "  web on 127.0.0.1, port 8082"]
    assert words.partition("Warnings")[2].count("lets clients without a token publish on every channel") == 2


def test_warns_of_certificates_without_rights(check, tmp_path):
    Authority(tmp_path).issue("server", "localhost")
    end = "ssl:1:privateKey=server.key:certKey=server.pem"
    access = f'tcp = "{end}"\nweb = "none"\n[[access.listener]]\nendpoint = "{end}"\nclient-ca = "authority.pem"\n'
    assert "no client has any rights" in check(access)[1]
    subject = '[[access.subject]]\nname = "*"\nallow = { ">" = "r" }'
    assert "Warnings" not in check(access, subject)[1]


@pytest.mark.parametrize(
    ("listens", "access", "warns"),
    [
        (LOCAL, 'anonymous = { ">" = "rw" }', False),
        (PUBLIC, 'anonymous = { ">" = "rw" }\n[[access.listener]]\nendpoint = "tcp:8081"\nallow = { a = "rw" }', False),
        (PUBLIC, '[[access.listener]]\nendpoint = "tcp:8081"\nallow = { ">" = "rw" }', True),
    ],
    ids=["local", "the listener has fewer rights", "the listener has more rights"],
)
def test_warns_of_public_listener_where_every_client_can_publish(check, listens, access, warns):
    _, words = check(listens, "[access]", access)
    assert ("lets clients without a token publish" in words) is ("Warnings" in words) is warns


def test_warns_of_tokens_without_encryption(check, run_command):
    key = run_command("keygen").out
    assert "tcp:8081 receives tokens without encryption" in check(PUBLIC, key)[1]
    assert "without encryption" not in check(LOCAL, key)[1]


def test_warns_of_key_file_that_other_users_can_read(check, run_command):
    key = run_command("keygen").out
    Path("key").chmod(0o644)
    assert "users other than the owner can read the secret in" in check(LOCAL, key)[1].partition("Warnings")[2]


def test_warns_of_allow_insecure_with_policy(check):
    assert "allow-insecure has no effect with [access]" in check("allow-insecure = true", LOCAL, "[access]")[1]


def test_unreadable_key_is_an_error(check, run_command):
    key = run_command("keygen").out
    Path("key").unlink()
    status, words = check(LOCAL, key)
    assert status == 1
    assert "The server would not start\n  access.key[0].file: cannot read " in words


@pytest.mark.parametrize("endpoint", ["pigeon:1", "tcp:", "ssl:1:privateKey=none.key:certKey=none.pem"])
def test_invalid_endpoint_is_an_error(check, endpoint):
    status, words = check(f'tcp = "{endpoint}"\nweb = "none"')
    assert status == 1
    assert f"The server would not start\n  cannot use the endpoint '{endpoint}': " in words
    assert "Listeners\n  none\n" in words


def test_reports_all_errors(check):
    _, words = check('tcp = ["pigeon:1", "tcp:8081"]')
    assert len(words.partition("would not start\n")[2].splitlines()) == 2


def test_error_names_unreadable_file_or_unknown_option(error_of, configure):
    assert error_of("check", "x.toml") == "cannot read x.toml: No such file or directory"
    assert "unknown option 'colour'" in error_of("check", configure("colour = 1"))


def test_warns_of_expired_certificate(check, tmp_path):
    Authority(tmp_path).issue("server", "localhost", until=datetime(2021, 1, 1, tzinfo=UTC))
    _, words = check('tcp = "none"\nweb = "ssl:8443:interface=127.0.0.1:privateKey=server.key:certKey=server.pem"')
    assert "server.pem expired at 2021-01-01" in words.partition("Warnings")[2]


def test_trusted_proxy_without_policy_is_an_error(check):
    status, words = check('trusted-proxy = "127.0.0.1"', LOCAL)[:2]
    assert status == 1 and "trusted-proxy accepts clients from other machines without an access policy" in words
    status, words = check('trusted-proxy = "127.0.0.1"', "allow-insecure = true", LOCAL)[:2]
    assert status == 0 and "trusted-proxy gives all rights to clients from other machines" in words


HOOK = '[[webhook]]\nurl = "https://example.org/hook?key=1"\nevents = ["channel-occupied", "event-published"]\n'
INLINE = 'secret = "0123456789abcdef"\n'


def webhooks_in(words):
    return re.search(r"^Webhooks\n((?:  .*\n)*)", words, re.M)[1]


def test_explains_webhooks(check, tmp_path):
    (tmp_path / "sockbridge.toml").touch(0o600)
    status, words = check(LOCAL, HOOK, INLINE, 'name = "office"\nchannels = ["kitchen.*", "$sys/closed"]')
    assert status == 0
    assert webhooks_in(words) == (
        "  office: https://example.org/hook?…\n"
        "    channels: kitchen.*, $sys/closed\n"
        "    events: channel-occupied, event-published\n"
        "    queue: up to 10,000 events and 8.0 MiB\n"
    )
    assert "Warnings" not in words
    assert "0123456789" not in words
    for access in ("", '[access]\nanonymous = { "a" = "r" }\n'):
        assert "    channels: every channel outside $sys/\n" in webhooks_in(check(LOCAL, access, HOOK, INLINE)[1])
    assert "Webhooks" not in check(LOCAL)[1]


def test_warns_of_webhook_without_encryption(check):
    for host, is_dangerous in (("example.org", True), ("10.1.2.3", True), ("localhost:9000", False), ("[::1]", False)):
        _, words = check(LOCAL, HOOK.replace("https://example.org", f"http://{host}"), INLINE)
        assert (f"webhook {host} sends events without encryption: use https" in words) is is_dangerous


def test_warns_of_webhook_secret_that_other_users_can_read(check, tmp_path):
    file = tmp_path / "sockbridge.toml"
    file.touch(0o600)
    assert "Warnings" not in check(LOCAL, HOOK, INLINE)[1]
    file.chmod(0o644)
    words = "users other than the owner can read sockbridge.toml, which contains the secret of a webhook"
    assert words in check(LOCAL, HOOK, INLINE)[1]
    secret = tmp_path / "hook.secret"
    secret.write_text("0123456789abcdef")
    secret.chmod(0o644)
    _, words = check(LOCAL, HOOK, 'secret-file = "hook.secret"')
    assert f"users other than the owner can read the secret in {secret} (mode 0644): chmod 600" in words
    assert "the secret of a webhook" not in words


def test_explains_the_backplane_without_its_password(check, tmp_path):
    (tmp_path / "sockbridge.toml").touch(0o600)
    for url, words in (
        ("redis://:secret@10.1.2.3:6380/2", "10.1.2.3:6380, database 2: no TLS"),
        ("rediss://ann:secret@redis.example", "redis.example:6379, database 0: TLS"),
        ("unix://:secret@/run/redis.sock", "/run/redis.sock, database 0: Unix socket"),
        ("redis+cluster://:secret@10.1.2.3,a:1", "the Cluster of 10.1.2.3:6379,a:1, database 0: no TLS"),
        ("redis+sentinel://:secret@10.1.2.3,10.1.2.4:1/main", "main of 10.1.2.3:26379,10.1.2.4:1, database 0: no TLS"),
    ):
        status, shown = check(LOCAL, f'backplane = "{url}"')
        assert status == 0 and f"Backplane\n  Redis at {words}\n" in shown and "secret" not in shown
        is_warned = "backplane sends events and the password without encryption" in shown
        assert is_warned is url.startswith(("redis:", "redis+"))
        assert "the password of Redis" not in shown
    (tmp_path / "sockbridge.toml").chmod(0o644)
    words = "users other than the owner can read sockbridge.toml, which contains the password of Redis: chmod 600"
    assert words in check(LOCAL, 'backplane = "redis://:secret@localhost"')[1]


def test_missing_file_of_webhook_is_an_error(check, tmp_path):
    status, words = check(LOCAL, HOOK, 'secret-file = "gone"')
    assert status == 1
    assert f"The server would not start\n  webhook[0].secret-file: cannot read {tmp_path}/gone: No such file" in words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[[webhook]]\nurl = "http://a..b/"\nevents = ["event-published"]\n' + INLINE, "webhook[0]: the"),
        ('allow-origin = ["*"]', "allow-origin: invalid origin '*'"),
        ('allow-host = ["h.example/page"]', "allow-host: invalid host 'h.example/page'"),
        ('tcp = "none"\nweb = "none"', "nothing to listen on"),
        ('tcp = "8081"', "cannot use the endpoint '8081': write tcp:8081:interface=127.0.0.1"),
        ('tcp = "tcp:65536"', "cannot use the endpoint 'tcp:65536': invalid port 65536"),
    ],
)
def test_invalid_settings_are_errors(run_command, configure, text, words):
    outcome = run_command("check", configure(text))
    assert outcome.status == 1
    assert words in outcome.out + outcome.errors
