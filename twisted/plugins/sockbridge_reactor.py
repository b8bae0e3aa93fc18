"""Registers `twistd --reactor=sockbridge`. The module is named by a string, so that listing plugins does not import the
package."""

from twisted.application.reactors import Reactor

sockbridge = Reactor(
    "sockbridge",
    "twistedsock.server.reactor",
    "epoll(7) without log prefixes: faster with many small messages.",
)
