"""Keys that tokens are signed and checked with: which algorithms there are, and how a key is read from its file.

Each key is for one algorithm only, and says so itself: a token has no say in how it is checked (RFC 8725 section 3.1).
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

from twistedsock.auth.secret_files import read_file, strip_line_end, warn_of_readers

Algorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]

ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)
"""One of each family, with the names of RFC 7518 section 3.1 and RFC 8037 section 3.1."""

SECRET_BYTES = 32
"""The least for HS256: as long as what its hash gives (RFC 7518 section 3.2)."""

RSA_BITS = 2048
"""The least for RS256 (RFC 7518 section 3.3)."""

MAX_FILE_BYTES = 64 * 1024
"""Many times what the longest key takes, so that a wrong path is told at once, whatever is there."""

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

PrivateKey = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")


class AccessError(Exception):
    """What is said about access cannot be meant; its text is one sentence for the operator."""


class Key(msgspec.Struct, frozen=True, eq=False):
    """What one signature is checked with. ``id`` is the ``kid`` by which tokens name it."""

    id: str
    algorithm: Algorithm
    material: bytes | PublicKey
    fingerprint: str
    """Hex of SHA-256; two keys that differ in anything have two."""
    warning: str = ""
    """A sentence for the operator about the file; empty if all is well."""

    def __repr__(self) -> str:
        return f"Key({self.id!r}, {self.algorithm!r}, fingerprint={self.fingerprint[:8]!r})"


class SigningKey(msgspec.Struct, frozen=True, eq=False):
    """What one signature is made with. ``fingerprint`` is that of the key that checks it."""

    algorithm: Algorithm
    material: bytes | PrivateKey
    fingerprint: str
    warning: str = ""

    def __repr__(self) -> str:
        return f"SigningKey({self.algorithm!r}, fingerprint={self.fingerprint[:8]!r})"


def read_key(id: str, algorithm: Algorithm, path: Path) -> Key:
    """The key in a file: a secret for HS256, a public key as PEM for the others. Raises AccessError."""
    content, mode = _read(path)
    if algorithm == "HS256":
        return Key(id, algorithm, secret := _secret(content, path), _of_secret(secret), warn_of_readers(path, mode))
    public = _public_key(content, path)
    _check_kind(public, algorithm, path)
    return Key(id, algorithm, public, _of_public(algorithm, public), _written_by_others(path, mode))


def read_signing_key(algorithm: Algorithm | None, path: Path) -> SigningKey:
    """The secret or private key in a file. Without an ``algorithm`` it is the one that fits. Raises AccessError."""
    content, mode = _read(path)
    warning = warn_of_readers(path, mode)
    if algorithm == "HS256" or (algorithm is None and not _PEM.search(content)):
        return SigningKey("HS256", secret := _secret(content, path), _of_secret(secret), warning)
    private = _private_key(content, path)
    fitting = algorithm or _fitting(private)
    _check_kind(private.public_key(), fitting, path)
    return SigningKey(fitting, private, _of_public(fitting, private.public_key()), warning)


def verification_key(signing: SigningKey, id: str) -> Key:
    """The key that checks what this one signs."""
    material = signing.material if isinstance(signing.material, bytes) else signing.material.public_key()
    return Key(id, signing.algorithm, material, signing.fingerprint)


def _read(path: Path) -> tuple[bytes, int]:
    too_large = f"{path} is larger than any key: more than {MAX_FILE_BYTES:,} bytes"
    return read_file(path, MAX_FILE_BYTES, too_large, AccessError)


def _secret(content: bytes, path: Path) -> bytes:
    label = _PEM.search(content)
    if label is not None:
        raise AccessError(
            f"{path} holds a {label[1].decode().lower()}, and HS256 takes a secret: whoever has a public key could "
            "sign tokens with it"
        )
    secret = strip_line_end(content)
    if len(secret) < SECRET_BYTES:
        raise AccessError(f"{path} holds {len(secret)} bytes, and a secret for HS256 has {SECRET_BYTES} or more")
    try:
        jwt.get_algorithm_by_name("HS256").prepare_key(secret)
    except jwt.InvalidKeyError:
        raise AccessError(f"{path} holds a key of another kind, and HS256 takes a secret of random bytes") from None
    return secret


def _public_key(content: bytes, path: Path) -> PublicKey:
    labels = _PEM.findall(content)
    if any(label.endswith(b"PRIVATE KEY") for label in labels):
        raise AccessError(
            f"{path} holds a private key, which only those should have who make tokens; here goes its public key: "
            f"openssl pkey -in {path} -pubout"
        )
    if any(b"CERTIFICATE" in label for label in labels):
        raise AccessError(
            f"{path} holds a certificate; its public key is wanted: openssl x509 -in {path} -noout -pubkey"
        )
    if len(labels) != 1:
        many = (
            f"{len(labels)} keys, and one is wanted" if labels else "no public key as PEM (-----BEGIN PUBLIC KEY-----)"
        )
        raise AccessError(f"{path} holds {many}")
    key = _load(lambda: load_pem_public_key(content), path)
    if not isinstance(key, PublicKey):
        raise AccessError(f"{path} holds a key of a kind that none of {', '.join(ALGORITHMS)} takes")
    return key


def _private_key(content: bytes, path: Path) -> PrivateKey:
    labels = _PEM.findall(content)
    if not any(label.endswith(b"PRIVATE KEY") for label in labels):
        what = "a public key" if labels else "no private key as PEM"
        raise AccessError(f"{path} holds {what}; tokens are signed with the private one")
    key = _load(lambda: load_pem_private_key(content, None), path)
    if not isinstance(key, PrivateKey):
        raise AccessError(f"{path} holds a key of a kind that none of {', '.join(ALGORITHMS)} takes")
    return key


def _load(load: Callable[[], object], path: Path) -> object:
    try:
        return load()
    except TypeError:  # so it says that a password is missing
        raise AccessError(f"{path} is encrypted with a password, and nobody is here to type it") from None
    except (ValueError, UnsupportedAlgorithm):
        raise AccessError(f"{path} holds a damaged key, or one of a kind that is not known") from None


def _fitting(private: PrivateKey) -> Algorithm:
    if isinstance(private, RSAPrivateKey):
        return "RS256"
    return "ES256" if isinstance(private, EllipticCurvePrivateKey) else "EdDSA"


def _check_kind(public: PublicKey, algorithm: Algorithm, path: Path) -> None:
    if isinstance(public, RSAPublicKey):
        found, fits = f"RSA key of {public.key_size} bits", algorithm == "RS256" and public.key_size >= RSA_BITS
    elif isinstance(public, EllipticCurvePublicKey):
        curve = public.curve
        found, fits = f"key on the curve {curve.name}", algorithm == "ES256" and isinstance(curve, SECP256R1)
    else:
        found, fits = "Ed25519 key", algorithm == "EdDSA"
    if not fits:
        wanted = {"RS256": f"RSA with {RSA_BITS} bits or more", "ES256": "one on P-256 (secp256r1)", "EdDSA": "Ed25519"}
        raise AccessError(
            f"{path} holds an {found}, and {algorithm} takes {wanted[algorithm]}".replace("an key", "a key")
        )


def _of_secret(secret: bytes) -> str:
    return sha256(b"HS256\0" + secret).hexdigest()


def _of_public(algorithm: Algorithm, public: PublicKey) -> str:
    written = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(algorithm.encode() + b"\0" + written).hexdigest()


def _written_by_others(path: Path, mode: int) -> str:
    return f"others than its owner can replace the key in {path} (mode {mode:04o}): chmod 644" if mode & 0o022 else ""
