"""Keys in files, and tokens that are put together by hand."""

import hmac
import json
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from twistedsock.auth.keys import Algorithm, Key, SigningKey, read_key, read_signing_key

SECRET = b"0123456789abcdef0123456789ABCDEF"
NOW = 1_800_000_000.0


def base64url(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


def written(value: Any) -> bytes:
    """As it is if it is bytes, as JSON otherwise."""
    return value if isinstance(value, bytes) else json.dumps(value).encode()


class Keyring:
    """A key of each algorithm, in files: ``<algorithm>`` to sign with, ``<algorithm>.pub`` to check."""

    now = NOW
    secret = SECRET

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._write("HS256", SECRET + b"\n")
        self._write("HS256.pub", SECRET + b"\n")
        self.add("RS256", rsa.generate_private_key(65537, 2048))
        self.add("ES256", ec.generate_private_key(ec.SECP256R1()))
        self.add("EdDSA", ed25519.Ed25519PrivateKey.generate())

    def add(self, name: str, private: Any) -> None:
        encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        self._write(name, private.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain))
        public = private.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        self._write(f"{name}.pub", public)

    def key(self, algorithm: Algorithm, id: str | None = None) -> Key:
        return read_key(id or algorithm, algorithm, self.folder / f"{algorithm}.pub")

    def keys(self, *algorithms: Algorithm) -> dict[str, Key]:
        return {algorithm: self.key(algorithm) for algorithm in algorithms}

    def signing(self, algorithm: Algorithm) -> SigningKey:
        return read_signing_key(algorithm, self.folder / algorithm)

    def token(
        self, claims: Any = b"", header: Any = None, secret: bytes = SECRET, algorithm: str = "HS256", **more: Any
    ) -> bytes:
        """A token signed with HMAC, whatever its header and claims say; bytes are taken as they are."""
        header = {"alg": algorithm, "typ": "JWT"} | (header or {}) if not isinstance(header, bytes) else header
        claims = claims if claims != b"" else {"sub": "ann", "exp": NOW + 60} | more
        signed = base64url(written(header)) + b"." + base64url(written(claims))
        return signed + b"." + base64url(hmac.digest(secret, signed, "sha256"))

    def _write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)
        (self.folder / name).chmod(0o600)


@pytest.fixture(scope="session")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring(tmp_path_factory.mktemp("keys"))
