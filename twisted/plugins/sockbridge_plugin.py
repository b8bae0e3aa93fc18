"""Registers `twistd sockbridge`. The module is named by a string: listing plugins does not import the package."""

from twisted.application.service import ServiceMaker

sockbridge = ServiceMaker(
    "sockbridge",
    "twistedsock.tap",
    "Let anything that can open a socket talk to anything that runs in a browser.",
    "sockbridge",
)
