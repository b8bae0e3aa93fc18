"""The smallest relay over `websockets` that is fair: python websockets_relay.py HOST PORT.

Fair: JSON is parsed once and written once for an event, and `broadcast`, the library's own and fastest way to many,
gets the string: it encodes and frames it for each connection itself. Compression and pings are off. The loop is
asyncio's and the JSON is Python's, as whoever installs only this library has them.
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
