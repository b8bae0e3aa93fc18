"""The table ``[access]`` of a file of options, as an operator writes it."""

import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from twistedsock.auth.identity import Grants, grants
from twistedsock.auth.keys import Algorithm
from twistedsock.auth.tokens import is_subject

MAX_KEYS = 16
"""An old and a new one for each of some issuers; more are a mistake."""

MAX_LISTENERS = 64
"""More endpoints than anybody opens."""

MAX_SUBJECTS = 1_000
"""Each is tried for each token that comes. Who has more lets their tokens say what they may."""

MAX_PATTERNS = 1_000
"""In one place. Each is tried when a peer uses a channel for the first time."""

MAX_LEEWAY = 600
"""Seconds. Clocks that differ by more are to be mended; a longer leeway is a longer life for every token."""

# What RFC 6265 section 4.1.1 (by RFC 9110 section 5.6.2) lets a cookie be called.
_COOKIE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")

_ID = re.compile(r"[!-~]{1,64}")

AllowRule = Annotated[dict[str, str], Meta(max_length=MAX_PATTERNS)]


class KeyTable(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """``[[access.key]]``"""

    id: str
    algorithm: Algorithm
    file: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError("the id is 1 to 64 visible ASCII characters")


class ListenerTable(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """``[[access.listener]]``; without ``allow`` those who come in there may do what all others may."""

    endpoint: str
    allow: AllowRule | None = None
    client_ca: str | None = None

    def __post_init__(self) -> None:
        _grants("allow", self.allow or {})
        if self.client_ca is not None and not self.endpoint.startswith("ssl:"):
            raise ValueError("client-ca is for endpoints that begin with ssl: only, as certificates are shown in TLS")


class SubjectTable(msgspec.Struct, frozen=True, rename="kebab", forbid_unknown_fields=True):
    """``[[access.subject]]``"""

    name: str
    allow: AllowRule

    def __post_init__(self) -> None:
        if not is_subject(self.name):
            raise ValueError(
                "the name is 1 to 200 bytes of text without control or invisible characters and without ~ in front"
            )
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
            raise ValueError("no cookie can be called so: its name is 1 to 64 ASCII letters, digits and some signs")
        _unique("two keys have the id", [key.id for key in self.key])
        _unique("two listener tables are for the endpoint", [listener.endpoint for listener in self.listener])
        _unique("two subject tables are for the name", [subject.name for subject in self.subject])

    def resolve_files(self, folder: Path) -> "AccessTable":
        """The same, with the paths of its files relative to a folder made absolute: a daemon changes its own."""
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
        """The file of authorities whose certificates a listener asks its clients for; None: it does not ask."""
        for listener in self.listener:
            if listener.endpoint == endpoint and listener.client_ca is not None:
                return Path(listener.client_ca)
        return None


def _grants(place: str, allow: dict[str, str]) -> Grants:
    try:
        return grants(allow)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None


def _unique(words: str, names: list[str]) -> None:
    for place, name in enumerate(names):
        if name in names[:place]:
            raise ValueError(f"{words} {name!r}")
