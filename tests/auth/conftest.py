"""Keys in files, and tokens that are put together by hand."""

from pathlib import Path
from typing import Any

import pytest

from tests.issuer import PRIVATE, Issuer, hmac_token
from twistedsock.auth.keys import Algorithm, Key, SigningKey, read_key, read_signing_key

SECRET = b"0123456789abcdef0123456789ABCDEF"
NOW = 1_800_000_000.0


class Keyring:
    """A key of each algorithm, in files: ``<algorithm>`` to sign with, ``<algorithm>.pub`` to check."""

    now = NOW
    secret = SECRET

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("HS256", "HS256.pub"):
            (folder / name).write_bytes(SECRET + b"\n")
            (folder / name).chmod(0o600)
        for algorithm in PRIVATE:
            Issuer(folder).make_key(algorithm, algorithm)

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
        return hmac_token(header, claims, secret)


@pytest.fixture(scope="session")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return Keyring(tmp_path_factory.mktemp("keys"))
