"""A key is taken only for what it is, and what is wrong with a file is said in one sentence."""

import os
from datetime import datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa

from twistedsock.auth.keys import ALGORITHMS, MAX_FILE_BYTES, AccessError, read_key, read_signing_key, verification_key


def refused(read, *arguments):
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
def test_each_algorithm_has_its_keys(keyring, algorithm):
    key = keyring.key(algorithm, "2026-11")
    assert (key.id, key.algorithm, key.warning) == ("2026-11", algorithm, "")
    assert len(bytes.fromhex(key.fingerprint)) == 32


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_algorithm_of_a_signing_key_is_found(keyring, algorithm):
    signing = read_signing_key(None, keyring.folder / algorithm)
    assert signing.algorithm == algorithm
    assert signing.fingerprint == keyring.key(algorithm).fingerprint
    assert verification_key(signing, "x").fingerprint == signing.fingerprint


def test_a_fingerprint_is_of_key_and_algorithm(keyring, write):
    prints = {keyring.key(algorithm).fingerprint for algorithm in ALGORITHMS}
    assert len(prints) == 4
    assert read_key("x", "HS256", write(keyring.secret[:-1] + b"!")).fingerprint not in prints
    assert read_key("x", "HS256", write(keyring.secret)).fingerprint in prints, "the id does not count"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_never_shows_its_secret(keyring, algorithm):
    """In a traceback, or a log."""
    for key in (keyring.key(algorithm), keyring.signing(algorithm)):
        assert keyring.secret.decode() not in repr(key) + str(key) + f"{[key]}"
        assert algorithm in repr(key)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_one_line_end_is_no_part_of_a_secret(write, end):
    secret = bytes(range(200, 232))
    assert read_key("x", "HS256", write(secret + end)).material == secret


def test_two_line_ends_are(write):
    assert read_key("x", "HS256", write(b"s" * 31 + b"\n\n")).material == b"s" * 31 + b"\n"


@pytest.mark.parametrize("content", [b"", b"\n", b"s" * 31, b"s" * 31 + b"\n"])
def test_a_short_secret_is_refused(write, content):
    length = len(content.strip())
    words = refused(read_key, "x", "HS256", write(content))
    assert words.endswith(f"holds {length} bytes, and a secret for HS256 has 32 or more")


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_public_key_is_no_secret(keyring, algorithm):
    """Who knows the public key, and that is everybody, could sign tokens."""
    words = refused(read_key, "x", "HS256", keyring.folder / f"{algorithm}.pub")
    assert "holds a public key, and HS256 takes a secret" in words
    assert "holds a private key" in refused(read_key, "x", "HS256", keyring.folder / algorithm)


def test_other_ways_to_write_a_public_key_are_no_secrets_either(write):
    public = rsa.generate_private_key(65537, 2048).public_key()
    openssh, der = serialization.Encoding.OpenSSH, serialization.Encoding.DER
    written = [
        public.public_bytes(openssh, serialization.PublicFormat.OpenSSH),
        public.public_bytes(der, serialization.PublicFormat.SubjectPublicKeyInfo),
        b'{"kty":"RSA","n":"AQABAQABAQABAQABAQABAQABAQAB","e":"AQAB"}',
    ]
    for content in written:
        assert "holds a key of another kind" in refused(read_key, "x", "HS256", write(content))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_private_key_is_not_wanted(keyring, algorithm):
    words = refused(read_key, "x", algorithm, keyring.folder / algorithm)
    assert "holds a private key" in words and "openssl pkey" in words


def test_a_private_key_among_others_is_not_overlooked(keyring, write):
    both = (keyring.folder / "ES256.pub").read_bytes() + (keyring.folder / "ES256").read_bytes()
    assert "holds a private key" in refused(read_key, "x", "ES256", write(both))


def test_several_keys_are_not_wanted(keyring, write):
    twice = (keyring.folder / "ES256.pub").read_bytes() * 2
    assert "holds 2 keys, and one is wanted" in refused(read_key, "x", "ES256", write(twice))


def test_a_certificate_is_not_wanted(write):
    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), 1)
        .not_valid_before(datetime(2020, 1, 1))
        .not_valid_after(datetime(2040, 1, 1))
        .sign(private, hashes.SHA256())
    )
    content = certificate.public_bytes(serialization.Encoding.PEM)
    assert "holds a certificate; its public key is wanted" in refused(read_key, "x", "ES256", write(content))
    assert "holds a certificate, and HS256" in refused(read_key, "x", "HS256", write(content))


def test_a_public_key_of_another_algorithm_is_refused(keyring):
    def found(algorithm, file):
        return refused(read_key, "x", algorithm, keyring.folder / f"{file}.pub").partition(" holds ")[2]

    assert found("RS256", "ES256") == "a key on the curve secp256r1, and RS256 takes RSA with 2048 bits or more"
    assert found("RS256", "EdDSA") == "an Ed25519 key, and RS256 takes RSA with 2048 bits or more"
    assert found("ES256", "RS256") == "an RSA key of 2048 bits, and ES256 takes one on P-256 (secp256r1)"
    assert found("EdDSA", "ES256") == "a key on the curve secp256r1, and EdDSA takes Ed25519"
    assert "no public key as PEM" in found("ES256", "HS256")


@pytest.mark.parametrize(
    ("algorithm", "private", "words"),
    [
        ("RS256", lambda: rsa.generate_private_key(65537, 1024), "an RSA key of 1024 bits, and RS256"),
        ("ES256", lambda: ec.generate_private_key(ec.SECP384R1()), "a key on the curve secp384r1, and ES256"),
        ("ES256", lambda: ec.generate_private_key(ec.SECP256K1()), "a key on the curve secp256k1, and ES256"),
        ("EdDSA", ed448.Ed448PrivateKey.generate, "a key of a kind that none of"),
        ("RS256", lambda: dsa.generate_private_key(2048), "a key of a kind that none of"),
    ],
)
def test_a_key_that_is_too_weak_or_of_another_kind_is_refused(write, algorithm, private, words):
    made = private()
    assert words in refused(read_key, "x", algorithm, write(public_pem_of(made)))
    assert words in refused(read_signing_key, algorithm, write(pem_of(made)))


@pytest.mark.parametrize("label", [b"PUBLIC KEY", b"RSA PUBLIC KEY", b"NONSENSE"])
def test_a_damaged_key_is_refused(write, label):
    content = b"-----BEGIN " + label + b"-----\nAAAA\n-----END " + label + b"-----\n"
    assert "holds a damaged key" in refused(read_key, "x", "RS256", write(content))


def test_a_password_is_not_asked_for(write):
    content = pem_of(ec.generate_private_key(ec.SECP256R1()), b"secret")
    assert "is encrypted with a password" in refused(read_signing_key, "ES256", write(content))


def test_a_public_key_cannot_sign(keyring):
    assert "holds a public key" in refused(read_signing_key, None, keyring.folder / "ES256.pub")
    assert "holds no private key" in refused(read_signing_key, "ES256", keyring.folder / "HS256")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(
    ("path", "reason"),
    [("/nowhere/key", "No such file or directory"), ("/tmp", "Is a directory"), ("/a\0b", "embedded null byte")],
)
def test_a_file_that_cannot_be_read_is_named(algorithm, path, reason):
    assert refused(read_key, "x", algorithm, Path(path)) == f"cannot read {path}: {reason}"


def test_no_more_is_read_than_a_key_may_take(write):
    assert "is larger than any key" in refused(read_key, "x", "HS256", write(b"s" * (MAX_FILE_BYTES + 1)))
    assert "is larger than any key" in refused(read_key, "x", "HS256", Path("/dev/zero"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o444, 0o660])
def test_a_secret_that_others_can_read_is_told(keyring, write, mode):
    file = write(keyring.secret, mode)
    words = f"others than its owner can read the secret in {file} (mode {mode:04o}): chmod 600"
    assert read_key("x", "HS256", file).warning == words
    assert read_signing_key("HS256", file).warning == words


def test_a_public_key_may_be_read_by_all_but_written_by_its_owner_only(keyring, write):
    content = (keyring.folder / "ES256.pub").read_bytes()
    assert read_key("x", "ES256", write(content, 0o644)).warning == ""
    assert "others than its owner can replace the key" in read_key("x", "ES256", write(content, 0o664)).warning


def test_a_pipe_has_no_mode(keyring):
    """As a shell makes one of ``<(command)``."""
    reading, writing = os.pipe()
    os.write(writing, keyring.secret)
    os.close(writing)
    try:
        assert read_key("x", "HS256", Path(f"/dev/fd/{reading}")).warning == ""
    finally:
        os.close(reading)
