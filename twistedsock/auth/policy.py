"""The policy that a table ``[access]`` describes."""

from collections.abc import Callable, Mapping
from pathlib import Path

from twistedsock.auth.config import AccessTable
from twistedsock.auth.identity import EVERYTHING, Grants, Identity, grants
from twistedsock.auth.keys import AccessError, Key, read_key
from twistedsock.auth.tokens import TokenRequirements, is_subject, verify_token
from twistedsock.errors import Error, ErrorCode

NO_KEYS = Error(ErrorCode.UNAUTHORIZED, "this server has no keys to check a token with")

NO_CERTIFICATES = Error(ErrorCode.UNAUTHORIZED, "certificates of clients are not taken here")

BAD_COMMON_NAME = Error(ErrorCode.UNAUTHORIZED, "the common name of the certificate is not fit to be shown to others")

GONE_KEY = Error(
    ErrorCode.UNAUTHORIZED, "the key that your token was signed with is no longer valid; bring another token"
)

OTHER_AUDIENCE = Error(
    ErrorCode.UNAUTHORIZED, "the token was for the audience that this server had before; bring another token"
)

EXPIRY_WANTED = Error(ErrorCode.UNAUTHORIZED, "this server takes no tokens any longer that never expire; bring another")

BY_CERTIFICATE = "certificate"

BY_TOKEN = "token"


class TablePolicy:
    """Everybody has what those without a token have at their listener; a token or a certificate adds to that, and
    takes nothing away. Made by ``build_policy``."""

    def __init__(self, table: AccessTable, keys: Mapping[str, Key], wall_clock: Callable[[], float]) -> None:
        self.keys = keys
        self.cookie = table.cookie or ""
        self._wall_clock = wall_clock
        self._terms = TokenRequirements(table.audience, table.leeway, table.expiry_required)
        self._everybody = Identity(grants(table.anonymous))
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
        """Sentences for the operator, to be logged at the start."""

    def anonymous(self, listener: str) -> Identity:
        return self._by_listener.get(listener, self._everybody)

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
            return GONE_KEY
        if audience != (self._terms.audience or ""):
            return OTHER_AUDIENCE
        if identity.expires is None and self._terms.expiry_required:
            return EXPIRY_WANTED
        return self._identity(identity, listener)

    def _identity(self, proved: Identity, listener: str) -> Identity:
        """With what else its subject may, and everybody at that listener."""
        total = EVERYTHING if proved.is_admin else self._granted(proved, self.anonymous(listener).grants)
        return Identity(total, proved.subject, proved.expires, proved.is_admin, proved.proof, proved.own)

    def _granted(self, proved: Identity, everybody: Grants) -> Grants:
        """One object for as many as possible, as it remembers the channels that it was asked for."""
        name = proved.subject.decode()
        more = [allowed for pieces, allowed in self._subjects if _matches(pieces, name)]
        if not more:
            return proved.own + everybody if proved.own.pairs else everybody
        return sum(more, proved.own) + everybody


def build_policy(table: AccessTable, wall_clock: Callable[[], float]) -> TablePolicy:
    """Reads the files of the keys; AccessError with a sentence that names the place where one cannot be used.
    ``wall_clock`` gives seconds since 1970."""
    keys: dict[str, Key] = {}
    for place, told in enumerate(table.key):
        try:
            keys[told.id] = read_key(told.id, told.algorithm, Path(told.file))
        except AccessError as error:
            raise AccessError(f"access.key[{place}].file: {error}") from None
    return TablePolicy(table, keys, wall_clock)


def _matches(pieces: list[str], name: str) -> bool:
    """Whether a name is a pattern that was split at its stars. The leftmost place for each piece leaves most room for
    the next, so this takes no more time than the name is long, for each piece."""
    first, *middle = pieces
    if not middle:
        return name == first
    last = middle.pop()
    if len(name) < len(first) + len(last) or not name.startswith(first) or not name.endswith(last):
        return False
    place, end = len(first), len(name) - len(last)
    for piece in middle:
        place = name.find(piece, place, end)
        if place < 0:
            return False
        place += len(piece)
    return True
