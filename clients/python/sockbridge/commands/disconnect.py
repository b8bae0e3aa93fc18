"""`sockbridge disconnect`: disconnects a client, for administrators."""

from __future__ import annotations

import argparse
import json
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TextIO
from urllib.parse import quote, urlencode

from sockbridge.address import Address, parse_address, tls_context
from sockbridge.commands.common import (
    FAILED,
    NEEDS_ADMINISTRATOR,
    UNREACHABLE,
    WRONG_USAGE,
    add_connection_options,
    complain,
    read_token,
)
from sockbridge.errors import AddressError, explain

SUMMARY = "disconnect a client"

DESCRIPTION = """\
Disconnects a client, for administrators: `sockbridge peers` prints its id. It
receives the reason. It uses HTTP, so --server is the address of the web port.
The client can connect again: to prevent that, remove its right."""

EXAMPLE = """\
  sockbridge disconnect k3x9p
  sockbridge disconnect k3x9p --reason 'the party is over'
  sockbridge disconnect k3x9p --token-file admin.token"""

DEFAULT_WEB_SERVER = "ws://127.0.0.1:8082"

TIMEOUT_SECONDS = 10.0

MAX_ANSWER_BYTES = 65_536


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("client", metavar="CLIENT", help="its id")
    parser.add_argument("--reason", metavar="TEXT", help="the reason that the client receives, at most 80 characters")
    add_connection_options(parser, DEFAULT_WEB_SERVER)


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    token = read_token(options.token_file) if options.token_file is not None else None
    try:
        address = parse_address(options.server)
        if not address.is_websocket:
            host = f"[{address.host}]" if ":" in address.host else address.host or "127.0.0.1"
            raise AddressError(f"disconnect needs the web port: give its address, as in --server ws://{host}:8082")
        status, body = _delete(address, options.authorities, _path(address, options.client, options.reason), token)
    except AddressError as error:
        complain(options, stderr, str(error))
        return WRONG_USAGE
    except (OSError, HTTPException) as error:
        reason = explain(error) if isinstance(error, OSError) else "no HTTP there"
        complain(options, stderr, f"cannot connect to {options.server}: {reason}")
        return UNREACHABLE
    if status == 202:
        complain(options, stderr, "passed on to the other processes of the server")
    elif status != 204:
        complain(options, stderr, _problem(status, body))
        return FAILED
    return 0


def _path(address: Address, client: str, reason: str | None) -> str:
    query = f"?{urlencode({'reason': reason})}" if reason else ""
    return f"{address.path.removesuffix('/ws').rstrip('/')}/peers/{quote(client, safe='')}{query}"


def _delete(address: Address, authorities: str | None, path: str, token: str | None) -> tuple[int, bytes]:
    """The status and the body of the answer."""
    connection: HTTPConnection
    if (tls := tls_context(address, authorities)) is not None:
        connection = HTTPSConnection(address.host, address.port, timeout=TIMEOUT_SECONDS, context=tls)
    else:
        connection = HTTPConnection(address.host, address.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("DELETE", path, headers={} if token is None else {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read(MAX_ANSWER_BYTES)
    finally:
        connection.close()


def _problem(status: int, body: bytes) -> str:
    """The error in problem details (RFC 9457)."""
    if status in (401, 403):
        return NEEDS_ADMINISTRATOR
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, LookupError, TypeError):
        return f"the server answered with status {status}"
