"""A chat server with Twisted: it sends the lines of each client to all.

.venv/bin/python examples/sockets/twisted_chat.py 9002
"""

import sys

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver


class Chat(LineReceiver):
    delimiter = b"\n"

    def connectionMade(self):
        self.factory.clients.add(self)

    def lineReceived(self, line):
        for client in self.factory.clients:
            client.sendLine(line)

    def connectionLost(self, reason):
        self.factory.clients.discard(self)


factory = Factory.forProtocol(Chat)
factory.clients = set()
listening = TCP4ServerEndpoint(reactor, int(sys.argv[1]), interface="127.0.0.1").listen(factory)
listening.addCallback(lambda port: print("listening on port", port.getHost().port, flush=True))
reactor.run()
