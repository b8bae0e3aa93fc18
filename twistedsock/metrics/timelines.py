"""The page of one connection: its state, its subscriptions, and its steps, each with an explanation."""

from collections.abc import Sequence
from heapq import nlargest
from itertools import islice

import msgspec

from twistedsock.session.connection_info import ConnectionInfo
from twistedsock.session.session import Session
from twistedsock.session.timeline import Step

_DESCRIPTIONS = {
    "accepted": "The kernel completed the TCP handshake (SYN, SYN-ACK, ACK) and gave the server a socket.",
    "accepted unix": "The kernel connected both ends of a Unix socket: no packets, only memory of this machine.",
    "proxied": "A proxy forwards this connection. It reported the address of the client in a PROXY header.",
    "handshake TLS": "The TLS handshake is complete: both ends share keys, and the network sees ciphertext only.",
    "handshake WebSocket": "An HTTP request asked for an upgrade. With the response 101, the TCP connection became a "
    "WebSocket, which carries frames in both directions.",
    "handshake events": "An HTTP request asked for a stream of events. The response has begun and ends with the "
    "connection.",
    "open": "The server sent a welcome with the id of the client. Both sides can send at any time from now on.",
    "authenticated": "The client proved its identity: {detail}.",
    "behind": "The client reads more slowly than events arrive, so its receive window and the send buffer are full. "
    "The server does not queue events: it keeps the offset of the next one ({detail}).",
    "caught-up": "The client read, its receive window opened, the send buffer drained, and the server sent the "
    "remaining events from the history ({detail}).",
    "lost": "The history dropped events that the client had not received. It was notified ({detail}).",
    "closing peer": "The client is done ({detail}). The server answers its pending commands, then sends a FIN to end "
    "its half of the connection.",
    "closing server": "The server sent its last message ({detail}) and a FIN to end its half of the connection. It "
    "waits for the client to end the other half.",
    "closed": "The connection is closed. Its socket was returned to the kernel.",
    "closed cleanly": "Both halves are closed. The side that closed first keeps the pair of addresses in TIME-WAIT for "
    "a while, so that late packets cannot reach a new connection.",
    "closed broken": "The connection broke: the other machine sent a reset (RST) or stopped responding.",
    "closed aborted": "The server aborted the connection with a reset (RST), because waiting longer was pointless.",
}


def step_description(step: Step, over_unix: bool = False) -> str:
    """The explanation of a step, or an empty string."""
    special = "unix" if over_unix and step.name == "accepted" else step.by or step.words
    description = _DESCRIPTIONS.get(f"{step.name} {special}") or _DESCRIPTIONS.get(step.name, "")
    return description.format(detail=step.words)


_encode = msgspec.json.Encoder().encode


class TimelineStep(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    at: float
    """Seconds since 1970."""
    step: str
    words: str
    """The explanation for readers."""
    detail: str = ""
    by: str = ""


class SubscriptionRow(msgspec.Struct, frozen=True, gc=False):
    channel: str
    lag: int
    """Events that were not sent yet."""


MAX_SUBSCRIPTION_ROWS = 50
"""Half of an event, if their names are as long as possible."""


class ConnectionTimeline(msgspec.Struct, frozen=True, omit_defaults=True):
    peer: ConnectionInfo | None
    steps: list[TimelineStep]
    subscriptions: list[SubscriptionRow] = []
    """The first ones of many: those that are furthest behind. Empty when the connection is closing."""


def timeline_step(step: Step, epoch: float, over_unix: bool) -> TimelineStep:
    """``epoch`` is the time when the broker's clock was 0, in seconds since 1970."""
    description = step_description(step, over_unix)
    return TimelineStep(round(step.at + epoch, 6), step.name, description, step.words, step.by)


def subscription_rows(session: Session) -> list[SubscriptionRow]:
    """The subscriptions of a session: those that are furthest behind first, then the others in their order."""
    behind = [
        (subscription.channel.history.end - subscription.cursor, subscription.channel.name)
        for subscription in session.behind
    ]
    rows = [SubscriptionRow(name.decode(), lag) for lag, name in nlargest(MAX_SUBSCRIPTION_ROWS, behind)]
    others = (name for name, subscription in session.subscriptions.items() if subscription not in session.behind)
    return rows + [SubscriptionRow(name.decode(), 0) for name in islice(others, MAX_SUBSCRIPTION_ROWS - len(rows))]


def timeline(
    info: ConnectionInfo, steps: list[Step], epoch: float, subscriptions: Sequence[SubscriptionRow] = ()
) -> bytes:
    """The encoded page of one connection."""
    over_unix = info.client.startswith("unix:")
    described = [timeline_step(step, epoch, over_unix) for step in steps]
    return _encode(ConnectionTimeline(info, described, list(subscriptions)))


UNKNOWN = _encode(ConnectionTimeline(None, []))
"""The page of an id that belongs to no session, present or recent."""
