"""Makes `twistd sockbridge` known to Twisted. Our module is named by a string: listing plugins loads none of ours."""

from twisted.application.service import ServiceMaker

sockbridge = ServiceMaker(
    "sockbridge",
    "twistedsock.tap",
    "Let anything that can open a socket talk to anything that runs in a browser.",
    "sockbridge",
)
