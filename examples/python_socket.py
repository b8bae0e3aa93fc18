#!/usr/bin/env python3
"""Reads a channel with a plain socket and nothing but Python; misses nothing when the connection breaks.

    python3 examples/python_socket.py [channel [host [port]]]
    python3 examples/python_socket.py kitchen 127.0.0.1 8081

What it keeps is two words: the epoch, and the offset of the last event that it has handled. With both it goes on after
that event, or hears exactly which events are gone.
"""

import socket
import sys
import time

SILENCE = 30.0
"""Seconds without a word after which we ask whether the bridge is still there; after twice that we believe not."""


class Position:
    """How far we have read: what has to survive the connection."""

    def __init__(self):
        self.epoch = None
        self.offset = 0

    def command(self, channel):
        if self.epoch is None:
            return f"SUB {channel}"
        return f"SUB {channel} since={self.offset} epoch={self.epoch}"


def lines(connection):
    """The lines that come in, however they are cut into packets; None for each SILENCE without one."""
    buffer = b""
    while True:
        try:
            data = connection.recv(65536)
        except TimeoutError:
            yield None
            continue
        if not data:
            return
        *whole, buffer = (buffer + data).split(b"\n")
        for line in whole:
            yield line.decode()


def read(channel, host, port, position):
    """One connection, from its first line to its last."""
    with socket.create_connection((host, port), timeout=SILENCE) as connection:

        def say(line):
            connection.sendall(line.encode() + b"\n")

        say(position.command(channel))
        asked = False
        for line in lines(connection):
            if line is None:
                if asked:
                    return
                say("PING")
                asked = True
                continue
            asked = False
            verb, _, rest = line.partition(" ")
            if verb == "OK":
                options = dict(word.split("=", 1) for word in rest.split(" ")[1:])
                if options["epoch"] != position.epoch:
                    if position.epoch is not None:
                        print("the bridge has begun anew: what happened in between is not known", flush=True)
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
                print(f"events {first} to {last} are lost", flush=True)
                position.offset = int(last)
            elif verb in ("ERR", "NOTICE"):
                print(line, file=sys.stderr, flush=True)


def main(channel="kitchen", host="127.0.0.1", port="8081"):
    position = Position()
    delay = 0.5
    while True:
        began = time.monotonic()
        try:
            read(channel, host, int(port), position)
        except OSError as error:
            print(f"{host}:{port}: {error}", file=sys.stderr, flush=True)
        if time.monotonic() - began > 10:  # it had worked for a while
            delay = 0.5
        time.sleep(delay)
        delay = min(delay * 2, 30)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except KeyboardInterrupt:
        pass
