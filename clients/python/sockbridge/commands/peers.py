"""`sockbridge peers`: prints the clients of a server, for administrators."""

from __future__ import annotations

import argparse
import asyncio
from typing import Any, TextIO

from sockbridge.aio import Client
from sockbridge.commands.common import (
    NEEDS_ADMINISTRATOR,
    add_server_options,
    complain,
    format_json,
    print_table,
    run_command,
)
from sockbridge.errors import SockbridgeError
from sockbridge.values import Event

SUMMARY = "print the clients of a server"

DESCRIPTION = """\
Prints the other clients that are connected, for administrators: id, nick,
protocol, address, age in seconds, number of channels, and number of events that
wait to be sent (lag). The list is at most two seconds old. With a text, it has
the clients whose id, nick, subject or address contains the text."""

EXAMPLE = """\
  sockbridge peers
  sockbridge peers 192.0.2.7
  sockbridge peers --order lag --json"""

PAGE_SECONDS = 10.0
"""For the first event of a channel that a server sends at once. A server without such a channel stays silent."""

ORDERS = ("newest", "lag", "sent", "id")

_COLUMNS = {
    "id": "id",
    "nick": "nick",
    "dialect": "protocol",
    "from": "from",
    "age": "age",
    "channels": "channels",
    "lag": "lag",
}
"""Fields of a client in ``$sys/peers``, and their headings."""


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
        own_id = client.welcome.id if client.welcome else None
        # A client can have closed since the server made the list.
        found = [peer for peer in listed if peer["state"] != "closed" and peer["id"] != own_id]
        if not found:
            complain(options, stderr, "no other clients")
        elif options.json:
            for peer in found:
                print(format_json(peer), file=stdout)
        else:
            rows = [[(peer | {"age": round(peer["age"])})[field] for field in _COLUMNS] for peer in found]
            print_table(_COLUMNS.values(), rows, stdout)
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
