"""One who makes keys and tokens, for tests."""

import os
import time

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


class Issuer:
    """Makes keys in ``folder``, and tokens that are remembered, so that it can be seen that nobody tells them."""

    def __init__(self, folder):
        self.folder = folder
        self.made = []
        self._keys = {}

    def make_key(self, id, algorithm="HS256"):
        """The lines of the table that tell of it."""
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

    def token(self, sub="ann", channels=None, seconds=3600.0, key="hs", **claims):
        """Valid, unless ``claims`` make it something else; a claim that is None is left out."""
        claims = {"sub": sub, "aud": AUDIENCE, "exp": time.time() + seconds, "channels": channels or {}, **claims}
        told = {name: claim for name, claim in claims.items() if claim is not None}
        return self.remember(sign_token(told, self._keys[key], key).decode())

    def remember(self, token):
        self.made.append(token)
        return token

    def is_untold_in(self, text):
        """Neither a token nor what is secret of it: its signature, or its claims."""
        for token in self.made:
            assert not [part for part in token.split(".")[1:] if part and part in text], text
