"""The rows of the store, and reading them. The data of a row is batches as MessagePack, with a checksum."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from twistedsock.backplanes.sqlite_damage import DamageError, sign, verify
from twistedsock.pubsub.values import Batch, Payloads, StoredKind, cost, read_kind, store_kind

MAX_ROW_BYTES = 256 * 1024
"""Cost of the batches in a row that has several. A row is read as a whole, also if only a part of it is needed."""


MAX_SMALL_BYTES = 900
"""Data in the table ``batches`` itself. A row of it that exceeds 1,002 bytes takes a further page
(https://sqlite.org/fileformat2.html#b_tree_pages), so the file would be up to five times as large as the payloads."""


class _Batch(msgspec.Struct, array_like=True, gc=False):
    """A batch without its offsets, which follow from those of the row."""

    publisher: bytes
    sender: bytes
    name: bytes
    time: int
    kind: StoredKind
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
                store_kind(batch.payloads.kind),
                batch.payloads.is_plain,
                tuple(batch.payloads.items),
            )
            for batch in batches
        ]
    )
    return sign(data, batches[-1].end - 1)


def unpack(last: int, data: bytes) -> list[Batch]:
    """The batches of a row. ``last`` is the offset of its last event. Raises MsgspecError if the row is damaged, which
    can change the types of columns."""
    if not (isinstance(last, int) and isinstance(data, bytes)):
        raise msgspec.ValidationError("its columns have wrong types")
    stored = _decode(verify(data, last))
    first = last + 1 - sum([len(each.items) for each in stored])
    batches = []
    for each in stored:
        payloads = Payloads(each.items, sum(map(len, each.items)), read_kind(each.kind), each.is_plain)
        end = first + len(each.items)
        batches.append(Batch(first, end, each.publisher, each.sender, each.name, payloads, each.time))
        first = end
    return batches


def divide(batches: Sequence[Batch]) -> Iterator[Sequence[Batch]]:
    """The batches of each row."""
    start = size = 0
    for index, batch in enumerate(batches):
        size += cost(batch)
        if size > MAX_ROW_BYTES and index > start:
            yield batches[start:index]
            start, size = index, cost(batch)
    yield batches[start:]


def insert_row(connection: sqlite3.Connection, channel: int, last: int, time: int, size: int, data: bytes) -> None:
    large = None
    if len(data) > MAX_SMALL_BYTES:
        large = connection.execute("INSERT INTO large_data (data) VALUES (?)", (data,)).lastrowid
        data = b""
    connection.execute(
        "INSERT INTO batches (channel, last, time, size, data, large) VALUES (?, ?, ?, ?, ?, ?)",
        (channel, last, time, size, data, large),
    )


_DATA = "coalesce((SELECT large_data.data FROM large_data WHERE large_data.id = batches.large), batches.data)"
"""The data of a row of ``batches``."""


def data_column(connection: sqlite3.Connection) -> str:
    """The expression for the data of a row of ``batches`` in a file that can have an older version."""
    has_large = connection.execute("SELECT 1 FROM pragma_table_info('batches') WHERE name = 'large'").fetchone()
    return "data" if has_large is None else _DATA


class Row(NamedTuple):
    last: int
    time: int
    size: int
    data: bytes
    batches: list[Batch]


def newest_rows(connection: sqlite3.Connection, id: int, head: int, data_column: str = _DATA) -> Iterator[Row]:
    """The rows of a channel, beginning with the newest. Raises an error of damage if one is wrong or missing."""
    rows = connection.execute(f"SELECT last, {data_column} FROM batches WHERE channel = ? ORDER BY last DESC", (id,))
    for last, data in rows:
        batches = unpack(last, data)
        if last != head:
            raise DamageError(f"event {head} of a channel is missing")
        head = batches[0].first - 1
        yield Row(last, batches[-1].time, sum([batch.payloads.size for batch in batches]), data, batches)


def batches_from(connection: sqlite3.Connection, id: int, head: int, offset: int) -> Iterator[Batch]:
    """The events of a channel from an offset on. Raises an error of damage if one is wrong or missing."""
    rows = connection.execute(
        f"SELECT last, {_DATA} FROM batches WHERE channel = ? AND last >= ? ORDER BY last",
        (id, offset),
    )
    end = 0
    for last, data in rows:
        batches = unpack(last, data)
        if end and batches[0].first != end:
            raise DamageError(f"event {end} of a channel is missing")
        end = last + 1
        for batch in batches:
            if batch.end > offset:
                yield batch.part(offset, batch.end)
    if end and end != head + 1:
        raise DamageError(f"event {head} of a channel is missing")


def offset_before(connection: sqlite3.Connection, id: int, head: int, time: int) -> int:
    """The offset of the newest event of a channel that was published before ``time``, 0 if there is none. Searches by
    halves: times never decrease, and an index would cost each publication something."""
    # Rows that end at ``older`` or before are older than ``time``, and those that end after ``newer`` are not.
    older, newer = 0, head
    while older < newer:
        middle = (older + newer) // 2
        found = connection.execute(
            "SELECT last, time FROM batches WHERE channel = ? AND last > ? ORDER BY last LIMIT 1", (id, middle)
        ).fetchone()
        if found is not None and not (isinstance(found[0], int) and isinstance(found[1], int)):
            raise DamageError("a row of a channel has wrong types")
        if found is not None and found[1] < time:
            older = found[0]
        else:
            newer = middle
    # The next row can begin with older events.
    row = connection.execute(
        f"SELECT last, {_DATA} FROM batches WHERE channel = ? AND last > ? ORDER BY last LIMIT 1",
        (id, older),
    ).fetchone()
    batches = [] if row is None else unpack(*row)
    return max([older, *(batch.end - 1 for batch in batches if batch.time < time)])
