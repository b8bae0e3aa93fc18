"""One peer, and what its connection has gone through."""

import msgspec

from twistedsock.session.timeline import ConnectionInfo, Step

_LESSONS = {
    "accepted": "The kernel finished the TCP handshake (SYN, SYN-ACK, ACK) and gave the bridge a socket for it.",
    "accepted unix": "The kernel connected two ends of a Unix socket: no packets, only memory of this machine.",
    "proxied": "A proxy stands in between: before all else it told, in a PROXY header, whose connection this is.",
    "handshake TLS": "The TLS handshake is complete: both ends have the same keys, the network sees ciphertext only.",
    "handshake WebSocket": "An HTTP request asked for an upgrade, and the answer 101 made a WebSocket of the same TCP "
    "connection: from here on, frames travel both ways.",
    "handshake events": "An HTTP request asked for a stream of events, and its answer has begun: it does not end "
    "before the connection does.",
    "open": "The bridge gave the peer an id and said welcome; now each side may speak whenever it likes.",
    "authenticated": "The peer has proved who it is: {detail}.",
    "behind": "The peer reads more slowly than events come, so its receive window and the send buffer here are full; "
    "instead of a queue, the bridge keeps one number for it ({detail}).",
    "caught-up": "The peer has read, its window opened, the buffer drained, and the bridge sent the rest from the "
    "channel's log ({detail}).",
    "lost": "The log let go of events before the peer had read them; it was told exactly which ({detail}).",
    "closing peer": "The peer has finished ({detail}); what it asked for before is still answered, then the bridge "
    "ends its own half of the connection with a FIN.",
    "closing server": "The bridge said its last words ({detail}) and ended its half of the connection with a FIN; it "
    "waits a while for the peer to end the other half.",
    "closed": "The connection is over, and its socket is given back to the kernel.",
    "closed cleanly": "Both halves have ended; the side that was first to close keeps the pair of addresses in "
    "TIME-WAIT for a while, so that late packets meet no other connection.",
    "closed broken": "The connection broke: the other machine answered with a reset (RST), or did not answer any more.",
    "closed aborted": "The bridge cut the connection off with a reset (RST), as waiting any longer was of no use.",
}


def step_description(step: Step, over_unix: bool = False) -> str:
    """The sentence for a step; "" where there is none."""
    special = "unix" if over_unix and step.name == "accepted" else step.by or step.words
    words = _LESSONS.get(f"{step.name} {special}") or _LESSONS.get(step.name, "")
    return words.format(detail=step.words)


_encode = msgspec.json.Encoder().encode


class ToldStep(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """``at`` is in seconds since 1970. ``detail`` is what there is to say of just this one."""

    at: float
    step: str
    words: str
    detail: str = ""
    by: str = ""


class Timeline(msgspec.Struct, frozen=True):
    peer: ConnectionInfo | None
    steps: list[ToldStep]


def told(step: Step, epoch: float, over_unix: bool) -> ToldStep:
    """``epoch`` is when the broker's clock stood at 0, in seconds since 1970."""
    return ToldStep(round(step.at + epoch, 6), step.name, step_description(step, over_unix), step.words, step.by)


def timeline(record: ConnectionInfo, steps: list[Step], epoch: float) -> bytes:
    """The page of one peer."""
    over_unix = record.client.startswith("unix:")
    return _encode(Timeline(record, [told(step, epoch, over_unix) for step in steps]))


UNKNOWN = _encode(Timeline(None, []))
"""The page of an id that no session has, and none of those that ended last."""

# TODO-MERGED-DOC: What a socket goes through at each step of a connection, in one sentence each: the words of
# the timeline.
