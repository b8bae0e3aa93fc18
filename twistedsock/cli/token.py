"""`sockbridge token`: creates a token, and checks that the server would accept it."""

import argparse
import re
import time
from pathlib import Path
from typing import Any, TextIO

from twistedsock.auth.config import AccessTable, KeyTable
from twistedsock.auth.identity import grants
from twistedsock.auth.keys import ALGORITHMS, AccessError, SigningKey, read_key, read_signing_key, verification_key
from twistedsock.auth.tokens import SUBJECT_RULE, TokenRequirements, is_subject, sign_token, verify_token
from twistedsock.config import SettingsError, read_settings
from twistedsock.errors import Error

SUMMARY = "create a token"

DESCRIPTION = """\
Creates a token and prints it. With --config, the key, its id and algorithm and
the audience are those of the [access] table in the configuration file."""

EXAMPLE = """\
  sockbridge token --config sockbridge.toml --sub ann --allow 'kitchen=rw'
  sockbridge token --key key --sub sensor-7 --allow 'sensors.>=w' --expires 365d"""

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

_TIME = re.compile(r"([1-9][0-9]{0,8})([smhdw])")

NEVER = "never"


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sub", required=True, type=_subject, metavar="NAME", help="the subject, which is also the client's nickname")
    add(
        "--allow",
        action="append",
        default=[],
        type=_allowed,
        metavar="PATTERN=RIGHTS",
        help="channels, and r (read), w (publish) or rw; repeatable",
    )
    add("--admin", action="store_true", help="allow everything on every channel, and the console")
    add("--expires", default="1h", type=_time, metavar="TIME", help="for example 90s, 15m, 1h, 30d, 52w or never [1h]")
    add("--config", metavar="FILE", help="the configuration file of the server")
    add("--key", metavar="FILE", help="a secret or private key [the secret in --config, or the file key]")
    add("--id", metavar="KID", help="the id of the key [that of --config]")
    add("--algorithm", choices=ALGORITHMS, help="the signature algorithm [that of the key]")
    add("--audience", metavar="NAME", help="the audience [that of --config]")


def _subject(text: str) -> str:
    if not is_subject(text):
        raise argparse.ArgumentTypeError(f"must be {SUBJECT_RULE}")
    return text


def _allowed(rule: str) -> tuple[str, str]:
    text, equals, rights = rule.rpartition("=")
    try:
        if not equals:
            raise ValueError(f"{rule!r} is not PATTERN=RIGHTS, for example 'kitchen=rw'")
        grants({text: rights})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text, rights


def _time(text: str) -> int | None:
    if text == NEVER:
        return None
    found = _TIME.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time: write for example 90s, 15m, 1h, 30d, 52w or never")
    return int(found[1]) * UNITS[found[2]]


def run(given: argparse.Namespace, out: TextIO, errors: TextIO) -> int:
    """Print a token and return the exit status."""
    try:
        table = _table(given.config)
        key, id = _key(given, table)
        token = _token(given, table, key, id, time.time())
    except (AccessError, SettingsError) as error:
        print(f"sockbridge token: {error}", file=errors)
        return 1
    if key.warning:
        print(f"sockbridge token: {key.warning}", file=errors)
    if given.expires is None and table is None:
        print("sockbridge token: a server accepts this token only with expiry-required = false", file=errors)
    print(token.decode(), file=out)
    return 0


def _table(config: str | None) -> AccessTable | None:
    if config is None:
        return None
    table = read_settings(config, {}).access
    if table is None or not table.key:
        raise SettingsError(f"{config} contains no [[access.key]]: create one with sockbridge keygen")
    return table


def _key(given: argparse.Namespace, table: AccessTable | None) -> tuple[SigningKey, str | None]:
    """Return the key that signs, and the id that the token contains, if any."""
    if table is None:
        return read_signing_key(given.algorithm, Path(given.key or "key")), given.id
    if given.key is None:
        entry = _find_key(table, given.id)
        if given.algorithm not in (None, entry.algorithm):
            raise SettingsError(f"the key {entry.id!r} is for {entry.algorithm}, not for {given.algorithm}")
        if entry.algorithm != "HS256":
            raise SettingsError(
                f"the key {entry.id!r} is for {entry.algorithm}, so the server has the public key only: name the "
                "private key with --key"
            )
        return read_signing_key(entry.algorithm, Path(entry.file)), entry.id
    key = read_signing_key(given.algorithm, Path(given.key))
    for entry in table.key if given.id is None else [_find_key(table, given.id)]:
        if read_key(entry.id, entry.algorithm, Path(entry.file)).fingerprint == key.fingerprint:
            return key, entry.id
    raise SettingsError(f"{given.key} matches no [[access.key]] of {given.config}: the server would reject the token")


def _find_key(table: AccessTable, id: str | None) -> KeyTable:
    for entry in table.key:
        if id in (None, entry.id):
            return entry
    raise SettingsError(f"no [[access.key]] has the id {id!r}")


def _token(given: argparse.Namespace, table: AccessTable | None, key: SigningKey, id: str | None, now: float) -> bytes:
    claims: dict[str, Any] = {"sub": given.sub, "iat": int(now)}
    audience = given.audience or (table.audience if table is not None else None)
    if given.expires is not None:
        claims["exp"] = int(now) + given.expires
    if audience is not None:
        claims["aud"] = audience
    if given.allow:
        claims["channels"] = dict(given.allow)
    if given.admin:
        claims["admin"] = True
    token = sign_token(claims, key, id)
    requirements = TokenRequirements(audience, expiry_required=False)
    if table is not None:
        requirements = TokenRequirements(table.audience, table.leeway, table.expiry_required)
    found = verify_token(token, {id or "": verification_key(key, id or "")}, now, requirements)
    if isinstance(found, Error):
        raise AccessError(f"the server would reject the token: {found.message}")
    return token
