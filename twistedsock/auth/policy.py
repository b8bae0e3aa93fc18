"""The access policy that the table ``[access]`` of the configuration file describes."""

from collections.abc import Callable, Mapping
from pathlib import Path

from twistedsock.auth.config import AccessTable
from twistedsock.auth.identity import EVERYTHING, NO_CERTIFICATES, Grants, Identity, grants
from twistedsock.auth.keys import AccessError, Key, read_key
from twistedsock.auth.tokens import SUBJECT_RULE, TokenRequirements, is_subject, verify_token
from twistedsock.errors import Error, ErrorCode

NO_KEYS = Error(ErrorCode.UNAUTHORIZED, "this server has no keys, so it accepts no tokens")

BAD_COMMON_NAME = Error(ErrorCode.UNAUTHORIZED, f"invalid certificate: the common name must be {SUBJECT_RULE}")

REMOVED_KEY = Error(ErrorCode.UNAUTHORIZED, "the key of your token was removed: authenticate with a new token")

CHANGED_AUDIENCE = Error(
    ErrorCode.UNAUTHORIZED, "the audience of this server has changed: authenticate with a new token"
)

EXPIRY_REQUIRED = Error(
    ErrorCode.UNAUTHORIZED, "tokens without an expiry are no longer accepted: authenticate with a new token"
)

BY_CERTIFICATE = "certificate"

BY_TOKEN = "token"


class TablePolicy:
    """The policy of an ``[access]`` table. Every client has the rights that its listener grants without a token. A
    token or a certificate adds to them. Created by ``build_policy``."""

    def __init__(self, table: AccessTable, keys: Mapping[str, Key], wall_clock: Callable[[], float]) -> None:
        self.keys = keys
        self.cookie = table.cookie or ""
        self._wall_clock = wall_clock
        self._terms = TokenRequirements(table.audience, table.leeway, table.expiry_required)
        self._anonymous = Identity(grants(table.anonymous))
        self._by_listener = {
            listener.endpoint: Identity(grants(listener.allow))
            for listener in table.listener
            if listener.allow is not None
        }
        self._with_certificates = frozenset(
            listener.endpoint for listener in table.listener if listener.client_ca is not None
        )
        self._subjects = [(subject.name.split("*"), grants(subject.allow)) for subject in table.subject]
        self.warnings = tuple(key.warning for key in keys.values() if key.warning)
        """Warnings about the key files, for the log."""

    def anonymous(self, listener: str) -> Identity:
        return self._by_listener.get(listener, self._anonymous)

    def by_token(self, token: bytes, listener: str) -> Identity | Error:
        if not self.keys:
            return NO_KEYS
        found = verify_token(token, self.keys, self._wall_clock(), self._terms)
        if isinstance(found, Error):
            return found
        key, claims = found
        proof = f"{BY_TOKEN} {key.fingerprint} {self._terms.audience or ''}"
        return self._identity(
            Identity(claims.grants, claims.subject, claims.expires, claims.is_admin, proof, claims.grants), listener
        )

    def by_certificate(self, subject: bytes, listener: str) -> Identity | Error:
        if listener not in self._with_certificates:
            return NO_CERTIFICATES
        if not is_subject(subject.decode(errors="surrogateescape")):
            return BAD_COMMON_NAME
        return self._identity(Identity(Grants(), subject, proof=BY_CERTIFICATE), listener)

    def review(self, identity: Identity, listener: str) -> Identity | Error:
        if not identity.proof:
            return self.anonymous(listener)
        if identity.proof == BY_CERTIFICATE:
            return self.by_certificate(identity.subject, listener)
        _, fingerprint, audience = identity.proof.split(" ", 2)
        if all(key.fingerprint != fingerprint for key in self.keys.values()):
            return REMOVED_KEY
        if audience != (self._terms.audience or ""):
            return CHANGED_AUDIENCE
        if identity.expires is None and self._terms.expiry_required:
            return EXPIRY_REQUIRED
        return self._identity(identity, listener)

    def _identity(self, proved: Identity, listener: str) -> Identity:
        """Add the rights of the subject and of the listener to those that a token grants itself."""
        total = EVERYTHING if proved.is_admin else self._grants_of(proved, self.anonymous(listener).grants)
        return Identity(total, proved.subject, proved.expires, proved.is_admin, proved.proof, proved.own)

    def _grants_of(self, proved: Identity, of_listener: Grants) -> Grants:
        """Return the same object for as many clients as possible, because it caches the rights on channels."""
        name = proved.subject.decode()
        of_subject = [allowed for pieces, allowed in self._subjects if _matches(pieces, name)]
        if not of_subject:
            return proved.own + of_listener if proved.own.pairs else of_listener
        return sum(of_subject, proved.own) + of_listener


def build_policy(table: AccessTable, wall_clock: Callable[[], float]) -> TablePolicy:
    """Read the key files and return the policy. Raises AccessError, which names the entry of the table.
    ``wall_clock`` returns seconds since 1970."""
    keys: dict[str, Key] = {}
    for index, entry in enumerate(table.key):
        try:
            keys[entry.id] = read_key(entry.id, entry.algorithm, Path(entry.file))
        except AccessError as error:
            raise AccessError(f"access.key[{index}].file: {error}") from None
    return TablePolicy(table, keys, wall_clock)


def _matches(pieces: list[str], name: str) -> bool:
    """Return whether a name matches a pattern, which is split at its stars. The leftmost match of each piece leaves the
    most room for the next one, so no backtracking is needed."""
    first, *middle = pieces
    if not middle:
        return name == first
    last = middle.pop()
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    start, end = len(first), len(name) - len(last)
    for piece in middle:
        start = name.find(piece, start, end)
        if start < 0:
            return False
        start += len(piece)
    return True
