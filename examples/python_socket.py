#!/usr/bin/env python3
"""Subscribes to a channel with a plain socket and the standard library. Recovers missed events after a reconnection.

    python3 examples/python_socket.py [channel [host [port]]]
    python3 examples/python_socket.py kitchen 127.0.0.1 8081

It stores the epoch and the offset of the last event it has processed. With both, the server sends all events after that
one, or reports exactly which ones are missing.
"""

import socket
import sys
import time

SILENCE_SECONDS = 30.0
"""After this silence, a PING checks the connection. Without a reply in the same time, the connection is closed."""


class Position:
    """The last processed event, which must survive the connection."""

    def __init__(self):
        self.epoch = None
        self.offset = 0

    def command(self, channel):
        if self.epoch is None:
            return f"SUB {channel}"
        return f"SUB {channel} since={self.offset} epoch={self.epoch}"


def lines(connection):
    """Yield the received lines, and None after each SILENCE_SECONDS without data."""
    buffer = b""
    while True:
        try:
            data = connection.recv(65536)
        except TimeoutError:
            yield None
            continue
        if not data:
            return
        *complete, buffer = (buffer + data).split(b"\n")
        for line in complete:
            yield line.decode()


def read(channel, host, port, position):
    """Handle one connection until it ends."""
    with socket.create_connection((host, port), timeout=SILENCE_SECONDS) as connection:

        def send(line):
            connection.sendall(line.encode() + b"\n")

        send(position.command(channel))
        ping_sent = False
        for line in lines(connection):
            if line is None:
                if ping_sent:
                    return
                send("PING")
                ping_sent = True
                continue
            ping_sent = False
            verb, _, rest = line.partition(" ")
            if verb == "OK":
                options = dict(word.split("=", 1) for word in rest.split(" ")[1:])
                if options["epoch"] != position.epoch:
                    if position.epoch is not None:
                        print("the channel was restarted: an unknown number of events is missing", flush=True)
                    position.epoch, position.offset = options["epoch"], int(options["offset"])
            elif verb == "MSG":
                _, offset, sender, payload = rest.split(" ", 3)
                print(f"{offset} {sender}: {payload}", flush=True)
                position.offset = int(offset)
            elif verb == "EVENT":
                _, offset, sender, name, payload = rest.split(" ", 4)
                print(f"{offset} {sender} ({name}): {payload}", flush=True)
                position.offset = int(offset)
            elif verb == "LOST":
                _, first, last = rest.split(" ")
                print(f"events {first} to {last} are missing", flush=True)
                position.offset = int(last)
            elif verb in ("ERR", "NOTICE"):
                print(line, file=sys.stderr, flush=True)


def main(channel="kitchen", host="127.0.0.1", port="8081"):
    position = Position()
    delay = 0.5
    while True:
        started = time.monotonic()
        try:
            read(channel, host, int(port), position)
        except OSError as error:
            print(f"{host}:{port}: {error}", file=sys.stderr, flush=True)
        if time.monotonic() - started > 10:  # the connection was stable
            delay = 0.5
        time.sleep(delay)
        delay = min(delay * 2, 30)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
