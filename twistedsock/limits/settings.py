"""The limits that an operator can set, with their defaults. Fixed limits stand beside the code that they protect.

Each field is an option of ``twistd sockbridge``, and a name in its TOML file.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

CHUNK_BYTES = 64 * 1024
"""The most that is joined into one ``send``, and so the most that a stalled client keeps in user space. Socket buffers
are of this size, so larger writes would seldom be accepted whole."""

TIME_SLICE_SECONDS = 0.005
"""The longest part of one reactor turn that the commands of one client can use, or all deferred work together. Other
clients do not notice a delay this short, and each continuation costs far less."""


def option(heading: str, unit: str, description: str, least: float | None = None, most: float | None = None) -> Meta:
    """Describe a setting for ``--help``: the heading that lists it, the placeholder of its value, and one phrase.
    ``least`` and ``most`` are the smallest and the largest value allowed."""
    return Meta(description=description, extra={"heading": heading, "unit": unit}, ge=least, le=most)


class Limits(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """Limits of one server. Sizes are bytes, times are seconds. docs/reference/options.md gives the reason for each
    default."""

    history_events: Annotated[int, option("History", "N", "events that a channel keeps", 0)] = 10_000
    history_bytes: Annotated[
        int, option("History", "BYTES", "bytes that a channel keeps, with up to 328 of bookkeeping per event", 0)
    ] = 4 * 1024 * 1024
    history_age: Annotated[float, option("History", "SECONDS", "how long a channel keeps an event", 0)] = 300.0
    history_total_bytes: Annotated[
        int,
        option("History", "BYTES", "bytes that all channels keep together; the largest client loses history first", 0),
    ] = 256 * 1024 * 1024
    slow_consumer: Annotated[
        Literal["skip", "close"],
        option(
            "History",
            "ACTION",
            "if a subscriber needs events that history has dropped already: skip them and report LOST, or close the "
            "connection",
        ),
    ] = "skip"
    max_line_bytes: Annotated[
        int, option("Limits", "BYTES", "maximum length of a line, without its end", 512, 16 * 1024 * 1024)
    ] = 65_536
    max_message_bytes: Annotated[
        int,
        option("Limits", "BYTES", "maximum size of a WebSocket message or an HTTP request body", 512, 16 * 1024 * 1024),
    ] = 65_536
    max_channels: Annotated[int, option("Limits", "N", "maximum number of channels", 1)] = 100_000
    max_subscriptions: Annotated[int, option("Limits", "N", "maximum number of subscriptions", 1)] = 250_000
    max_subscriptions_per_client: Annotated[
        int, option("Limits", "N", "maximum number of subscriptions of one client", 1)
    ] = 1_000
    max_connections: Annotated[int, option("Limits", "N", "maximum number of connections", 1)] = 16_000
    max_connections_per_address: Annotated[
        int,
        option(
            "Limits",
            "N",
            "maximum number of connections from one IPv4 address or IPv6 /64 network; loopback and Unix sockets are "
            "exempt",
            1,
        ),
    ] = 500
    max_connections_per_identity: Annotated[
        int,
        option("Limits", "N", "maximum number of connections of one identity, as a token or certificate proves it", 1),
    ] = 500
    max_buffered_bytes: Annotated[
        int,
        option("Limits", "BYTES", "maximum size of unfinished input and unsent output of all connections", 1024 * 1024),
    ] = 1024 * 1024 * 1024
    max_pending_presence: Annotated[
        int, option("Limits", "N", "joins and leaves kept for a slow subscriber, before it must send WHO again", 0)
    ] = 1_000
    commands_per_second: Annotated[
        float,
        option("Limits", "N", "commands per second of one remote client; each payload counts; 0: no limit", 0),
    ] = 1_000
    commands_burst: Annotated[
        int, option("Limits", "N", "commands that a remote client can send at once after a pause", 1)
    ] = 10_000
    bytes_per_second: Annotated[
        float, option("Limits", "N", "bytes per second of one remote client; 0: no limit", 0)
    ] = 1024 * 1024
    bytes_burst: Annotated[
        int, option("Limits", "BYTES", "bytes that a remote client can send at once after a pause", 1)
    ] = 8 * 1024 * 1024
    handshake_timeout: Annotated[
        int,
        option(
            "Timeouts",
            "SECONDS",
            "time for a TLS handshake, and for the first request of a web connection; minimum 3",
            3,
        ),
    ] = 10
    first_command_timeout: Annotated[
        float, option("Timeouts", "SECONDS", "time for the first line of a connection; 0: no limit", 0)
    ] = 300.0
    read_timeout: Annotated[
        float,
        option("Timeouts", "SECONDS", "time for the rest of a line, WebSocket message or HTTP request; 0: no limit", 0),
    ] = 60.0
    idle_timeout: Annotated[
        float, option("Timeouts", "SECONDS", "time for the next command; PING is one; 0: no limit", 0)
    ] = 0.0
    unreachable_timeout: Annotated[
        int,
        option(
            "Timeouts", "SECONDS", "time for the client's machine to acknowledge data (TCP); 0: the kernel decides", 0
        ),
    ] = 120


RESERVED_CHANNELS = 1_000
"""Channels of the server itself, beside ``max_channels``. Each page of a table that an operator looks at is one,
and so is each connection whose timeline an operator follows."""

RESERVED_EVENTS = 300
"""History of a channel of the server itself: five minutes of statistics, one event per second."""

RESERVED_BYTES = 256 * 1024
"""The same in bytes, because an event can hold a long table."""


def reserved_limits(limits: Limits) -> Limits:
    """Return the limits for the history of the server's own channels."""
    return msgspec.structs.replace(
        limits,
        history_events=min(limits.history_events, RESERVED_EVENTS),
        history_bytes=min(limits.history_bytes, RESERVED_BYTES),
    )


MAX_MEMBERS_HELD = 1_000_000
"""Members in all unsent replies to ``WHO`` together, 8 bytes each: sixty times a channel that every connection
subscribes to."""

MAX_PENDING_REPLY_WRITERS = 1_000
"""Clients whose replies wait for the end of the reactor turn, so that they leave in one ``send`` with the events. Each
holds up to ``CHUNK_BYTES``."""

MAX_PUBLISHES_IN_FLIGHT = 1_000
"""Publications of one client that a remote backplane has not confirmed: enough to fill a round trip of a millisecond,
and few enough that ten thousand clients cannot fill the memory."""
