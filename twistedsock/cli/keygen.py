"""`sockbridge keygen`: creates a key that signs tokens."""

import argparse
import json
import os
import secrets
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import TextIO

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from twistedsock.auth.keys import ALGORITHMS, RSA_BITS, SECRET_BYTES, PrivateKey

SUMMARY = "create a key that signs tokens"

DESCRIPTION = """\
Creates a key in a new file that only you can read, and prints the lines that
the configuration of the server needs. With HS256, the server and the issuer of
tokens share one secret. With the other algorithms, the issuer needs FILE, and
the server needs FILE.pub only."""

EXAMPLE = """\
  sockbridge keygen >> sockbridge.toml
  sockbridge keygen /secure/key --algorithm EdDSA --id from-the-shop"""

GENERATORS: dict[str, Callable[[], PrivateKey]] = {
    "RS256": lambda: rsa.generate_private_key(65537, RSA_BITS),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", default="key", metavar="FILE", help="the file to create [key]")
    parser.add_argument("--algorithm", choices=ALGORITHMS, default="HS256", help="the signature algorithm [HS256]")
    parser.add_argument("--id", metavar="KID", help="the key id that tokens contain [year and month]")


def run(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    """Create the key and return the exit status."""
    try:
        for_server = _create(Path(given.file), given.algorithm)
    except OSError as error:
        print(f"sockbridge keygen: cannot write {error.filename}: {error.strerror}: no key was created", file=errors)
        return 1
    table = {"id": given.id or f"{date.today():%Y-%m}", "algorithm": given.algorithm, "file": str(for_server)}
    print("\n[[access.key]]", file=out)
    for name, value in table.items():
        print(f"{name} = {json.dumps(value, ensure_ascii=False)}", file=out)
    return 0


def _create(path: Path, algorithm: str) -> Path:
    """Write the key, and return the file that the server needs."""
    if algorithm == "HS256":
        # Printable characters, so that it can be copied into other programs that issue tokens.
        _write(path, secrets.token_urlsafe(SECRET_BYTES).encode() + b"\n", 0o600)
        return path
    key = GENERATORS[algorithm]()
    public = path.with_name(path.name + ".pub")
    _write(public, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o644)
    try:
        _write(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), 0o600)
    except OSError:
        public.unlink()
        raise
    return public


def _write(path: Path, content: bytes, mode: int) -> None:
    """Create a file with these permissions from the start."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
