"""Keys that sign and verify tokens, and the files that they are read from.

Each key is for one algorithm only: a token must not choose how it is verified (RFC 8725 section 3.1).
"""

import re
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from twistedsock.auth.secret_files import read_file, strip_line_end, warn_of_readers, warn_of_writers

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
"""One of each family, with the names of RFC 7518 section 3.1 and RFC 8037 section 3.1."""

SECRET_BYTES = 32
"""The minimum for HS256: the size of its hash (RFC 7518 section 3.2)."""

RSA_BITS = 2048
"""The minimum for RS256 (RFC 7518 section 3.3)."""

MAX_FILE_BYTES = 64 * 1024
"""Many times the size of the longest key, so that a wrong path is reported instead of read."""

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")


class AccessError(Exception):
    """The configuration of access is invalid. The message is one sentence for the operator."""


class Key(msgspec.Struct, frozen=True, eq=False):
    """A key that verifies signatures. ``id`` is the ``kid`` in the header of tokens."""

    id: str
    algorithm: Algorithm
    material: bytes | PublicKey
    fingerprint: str
    """SHA-256 in hex, over the algorithm and the key."""
    warning: str = ""
    """A warning about the permissions of the file, or an empty string."""

    def __repr__(self) -> str:
        return f"Key({self.id!r}, {self.algorithm!r}, fingerprint={self.fingerprint[:8]!r})"


class SigningKey(msgspec.Struct, frozen=True, eq=False):
    """A key that signs. ``fingerprint`` is that of the key that verifies its signatures."""

    algorithm: Algorithm
    material: bytes | PrivateKey
    fingerprint: str
    warning: str = ""

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithm!r}, fingerprint={self.fingerprint[:8]!r})"


def read_key(id: str, algorithm: Algorithm, path: Path) -> Key:
    """Read a secret for HS256, or a public key in PEM for the other algorithms. Raises AccessError."""
    content, mode = _read(path)
    if algorithm == "HS256":
        return Key(
            id, algorithm, secret := _secret(content, path), _fingerprint_of_secret(secret), warn_of_readers(path, mode)
        )
    public = _public_key(content, path)
    _check_type(public, algorithm, path)
    return Key(id, algorithm, public, _fingerprint_of_public(algorithm, public), warn_of_writers(path, mode))


def read_signing_key(algorithm: Algorithm | None, path: Path) -> SigningKey:
    """Read a secret or a private key. Without ``algorithm``, the key determines it. Raises AccessError."""
    content, mode = _read(path)
    warning = warn_of_readers(path, mode)
    if algorithm == "HS256" or (algorithm is None and not _PEM.search(content)):
        return SigningKey("HS256", secret := _secret(content, path), _fingerprint_of_secret(secret), warning)
    private = _private_key(content, path)
    found = algorithm or _algorithm_of(private)
    _check_type(private.public_key(), found, path)
    return SigningKey(found, private, _fingerprint_of_public(found, private.public_key()), warning)


def verification_key(signing: SigningKey, id: str) -> Key:
    """Return the key that verifies the signatures of ``signing``."""
    material = signing.material if isinstance(signing.material, bytes) else signing.material.public_key()
    return Key(id, signing.algorithm, material, signing.fingerprint)


def _read(path: Path) -> tuple[bytes, int]:
    too_large = f"{path} is not a key file: it has more than {MAX_FILE_BYTES:,} bytes"
    return read_file(path, MAX_FILE_BYTES, too_large, AccessError)


def _secret(content: bytes, path: Path) -> bytes:
    label = _PEM.search(content)
    if label is not None:
        raise AccessError(
            f"{path} contains a {label[1].decode().lower()}, but HS256 needs a secret: every owner of a public key "
            "could sign tokens with it"
        )
    secret = strip_line_end(content)
    if len(secret) < SECRET_BYTES:
        raise AccessError(f"{path} contains {len(secret)} bytes, but a secret for HS256 needs at least {SECRET_BYTES}")
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError:
        raise AccessError(f"{path} contains another type of key, but HS256 needs a secret of random bytes") from None
    return secret


def _public_key(content: bytes, path: Path) -> PublicKey:
    labels = _PEM.findall(content)
    if any(label.endswith(b"PRIVATE KEY") for label in labels):
        raise AccessError(
            f"{path} contains a private key, which belongs to the issuer of tokens. Use its public key: "
            f"openssl pkey -in {path} -pubout"
        )
    if any(b"CERTIFICATE" in label for label in labels):
        raise AccessError(f"{path} contains a certificate. Use its public key: openssl x509 -in {path} -noout -pubkey")
    if len(labels) != 1:
        many = f"{len(labels)} keys instead of one" if labels else "no public key in PEM (-----BEGIN PUBLIC KEY-----)"
        raise AccessError(f"{path} contains {many}")
    key = _load(lambda: load_pem_public_key(content), path)
    if not isinstance(key, PublicKey):
        raise AccessError(f"{path} contains a key that is for none of {', '.join(ALGORITHMS)}")
    return key


def _private_key(content: bytes, path: Path) -> PrivateKey:
    labels = _PEM.findall(content)
    if not any(label.endswith(b"PRIVATE KEY") for label in labels):
        content_type = "a public key" if labels else "no private key in PEM"
        raise AccessError(f"{path} contains {content_type}, but signing needs the private key")
    key = _load(lambda: load_pem_private_key(content, None), path)
    if not isinstance(key, PrivateKey):
        raise AccessError(f"{path} contains a key that is for none of {', '.join(ALGORITHMS)}")
    return key


def _load(load: Callable[[], object], path: Path) -> object:
    try:
        return load()
    except TypeError:  # cryptography raises it if a password is missing
        raise AccessError(f"{path} is encrypted with a password. Use a key without one") from None
    except (ValueError, UnsupportedAlgorithm):
        raise AccessError(f"{path} contains a damaged key, or a key of an unknown type") from None


def _algorithm_of(private: PrivateKey) -> Algorithm:
    if isinstance(private, RSAPrivateKey):
        return "RS256"
    return "ES256" if isinstance(private, EllipticCurvePrivateKey) else "EdDSA"


def _check_type(public: PublicKey, algorithm: Algorithm, path: Path) -> None:
    if isinstance(public, RSAPublicKey):
        found, fits = f"RSA key of {public.key_size} bits", algorithm == "RS256" and public.key_size >= RSA_BITS
    elif isinstance(public, EllipticCurvePublicKey):
        curve = public.curve
        found, fits = f"key on the curve {curve.name}", algorithm == "ES256" and isinstance(curve, SECP256R1)
    else:
        found, fits = "Ed25519 key", algorithm == "EdDSA"
    if not fits:
        wanted = {
            "RS256": f"RSA with at least {RSA_BITS} bits",
            "ES256": "one on P-256 (secp256r1)",
            "EdDSA": "Ed25519",
        }
        raise AccessError(
            f"{path} contains an {found}, but {algorithm} needs {wanted[algorithm]}".replace("an key", "a key")
        )


def _fingerprint_of_secret(secret: bytes) -> str:
    return sha256(b"HS256\0" + secret).hexdigest()


def _fingerprint_of_public(algorithm: Algorithm, public: PublicKey) -> str:
    written = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(algorithm.encode() + b"\0" + written).hexdigest()
