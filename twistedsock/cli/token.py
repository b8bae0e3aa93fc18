"""`sockbridge token`: makes a token, and sees that a bridge would take it."""

import argparse
import re
from pathlib import Path
from typing import Any, TextIO

from twistedsock.auth.config import AccessTable, KeyTable
from twistedsock.auth.identity import grants
from twistedsock.auth.keys import ALGORITHMS, AccessError, SigningKey, checking, read_key, read_signing_key
from twistedsock.auth.tokens import BAD_SUBJECT, Terms, is_subject, mint, verify
from twistedsock.config import SettingsError, read_settings
from twistedsock.errors import Error

DESCRIPTION = """Makes a token and prints it, and nothing else. With --config, key, id, algorithm and audience are those
of the bridge's [access] table.

  sockbridge token --config sockbridge.toml --sub ann --allow 'kitchen=rw' --allow 'alerts.*=r' --expires 1h
  sockbridge token --key key --id 2026-11 --sub sensor-7 --allow 'sensors.>=w' --expires 365d
"""

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

_TIME = re.compile(r"([1-9][0-9]{0,8})([smhdw])")

NEVER = "never"


def add_options(parser: argparse.ArgumentParser) -> None:
    say = parser.add_argument
    say("--sub", required=True, type=_subject, metavar="NAME", help="who brings it; that is the peer's nick, too")
    say(
        "--allow", action="append", default=[], type=_allowed, metavar="PATTERN=RIGHTS", help="channels, and r, w or rw"
    )
    say("--admin", action="store_true", help="everything is allowed, on every channel")
    say("--expires", default="1h", type=_time, metavar="TIME", help="such as 90s, 15m, 1h, 30d, 52w, or never [1h]")
    say("--config", metavar="FILE", help="the bridge's file of options")
    say("--key", metavar="FILE", help="a secret, or a private key [the bridge's secret, or key]")
    say("--id", metavar="KID", help="the key's id [the bridge's]")
    say("--algorithm", choices=ALGORITHMS, help="[what the key is for]")
    say("--audience", metavar="NAME", help="for whom it is [the bridge's]")


def _subject(said: str) -> str:
    if not is_subject(said):
        raise argparse.ArgumentTypeError(BAD_SUBJECT.message.partition(", or ")[2])
    return said


def _allowed(said: str) -> tuple[str, str]:
    text, equals, rights = said.rpartition("=")
    try:
        if not equals:
            raise ValueError(f"{said!r} is not PATTERN=RIGHTS, such as 'kitchen=rw'")
        grants({text: rights})
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text, rights


def _time(said: str) -> int | None:
    if said == NEVER:
        return None
    found = _TIME.fullmatch(said)
    if found is None:
        raise argparse.ArgumentTypeError(f"{said!r} is no time such as 90s, 15m, 1h, 30d, 52w, or never")
    return int(found[1]) * UNITS[found[2]]


def run(given: argparse.Namespace, out: TextIO, errors: TextIO, now: float) -> int:
    """The exit status: 0, or 1 with a sentence on why not. ``now`` is in seconds of the wall clock since 1970."""
    try:
        table = _table(given.config)
        key, id = _key(given, table)
        token = _token(given, table, key, id, now)
    except (AccessError, SettingsError) as error:
        print(f"sockbridge token: {error}", file=errors)
        return 1
    if key.warning:
        print(f"sockbridge token: {key.warning}", file=errors)
    if given.expires is None and table is None:
        print("sockbridge token: a bridge takes this only with expiry-required = false", file=errors)
    print(token.decode(), file=out)
    return 0


def _table(config: str | None) -> AccessTable | None:
    if config is None:
        return None
    table = read_settings(config, {}).access
    if table is None or not table.key:
        raise SettingsError(f"{config} tells of no [[access.key]]; sockbridge keygen makes one")
    return table


def _key(given: argparse.Namespace, table: AccessTable | None) -> tuple[SigningKey, str | None]:
    """What to sign with, and the key's id if it is to be named."""
    if table is None:
        return read_signing_key(given.algorithm, Path(given.key or "key")), given.id
    if given.key is None:
        told = _chosen(table, given.id)
        if given.algorithm not in (None, told.algorithm):
            raise SettingsError(f"the key {told.id!r} is for {told.algorithm}, and {given.algorithm} was asked for")
        if told.algorithm != "HS256":
            raise SettingsError(
                f"the key {told.id!r} is for {told.algorithm}, so a bridge has its public half only: --key names the "
                "private one"
            )
        return read_signing_key(told.algorithm, Path(told.file)), told.id
    key = read_signing_key(given.algorithm, Path(given.key))
    for told in table.key if given.id is None else [_chosen(table, given.id)]:
        if read_key(told.id, told.algorithm, Path(told.file)).fingerprint == key.fingerprint:
            return key, told.id
    raise SettingsError(f"{given.key} belongs to no [[access.key]] of {given.config}, so the bridge would not take it")


def _chosen(table: AccessTable, id: str | None) -> KeyTable:
    for told in table.key:
        if id in (None, told.id):
            return told
    raise SettingsError(f"there is no [[access.key]] with the id {id!r}")


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
    token = mint(claims, key, id)
    terms = Terms(audience, expiry_required=False)
    if table is not None:
        terms = Terms(table.audience, table.leeway, table.expiry_required)
    found = verify(token, {id or "": checking(key, id or "")}, now, terms)
    if isinstance(found, Error):
        raise AccessError(f"the bridge would not take it: {found.message}")
    return token
