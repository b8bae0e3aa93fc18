"""Every bound that an operator can move, with its default; the fixed ones stand beside what they bound."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

CHUNK_BYTES = 64 * 1024
"""What is joined into one send at most. A reader that stalls keeps at most this much in user space. Sockets' own
buffers are of this order, so more would seldom leave at once."""

TIME_SLICE_SECONDS = 0.005
"""Seconds of one turn of the reactor that one peer's commands may take, and those of all who wait for more together:
what they make others wait is felt by nobody, and going on later costs next to nothing beside it."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """The bounds of one bridge. Sizes are bytes, ages are seconds. The description is shown by ``--help``."""

    history_events: Annotated[int, Meta(ge=0, description="events that a channel's log keeps")] = 10_000
    history_bytes: Annotated[
        int, Meta(ge=0, description="bytes that a channel's log keeps, up to 288 of bookkeeping an event included")
    ] = 4 * 1024 * 1024
    history_age: Annotated[float, Meta(ge=0, description="seconds that a channel's log keeps an event")] = 300.0
    history_total_bytes: Annotated[
        int,
        Meta(ge=0, description="bytes that all logs keep together; the client whose logs are largest gives way first"),
    ] = 256 * 1024 * 1024
    max_line_bytes: Annotated[
        int, Meta(ge=512, le=16 * 1024 * 1024, description="bytes in a line, without its end")
    ] = 65_536
    max_message_bytes: Annotated[int, Meta(ge=512, le=16 * 1024 * 1024, description="bytes in a WebSocket message")] = (
        65_536
    )
    max_channels: Annotated[int, Meta(ge=1, description="channels in all")] = 100_000
    max_subscriptions_per_client: Annotated[int, Meta(ge=1, description="channels that one peer subscribes to")] = 1_000
    max_subscriptions: Annotated[int, Meta(ge=1, description="subscriptions of all peers together")] = 250_000
    max_connections: Annotated[int, Meta(ge=1, description="connections in all, of every kind")] = 16_000
    max_connections_per_address: Annotated[
        int,
        Meta(
            ge=1,
            description="connections from one address, or one /64 of IPv6; loopback and Unix sockets are not counted",
        ),
    ] = 500
    max_connections_per_identity: Annotated[
        int, Meta(ge=1, description="connections of one identity, which is what tokens or certificates prove")
    ] = 500
    max_buffered_bytes: Annotated[
        int,
        Meta(
            ge=1024 * 1024,
            description="bytes of unfinished input and unread output that all connections hold together",
        ),
    ] = 1024 * 1024 * 1024
    max_pending_presence: Annotated[
        int, Meta(ge=0, description="joins and leaves kept for a reader that is behind, before it is told to ask WHO")
    ] = 1_000
    commands_per_second: Annotated[
        float,
        Meta(
            ge=0, description="commands a second of one remote client, each payload of a publish counted; 0: no limit"
        ),
    ] = 1_000
    commands_burst: Annotated[
        int, Meta(ge=1, description="commands that a remote client may send at once, after having been silent")
    ] = 10_000
    bytes_per_second: Annotated[
        float, Meta(ge=0, description="bytes a second that one remote client may send, whatever they say; 0: no limit")
    ] = 1024 * 1024
    bytes_burst: Annotated[
        int, Meta(ge=1, description="bytes that a remote client may send at once, after having been silent")
    ] = 8 * 1024 * 1024
    handshake_timeout: Annotated[
        int, Meta(ge=3, description="seconds for a handshake of TLS, and for the first request of a web connection")
    ] = 10
    first_command_timeout: Annotated[
        float, Meta(ge=0, description="seconds that a line peer has to say its first line; 0: no bound")
    ] = 300.0
    read_timeout: Annotated[
        float, Meta(ge=0, description="seconds within which a line, or a WebSocket message, must end; 0: no bound")
    ] = 60.0
    idle_timeout: Annotated[
        float, Meta(ge=0, description="seconds that a peer may say no command, a ping included; 0: no bound")
    ] = 0.0
    unreachable_timeout: Annotated[
        int, Meta(ge=0, description="seconds after which a peer whose machine does not answer is gone; 0: the kernel's")
    ] = 120
    slow_consumer: Annotated[
        Literal["skip", "close"],
        Meta(description="a reader so slow that the log has passed it: skip and tell it LOST, or close it"),
    ] = "skip"


RESERVED_CHANNELS = 1_000
"""The server's own channels at a time, beside those of ``max-channels``: each page of a table that somebody looks at is
one, and so is each connection whose steps somebody follows."""

RESERVED_EVENTS = 300
"""What a channel of the server's own keeps at most: five minutes of figures, one each second."""

RESERVED_BYTES = 256 * 1024
"""And in bytes, as some of them hold a long table in each event."""


def reserved_limits(limits: Limits) -> Limits:
    """The bounds of the logs of the server's own channels."""
    return msgspec.structs.replace(
        limits,
        history_events=min(limits.history_events, RESERVED_EVENTS),
        history_bytes=min(limits.history_bytes, RESERVED_BYTES),
    )


MAX_MEMBERS_HELD = 1_000_000
"""Members in all the answers to ``WHO`` together that wait for their peers to read them: 8 bytes each. It is sixty
times a channel that everybody reads."""

MAX_PENDING_REPLY_WRITERS = 1_000
"""Peers whose replies wait for the end of a turn, to leave in one burst with the events: up to a chunk each."""

MAX_PUBLISHES_IN_FLIGHT = 1_000
"""Publishes of one peer that wait for a distant backplane; enough to fill a millisecond of round trip, few enough
that ten thousand peers cannot fill the memory with them."""
