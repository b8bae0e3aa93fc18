"""What the files of a webhook hold."""

import pytest

from tests.authority import Authority
from twistedsock.webhooks.config import MAX_FILE_BYTES, WebhookError, read_targets


@pytest.fixture
def read(describe, tmp_path):
    """The target of a webhook whose secret is in a file with that content."""

    def read(content=b"0123456789abcdef", mode=0o600, **said):
        file = tmp_path / "hook.secret"
        file.write_bytes(content)
        file.chmod(mode)
        (target,) = read_targets([describe(secret=None, secret_file=str(file), **said)])
        return target

    return read


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_secret_is_a_line(read, end):
    target = read(b"0123456789abcdef" + end)
    assert (target.secret, target.warning, target.authorities) == (b"0123456789abcdef", "", None)


def test_a_secret_in_the_table(describe):
    (target,) = read_targets([describe(secret="schlüssel-schlüssel")])
    assert target.secret == "schlüssel-schlüssel".encode()
    assert "schl" not in repr(target)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_secret_that_others_can_read_is_warned_of(read, mode):
    assert read(mode=mode).warning.startswith("others than its owner can read the secret in /")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"short\n", "holds 5 bytes, and a secret has 16 or more"),
        (b"x" * (MAX_FILE_BYTES + 1), "is larger than 1,048,576 bytes"),
    ],
)
def test_what_is_no_secret_is_refused(read, content, words):
    with pytest.raises(WebhookError) as caught:
        read(content)
    assert str(caught.value).startswith("webhook[0].secret-file: /")
    assert words in str(caught.value)


def test_a_file_that_is_not_there_is_told(describe):
    with pytest.raises(WebhookError, match=r"^webhook\[1\].secret-file: cannot read /gone: No such file or directory$"):
        read_targets([describe(), describe(secret=None, secret_file="/gone")])
    with pytest.raises(WebhookError, match=r"^webhook\[0\].secret-file: cannot read .*null byte"):
        read_targets([describe(secret=None, secret_file="a\0b")])


def test_authorities(read, tmp_path):
    Authority(tmp_path)
    assert read(ca_file=str(tmp_path / "authority.pem")).authorities.startswith(b"-----BEGIN CERTIFICATE-----")
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(WebhookError, match=r"^webhook\[0\].ca-file: .*empty.pem holds no certificates as PEM"):
        read(ca_file=str(tmp_path / "empty.pem"))
