"""Line clients in the states that the tests of sessions begin with."""

from twistedsock.testing import FakeServer, LateBackplane, LineClient


def settle(server: FakeServer) -> None:
    """Let the backplane answer everything, and run turns until the server is idle."""
    for _ in range(4):
        if isinstance(server.backplane, LateBackplane):
            server.backplane.release()
        server.turn()


def welcomed(server: FakeServer, *commands: str) -> LineClient:
    """A client that has received its welcome, and the replies to its commands."""
    peer = server.line_client()
    if commands:
        peer.send(*commands)
        settle(server)
    peer.received()
    return peer


def subscribed(server: FakeServer, options: str = "") -> LineClient:
    """A client that subscribes to channel a."""
    return welcomed(server, f"SUB a {options}".rstrip())


def ask(peer: LineClient, *commands: str) -> list[str]:
    """Send the commands, and return everything that the client receives until the server is idle."""
    peer.send(*commands)
    settle(peer.server)
    return peer.received()


def kinds(peer: LineClient) -> list[str]:
    """The first word of each line that the client has received."""
    return [line.split()[0] for line in peer.received()]
