"""The table ``[access]`` of the configuration file, as an operator writes it."""

import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from twistedsock.auth.identity import Grants, grants
from twistedsock.auth.keys import Algorithm
from twistedsock.auth.tokens import SUBJECT_RULE, is_subject

MAX_KEYS = 16
"""An old and a new key for each of eight issuers."""

MAX_LISTENERS = 64
"""More endpoints than a server needs."""

MAX_SUBJECTS = 1_000
"""Each is compared with the subject of each token. With more subjects, put the rights into the tokens."""

MAX_PATTERNS = 1_000
"""In one table. Each is compared with a channel when a client uses the channel for the first time."""

MAX_LEEWAY = 600
"""Seconds. A longer leeway would extend the life of every token: correct the clock instead."""

# A cookie name: a token of RFC 9110 section 5.6.2, which RFC 6265 section 4.1.1 refers to.
_COOKIE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")

_ID = re.compile(r"[!-~]{1,64}")

AllowRule = Annotated[dict[str, str], Meta(max_length=MAX_PATTERNS)]


class KeyTable(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """A table ``[[access.key]]`` of the configuration file."""

    id: str
    algorithm: Algorithm
    file: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError("the id must be 1 to 64 visible ASCII characters")


class ListenerTable(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """``[[access.listener]]``. Without ``allow``, clients without a token have the rights of ``anonymous``."""

    endpoint: str
    allow: AllowRule | None = None
    client_ca: str | None = None

    def __post_init__(self) -> None:
        _grants("allow", self.allow or {})
        if self.client_ca is not None and not self.endpoint.startswith("ssl:"):
            raise ValueError("client-ca requires an endpoint that begins with ssl:")


class SubjectTable(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """``[[access.subject]]``"""

    name: str
    allow: AllowRule

    def __post_init__(self) -> None:
        if not is_subject(self.name):
            raise ValueError(f"the name must be {SUBJECT_RULE}")
        _grants("allow", self.allow)


class AccessTable(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """``[access]``. Times are seconds."""

    anonymous: AllowRule = {}
    audience: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    leeway: Annotated[float, Meta(ge=0, le=MAX_LEEWAY)] = 30.0
    expiry_required: bool = True
    cookie: str | None = None
    key: Annotated[tuple[KeyTable, ...], Meta(max_length=MAX_KEYS)] = ()
    listener: Annotated[tuple[ListenerTable, ...], Meta(max_length=MAX_LISTENERS)] = ()
    subject: Annotated[tuple[SubjectTable, ...], Meta(max_length=MAX_SUBJECTS)] = ()

    def __post_init__(self) -> None:
        _grants("anonymous", self.anonymous)
        if self.cookie is not None and not _COOKIE.fullmatch(self.cookie):
            raise ValueError("the name of the cookie must be 1 to 64 ASCII letters, digits and !#$%&'*+.^_`|~-")
        _check_unique("repeated key id", [key.id for key in self.key])
        _check_unique("repeated listener", [listener.endpoint for listener in self.listener])
        _check_unique("repeated subject", [subject.name for subject in self.subject])

    def resolve_files(self, folder: Path) -> "AccessTable":
        """Return a copy with absolute paths, for files relative to ``folder``. A daemon changes its directory."""
        return msgspec.structs.replace(
            self,
            key=tuple(msgspec.structs.replace(key, file=str(folder / key.file)) for key in self.key),
            listener=tuple(
                listener
                if listener.client_ca is None
                else msgspec.structs.replace(listener, client_ca=str(folder / listener.client_ca))
                for listener in self.listener
            ),
        )

    def client_ca(self, endpoint: str) -> Path | None:
        """Return the file of the authorities that sign the certificates of clients, or None if none are required."""
        for listener in self.listener:
            if listener.endpoint == endpoint and listener.client_ca is not None:
                return Path(listener.client_ca)
        return None


def _grants(name: str, allow: dict[str, str]) -> Grants:
    try:
        return grants(allow)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _check_unique(message: str, names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(f"{message} {name!r}")
