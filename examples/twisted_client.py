#!/usr/bin/env python3
"""Answers on a channel, with Twisted: whoever publishes "ping" there gets a "pong" from us. Comes back by itself.

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


class Answering(LineOnlyReceiver):
    """One connection."""

    delimiter = b"\n"
    MAX_LENGTH = 256 * 1024  # a line of the bridge may be longer than one to it: names and JSON escapes come on top

    def connectionMade(self):
        self.say("NICK pong")
        # Without echo=off we would have to tell our own events from others'.
        if self.factory.epoch is None:
            self.say(f"SUB {self.factory.channel} echo=off")
        else:
            self.say(f"SUB {self.factory.channel} since={self.factory.offset} epoch={self.factory.epoch} echo=off")

    def say(self, line):
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
                self.say(f"PUB {self.factory.channel} pong, {sender}")
        elif verb == "LOST":
            self.factory.offset = int(rest.split(" ")[2])
        elif verb in ("ERR", "NOTICE"):
            print(line.decode(), file=sys.stderr, flush=True)


class AnsweringFactory(Factory):
    """What outlives a connection: the channel, and how far we have read."""

    protocol = Answering
    noisy = False

    def __init__(self, channel):
        self.channel = channel
        self.epoch = None
        self.offset = 0


def main(reactor, channel="kitchen", endpoint="tcp:127.0.0.1:8081"):
    delay_after = backoffPolicy(maxDelay=30)

    def retry(failures):
        delay = delay_after(failures)
        print(f"{endpoint}: no connection, next try in {delay:.1f} s", file=sys.stderr, flush=True)
        return delay

    service = ClientService(clientFromString(reactor, endpoint), AnsweringFactory(channel), retryPolicy=retry)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    return Deferred()  # runs until it is stopped


if __name__ == "__main__":
    react(main, sys.argv[1:])
