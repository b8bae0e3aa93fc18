"""Makes `twistd --reactor=sockbridge` known to Twisted. Our module is named by a string: listing plugins loads none of
ours."""

from twisted.application.reactors import Reactor

sockbridge = Reactor(
    "sockbridge",
    "twistedsock.server.reactor",
    "epoll(7), faster with many small events: without the name of the connection in Twisted's old log.",
)
