"""The messages of ``server.http.relay`` between nodes, in MessagePack.

Nodes of a Redis can have different versions: new fields need defaults.
"""

import msgspec


class Message(msgspec.Struct, array_like=True, frozen=True): ...


class Request(Message, tag=1, frozen=True):
    """``number`` is unique for the relaying node, also after it was started again. ``id`` is that of the session."""

    number: int
    path: bytes
    id: bytes
    method: bytes
    content_type: bytes
    body: bytes
    principal: bytes


class Finish(Message, tag=2, frozen=True):
    """The client has been sent the answer, or it has disconnected before."""

    number: int
    is_delivered: bool


class Renew(Message, tag=3, frozen=True):
    """The requests that wait for an answer."""

    numbers: list[int]


class Release(Message, tag=4, frozen=True):
    """The relaying node shuts down: a request that only waits should be answered now."""

    number: int


class Rejected(Message, tag=5, frozen=True):
    """The body of a request was not complete, or too long."""

    path: bytes
    id: bytes


class Answer(Message, tag=6, frozen=True):
    """The answer to a request: a response, or an error if ``code`` is not empty."""

    number: int
    status: int | None
    content_type: bytes = b""
    body: bytes = b""
    code: bytes = b""
    message: str = ""


class Renewed(Message, tag=7, frozen=True):
    """The answer to ``Renew``, with the numbers that are not known: these requests will not be answered."""

    unknown: list[int]


encode = msgspec.msgpack.Encoder().encode

decode = msgspec.msgpack.Decoder(Request | Finish | Renew | Release | Rejected | Answer | Renewed).decode
"""Raises ``msgspec.MsgspecError``."""
