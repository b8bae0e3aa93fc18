#!/usr/bin/env python3
"""Replies "pong" to each "ping" on a channel, with Twisted. Reconnects automatically.

    python3 examples/twisted_client.py [channel [endpoint]]
    python3 examples/twisted_client.py kitchen tcp:127.0.0.1:8081

The endpoint is a Twisted client endpoint string: tls:example.org:8443 and unix:/run/sockbridge work as well.
"""

import sys

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory
from twisted.internet.task import react
from twisted.protocols.basic import LineOnlyReceiver


class PongProtocol(LineOnlyReceiver):
    """One connection."""

    delimiter = b"\n"
    MAX_LENGTH = 256 * 1024  # lines of the server can be longer than ours: they also contain names and JSON escapes

    def connectionMade(self):
        self.send("NICK pong")
        # echo=off excludes our own events.
        if self.factory.epoch is None:
            self.send(f"SUB {self.factory.channel} echo=off")
        else:
            self.send(f"SUB {self.factory.channel} since={self.factory.offset} epoch={self.factory.epoch} echo=off")

    def send(self, line):
        self.sendLine(line.encode())

    def lineReceived(self, line):
        verb, _, rest = line.decode().partition(" ")
        if verb == "OK" and " epoch=" in rest:
            options = dict(word.split("=", 1) for word in rest.split(" ")[1:])
            if options["epoch"] != self.factory.epoch:
                self.factory.epoch, self.factory.offset = options["epoch"], int(options["offset"])
        elif verb == "MSG":
            _, offset, sender, payload = rest.split(" ", 3)
            self.factory.offset = int(offset)
            print(f"{sender}: {payload}", flush=True)
            if payload == "ping":
                self.send(f"PUB {self.factory.channel} pong, {sender}")
        elif verb == "LOST":
            self.factory.offset = int(rest.split(" ")[2])
        elif verb in ("ERR", "NOTICE"):
            print(line.decode(), file=sys.stderr, flush=True)


class PongFactory(Factory):
    """State that survives reconnections: the channel, and the position in it."""

    protocol = PongProtocol
    noisy = False

    def __init__(self, channel):
        self.channel = channel
        self.epoch = None
        self.offset = 0


def main(reactor, channel="kitchen", endpoint="tcp:127.0.0.1:8081"):
    delay_after = backoffPolicy(maxDelay=30)

    def retry(failures):
        delay = delay_after(failures)
        print(f"{endpoint}: no connection, next attempt in {delay:.1f} s", file=sys.stderr, flush=True)
        return delay

    service = ClientService(clientFromString(reactor, endpoint), PongFactory(channel), retryPolicy=retry)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    return Deferred()  # runs until it is stopped


if __name__ == "__main__":
    react(main, sys.argv[1:])
