"""A webhook with what its files hold: the secret, and the authorities that vouch for the receiver."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from twistedsock.secret_files import read_by_others, read_file, without_line_end
from twistedsock.webhooks.table import SECRET_BYTES, WebhookTable

MOST_FILE_BYTES = 1024 * 1024
"""Several times all authorities of the world, so that a wrong path is told at once, whatever is there."""


class WebhookError(Exception):
    """What is said about a webhook cannot be meant; its text is one sentence for the operator."""


class Target(msgspec.Struct, frozen=True):
    """Two are equal where nothing changed."""

    table: WebhookTable
    secret: bytes
    authorities: bytes | None = None
    """As PEM; None: those of the system."""
    warning: str = ""
    """A sentence for the operator about the file of the secret; empty if all is well."""

    def __repr__(self) -> str:
        return f"Target({self.table.title!r})"


def read_targets(tables: Iterable[WebhookTable]) -> list[Target]:
    """Reads the files; WebhookError with a sentence that names the place where one cannot be used."""
    targets = []
    for place, table in enumerate(tables):
        try:
            secret, warning = _secret(table)
        except WebhookError as error:
            raise WebhookError(f"webhook[{place}].secret-file: {error}") from None
        try:
            authorities = None if table.ca_file is None else _authorities(Path(table.ca_file))
        except WebhookError as error:
            raise WebhookError(f"webhook[{place}].ca-file: {error}") from None
        targets.append(Target(table, secret, authorities, warning))
    return targets


def _secret(table: WebhookTable) -> tuple[bytes, str]:
    if table.secret_file is None:
        assert table.secret is not None, "one of the two is there"
        return table.secret.encode(), ""
    path = Path(table.secret_file)
    content, mode = _read(path)
    secret = without_line_end(content)
    if len(secret) < SECRET_BYTES:
        raise WebhookError(f"{path} holds {len(secret)} bytes, and a secret has {SECRET_BYTES} or more")
    return secret, read_by_others(path, mode)


def _authorities(path: Path) -> bytes:
    from cryptography.x509 import load_pem_x509_certificates

    content, _ = _read(path)
    try:
        load_pem_x509_certificates(content)
    except ValueError:
        raise WebhookError(f"{path} holds no certificates as PEM (-----BEGIN CERTIFICATE-----)") from None
    return content


def _read(path: Path) -> tuple[bytes, int]:
    too_large = f"{path} is larger than {MOST_FILE_BYTES:,} bytes, so it is something else"
    return read_file(path, MOST_FILE_BYTES, too_large, WebhookError)
