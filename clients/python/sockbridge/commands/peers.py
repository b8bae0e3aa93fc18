"""`sockbridge peers`: prints the clients of a server, for administrators."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, TextIO

from sockbridge.aio import Client
from sockbridge.commands.common import NEEDS_ADMINISTRATOR, add_server_options, format_json, printable, run_command
from sockbridge.errors import SockbridgeError
from sockbridge.values import Event

SUMMARY = "print the clients of a server"

DESCRIPTION = """\
Prints the clients that are connected, for administrators: id, nick, protocol,
address, age in seconds, number of channels, and events that were not sent yet,
at most two seconds ago. With a text, those whose id, nick, subject or address
contains it."""

EXAMPLE = """\
  sockbridge peers
  sockbridge peers 192.0.2.7
  sockbridge peers --order lag --json"""

PAGE_SECONDS = 10.0
"""For the first event of a channel that a server sends at once. A server without such a channel stays silent."""

ORDERS = ("newest", "lag", "sent", "id")

_COLUMNS = ("id", "nick", "dialect", "from", "age", "channels", "lag")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("text", nargs="?", metavar="TEXT", help="search ids, nicks, subjects and addresses")
    parser.add_argument(
        "--order", choices=ORDERS, default="id", help="the newest, furthest behind or busiest first [id]"
    )
    parser.add_argument("--json", action="store_true", help="print each client as a JSON object, with all fields")
    add_server_options(parser)


def run(options: argparse.Namespace, stdout: TextIO, stderr: TextIO) -> int:
    async def work(client: Client) -> int:
        listed = await (_search(client, options.text) if options.text else _list(client, options.order))
        found = [peer for peer in listed if peer["state"] != "closed"]  # since the server has made the list
        if options.json:
            for peer in found:
                print(format_json(peer), file=stdout)
        else:
            print_table(found, stdout)
        return 0

    return run_command(options, stderr, work)


async def _search(client: Client, text: str) -> list[dict[str, Any]]:
    return list((await _newest(client, f"$sys/peers/find/{text}"))["peers"])


async def _list(client: Client, order: str) -> list[dict[str, Any]]:
    """The clients on all pages. One that moves to another page meanwhile is listed once."""
    found: dict[str, dict[str, Any]] = {}
    number = pages = 0
    while number <= pages:
        page = await _newest(client, f"$sys/peers/{order}/{number}")
        found |= {peer["id"]: peer for peer in page["peers"]}
        number, pages = number + 1, page["pages"] - 1
    return list(found.values())


async def _newest(client: Client, channel: str) -> Any:
    """What a channel of the server contains (docs/reference/sys-channels.md)."""
    subscription = client.subscribe(channel)
    try:
        await subscription.ready()
        async with asyncio.timeout(PAGE_SECONDS):
            async for report in subscription.reports():
                if isinstance(report, Event):
                    return report.data
    except SockbridgeError as error:
        if error.code in ("forbidden", "unauthorized"):
            raise SockbridgeError(error.code, NEEDS_ADMINISTRATOR) from None
        raise
    except TimeoutError:
        raise SockbridgeError("timeout", f"the server sends nothing on {channel}") from None
    finally:
        await subscription.unsubscribe()
    raise SockbridgeError("closed", "the client was closed")


def print_table(peers: list[dict[str, Any]], stdout: TextIO) -> None:
    """Columns that are as wide as their contents."""
    rows = [list(_COLUMNS)] if peers else []
    for peer in peers:
        peer = peer | {"age": round(peer["age"])}
        rows.append([printable(str(peer[name])) or "-" for name in _COLUMNS])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join([cell.ljust(width) for cell, width in zip(row, widths, strict=True)]).rstrip(), file=stdout)
