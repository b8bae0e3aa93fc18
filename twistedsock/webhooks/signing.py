"""The signature of a delivery, by which its receiver knows who sent it, and that nobody has changed it."""

import hmac

SIGNATURE = "Sockbridge-Signature-256"
"""The header, with the same value as GitHub's X-Hub-Signature-256."""


def sign(secret: bytes, body: bytes) -> str:
    """HMAC with SHA-256 (RFC 2104) over the body as it is sent, in hex."""
    return "sha256=" + hmac.digest(secret, body, "sha256").hex()
