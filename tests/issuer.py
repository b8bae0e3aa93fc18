"""An issuer of keys and tokens for tests."""

import hmac
import json
import os
import time
from base64 import urlsafe_b64encode

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from twistedsock.auth.keys import read_signing_key
from twistedsock.auth.tokens import sign_token

PRIVATE = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
}
AUDIENCE = "bridge.test"


def base64url(data):
    return urlsafe_b64encode(data).rstrip(b"=")


def hmac_token(header, claims, secret):
    """A token signed with HMAC. Header and claims are bytes, which are not changed, or become JSON."""
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims))
    signed = b".".join(map(base64url, parts))
    return signed + b"." + base64url(hmac.digest(secret, signed, "sha256"))


class Issuer:
    """Creates keys in ``folder``, and tokens, which it remembers so that tests can check that no log contains them."""

    def __init__(self, folder):
        self.folder = folder
        self.made = []
        self._keys = {}

    def make_key(self, id, algorithm="HS256"):
        """The lines of the configuration that describe its keys."""
        file = self.folder / id
        if algorithm == "HS256":
            file.write_bytes(os.urandom(32).hex().encode())
        else:
            key = PRIVATE[algorithm]()
            form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            file.write_bytes(key.private_bytes(*form))
            public = key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            (self.folder / f"{id}.pub").write_bytes(public)
        file.chmod(0o600)
        self._keys[id] = read_signing_key(algorithm, file)
        shared = file if algorithm == "HS256" else f"{file}.pub"
        return f'[[access.key]]\nid = "{id}"\nalgorithm = "{algorithm}"\nfile = "{shared}"\n'

    def access(self, *lines):
        """The table of the access policy: these lines, and the audience of the tokens."""
        return "\n".join(["[access]", f'audience = "{AUDIENCE}"', *lines, ""])

    def token(self, sub="ann", channels=None, seconds=3600.0, key="hs", **claims):
        """A valid token, unless ``claims`` change that. A claim that is None is left out."""
        claims = {"sub": sub, "aud": AUDIENCE, "exp": time.time() + seconds, "channels": channels or {}, **claims}
        given = {name: claim for name, claim in claims.items() if claim is not None}
        return self.remember(sign_token(given, self._keys[key], key).decode())

    def remember(self, token):
        self.made.append(token)
        return token

    def assert_absent_from(self, text):
        """Checks that a text contains no token and no secret part of one: the signature or the claims."""
        for token in self.made:
            assert not [part for part in token.split(".")[1:] if part and part in text], text
