"""Key files: each key is accepted for its own algorithm only, and each error is one sentence."""

from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa

from twistedsock.auth.keys import ALGORITHMS, MAX_FILE_BYTES, AccessError, read_key, read_signing_key, verification_key


def error_of(read, *arguments):
    with pytest.raises(AccessError) as caught:
        read(*arguments)
    words = str(caught.value)
    assert "\n" not in words
    assert words[-1] != "."
    return words


@pytest.fixture
def write(tmp_path):
    def write(content, mode=0o600):
        file = tmp_path / "file"
        file.write_bytes(content)
        file.chmod(mode)
        return file

    return write


def pem_of(private, password=None):
    how = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def public_pem_of(private):
    written = serialization.PublicFormat.SubjectPublicKeyInfo
    return private.public_key().public_bytes(serialization.Encoding.PEM, written)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_reads_key_of_each_algorithm(keyring, algorithm):
    key = keyring.key(algorithm, "2026-11")
    assert (key.id, key.algorithm, key.warning) == ("2026-11", algorithm, "")
    assert len(bytes.fromhex(key.fingerprint)) == 32


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_detects_algorithm_of_signing_key(keyring, algorithm):
    signing = read_signing_key(None, keyring.folder / algorithm)
    assert signing.algorithm == algorithm
    assert signing.fingerprint == keyring.key(algorithm).fingerprint
    assert verification_key(signing, "x").fingerprint == signing.fingerprint


def test_fingerprint_depends_on_key_and_algorithm(keyring, write):
    prints = {keyring.key(algorithm).fingerprint for algorithm in ALGORITHMS}
    assert len(prints) == 4
    assert read_key("x", "HS256", write(keyring.secret[:-1] + b"!")).fingerprint not in prints
    assert read_key("x", "HS256", write(keyring.secret)).fingerprint in prints, "the id does not count"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_repr_of_key_hides_secret(keyring, algorithm):
    for key in (keyring.key(algorithm), keyring.signing(algorithm)):
        assert keyring.secret.decode() not in repr(key) + str(key) + f"{[key]}"
        assert algorithm in repr(key)


@pytest.mark.parametrize("secret", [bytes(range(200, 232)), b"s" * 31 + b"\n"])
def test_removes_one_line_end_of_secret(write, secret):
    assert read_key("x", "HS256", write(secret + b"\n")).material == secret


@pytest.mark.parametrize("content", [b"", b"\n", b"s" * 31, b"s" * 31 + b"\n"])
def test_rejects_short_secret(write, content):
    length = len(content.strip())
    words = error_of(read_key, "x", "HS256", write(content))
    assert words.endswith(f"contains {length} bytes, but a secret for HS256 needs at least 32")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_rejects_public_or_private_key_as_secret(keyring, algorithm):
    """Otherwise, every owner of the public key could sign tokens."""
    words = error_of(read_key, "x", "HS256", keyring.folder / f"{algorithm}.pub")
    assert "contains a public key, but HS256 needs a secret" in words
    assert "contains a private key" in error_of(read_key, "x", "HS256", keyring.folder / algorithm)


def test_rejects_other_formats_of_public_key_as_secret(write):
    public = rsa.generate_private_key(65537, 2048).public_key()
    openssh, der = serialization.Encoding.OpenSSH, serialization.Encoding.DER
    written = [
        public.public_bytes(openssh, serialization.PublicFormat.OpenSSH),
        public.public_bytes(der, serialization.PublicFormat.SubjectPublicKeyInfo),
        b'{"kty":"RSA","n":"AQABAQABAQABAQABAQABAQABAQAB","e":"AQAB"}',
    ]
    for content in written:
        assert "contains another type of key" in error_of(read_key, "x", "HS256", write(content))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_rejects_private_key_where_public_key_is_needed(keyring, algorithm):
    words = error_of(read_key, "x", algorithm, keyring.folder / algorithm)
    assert "contains a private key" in words and "openssl pkey" in words


def test_rejects_private_key_after_public_key(keyring, write):
    both = (keyring.folder / "ES256.pub").read_bytes() + (keyring.folder / "ES256").read_bytes()
    assert "contains a private key" in error_of(read_key, "x", "ES256", write(both))


def test_rejects_file_with_several_keys(keyring, write):
    twice = (keyring.folder / "ES256.pub").read_bytes() * 2
    assert "contains 2 keys instead of one" in error_of(read_key, "x", "ES256", write(twice))


def test_rejects_certificate(write):
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), 1)
        .not_valid_before(datetime(2020, 1, 1))
        .not_valid_after(datetime(2040, 1, 1))
        .sign(private, hashes.SHA256())
    )
    content = certificate.public_bytes(serialization.Encoding.PEM)
    assert "contains a certificate. Use its public key: openssl x509" in error_of(
        read_key, "x", "ES256", write(content)
    )
    assert "contains a certificate, but HS256" in error_of(read_key, "x", "HS256", write(content))


def test_rejects_public_key_of_another_algorithm(keyring):
    def found(algorithm, file):
        return error_of(read_key, "x", algorithm, keyring.folder / f"{file}.pub").partition(" contains ")[2]

    assert found("RS256", "ES256") == "a key on the curve secp256r1, but RS256 needs RSA with at least 2048 bits"
    assert found("RS256", "EdDSA") == "an Ed25519 key, but RS256 needs RSA with at least 2048 bits"
    assert found("ES256", "RS256") == "an RSA key of 2048 bits, but ES256 needs one on P-256 (secp256r1)"
    assert found("EdDSA", "ES256") == "a key on the curve secp256r1, but EdDSA needs Ed25519"
    assert "no public key in PEM" in found("ES256", "HS256")


@pytest.mark.parametrize(
    ("algorithm", "private", "words"),
    [
        ("RS256", lambda: rsa.generate_private_key(65537, 1024), "an RSA key of 1024 bits, but RS256"),
        ("ES256", lambda: ec.generate_private_key(ec.SECP384R1()), "a key on the curve secp384r1, but ES256"),
        ("ES256", lambda: ec.generate_private_key(ec.SECP256K1()), "a key on the curve secp256k1, but ES256"),
        ("EdDSA", ed448.Ed448PrivateKey.generate, "a key that is for none of"),
        ("RS256", lambda: dsa.generate_private_key(2048), "a key that is for none of"),
    ],
)
def test_rejects_weak_or_unsupported_key(write, algorithm, private, words):
    made = private()
    assert words in error_of(read_key, "x", algorithm, write(public_pem_of(made)))
    assert words in error_of(read_signing_key, algorithm, write(pem_of(made)))


@pytest.mark.parametrize("label", [b"PUBLIC KEY", b"RSA PUBLIC KEY", b"NONSENSE"])
def test_rejects_damaged_key(write, label):
    content = b"-----BEGIN " + label + b"-----\nAAAA\n-----END " + label + b"-----\n"
    assert "contains a damaged key" in error_of(read_key, "x", "RS256", write(content))


def test_rejects_encrypted_key(write):
    content = pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret")
    assert "is encrypted with a password" in error_of(read_signing_key, "ES256", write(content))


def test_rejects_public_key_for_signing(keyring):
    assert "contains a public key" in error_of(read_signing_key, None, keyring.folder / "ES256.pub")
    assert "contains no private key" in error_of(read_signing_key, "ES256", keyring.folder / "HS256")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_rejects_unreadable_or_large_file(write, algorithm):
    """test_secret_files.py tests the ways in which a file cannot be read."""
    assert error_of(read_key, "x", algorithm, Path("/none")) == "cannot read /none: No such file or directory"
    assert "is not a key file" in error_of(read_key, "x", algorithm, write(b"s" * (MAX_FILE_BYTES + 1)))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o444, 0o660])
def test_warns_of_secret_that_other_users_can_read(keyring, write, mode):
    file = write(keyring.secret, mode)
    words = f"users other than the owner can read the secret in {file} (mode {mode:04o}): chmod 600"
    assert read_key("x", "HS256", file).warning == words
    assert read_signing_key("HS256", file).warning == words


def test_warns_of_public_key_that_other_users_can_write(keyring, write):
    content = (keyring.folder / "ES256.pub").read_bytes()
    assert read_key("x", "ES256", write(content, 0o644)).warning == ""
    assert "users other than the owner can replace the key" in read_key("x", "ES256", write(content, 0o664)).warning
