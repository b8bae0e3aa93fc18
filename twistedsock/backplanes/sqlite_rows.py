"""The data of a row of the store: batches as MessagePack, with a checksum."""

from collections.abc import Sequence

import msgspec

from twistedsock.backplanes.sqlite_damage import sign, verify
from twistedsock.pubsub.values import Batch, PayloadKind, Payloads


class _Batch(msgspec.Struct, array_like=True, gc=False):
    """A batch without its offsets, which follow from those of the row."""

    publisher: bytes
    sender: bytes
    name: bytes
    time: int
    is_json: bool
    is_plain: bool
    items: tuple[bytes, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[_Batch, ...]).decode


def pack(batches: Sequence[Batch]) -> bytes:
    """The data of a row. The batches follow each other."""
    data = _encode(
        [
            _Batch(
                batch.publisher,
                batch.sender,
                batch.name,
                batch.time,
                batch.payloads.kind is PayloadKind.JSON,
                batch.payloads.is_plain,
                tuple(batch.payloads.items),
            )
            for batch in batches
        ]
    )
    return sign(data, batches[-1].end - 1)


def unpack(last: int, data: bytes) -> list[Batch]:
    """The batches of a row. ``last`` is the offset of its last event. Raises MsgspecError if the row is damaged."""
    stored = _decode(verify(data, last))
    first = last + 1 - sum([len(each.items) for each in stored])
    batches = []
    for each in stored:
        kind = PayloadKind.JSON if each.is_json else PayloadKind.TEXT
        payloads = Payloads(each.items, sum(map(len, each.items)), kind, each.is_plain)
        end = first + len(each.items)
        batches.append(Batch(first, end, each.publisher, each.sender, each.name, payloads, each.time))
        first = end
    return batches
