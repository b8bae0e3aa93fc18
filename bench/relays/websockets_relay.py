"""A small and fair relay over `websockets`: python websockets_relay.py HOST PORT.

It parses and writes the JSON of an event once, and passes the string to `broadcast`, the fastest function of the
library for many connections, which encodes and frames it for each of them. Compression and pings are off. The event
loop is that of asyncio and the JSON parser that of Python, which an installation of the library has.
"""

import asyncio
import json
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosedError

channels: dict[str, set[ServerConnection]] = {}
encode = json.JSONEncoder(separators=(",", ":")).encode


async def relay(connection: ServerConnection) -> None:
    joined = []
    await connection.send('["welcome"]')
    try:
        async for message in connection:
            kind, channel, *data = json.loads(message)
            if kind == "publish":
                if readers := channels.get(channel):
                    broadcast(readers, encode(["event", channel, *data]))
            elif kind == "subscribe":
                channels.setdefault(channel, set()).add(connection)
                joined.append(channel)
                await connection.send(encode(["subscribed", channel]))
    except ConnectionClosedError:
        pass  # our clients hang up without a farewell, of which it would write a line each
    finally:
        for channel in joined:
            channels[channel].discard(connection)
            if not channels[channel]:
                del channels[channel]


async def main(host: str, port: int) -> None:
    async with serve(relay, host, port, compression=None, ping_interval=None) as server:
        await server.serve_forever()


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
