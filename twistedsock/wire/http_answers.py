"""What HTTP answers, as JSON that is spliced from bytes which are JSON already. Each answer ends with a line end, as it
may be shown in a terminal; those that may be long come in pieces of about a chunk."""

from collections.abc import Iterable, Iterator, Sequence

from twistedsock.core.directory import Page
from twistedsock.core.errors import Refusal
from twistedsock.core.events import Member
from twistedsock.core.visitor import Kept, Place, Publishing
from twistedsock.wire.event_ids import write_place
from twistedsock.wire.json_dialect import events_in_pieces, lost_field, member_object
from twistedsock.wire.payloads import quote, quote_name


def published(channel: bytes, place: Place) -> bytes:
    """An event has got its place."""
    return b"%b\n" % _placed(channel, place.offset, place.epoch)


def results(
    asked: Iterable[Publishing | tuple[bytes, Refusal]], rows: Iterable[Publishing], outcomes: Iterable[Place | Refusal]
) -> Iterator[tuple[bytes, Place | Refusal]]:
    """What became of each that was asked for, in its order. ``rows`` are those that were published, with those in a row
    that are alike as one, and ``outcomes`` what became of them."""
    each = iter(list(_one_by_one(rows, outcomes)))
    for one in asked:
        yield one if isinstance(one, tuple) else next(each)


def _one_by_one(
    rows: Iterable[Publishing], outcomes: Iterable[Place | Refusal]
) -> Iterator[tuple[bytes, Place | Refusal]]:
    for row, outcome in zip(rows, outcomes, strict=True):
        for number in range(len(row.content)):
            if isinstance(outcome, Place):
                yield row.channel, Place(outcome.offset + number, outcome.epoch)
            else:
                yield row.channel, outcome


def published_together(results: Iterable[tuple[bytes, Place | Refusal]]) -> bytes:
    """What became of the events of the batch form, each with its channel."""
    told = [_result(channel, outcome) for channel, outcome in results]
    return b'{"results":[%b]}\n' % b",".join(told)


def _result(channel: bytes, outcome: Place | Refusal) -> bytes:
    if isinstance(outcome, Refusal):
        words = quote(outcome.words.encode())
        return b'{"channel":%b,"code":"%b","detail":%b}' % (quote(channel), outcome.code.value, words)
    return _placed(channel, outcome.offset, outcome.epoch)


def _placed(channel: bytes, offset: int, epoch: bytes) -> bytes:
    return b'{"channel":%b,"offset":%d,"epoch":%b}' % (quote_name(channel), offset, quote(epoch))


def history(kept: Kept) -> Iterator[bytes]:
    """What a log holds, in pieces; the log is read when the next piece is asked for. Every offset before ``next`` is
    that of an event, or in ``lost`` or ``gaps``."""
    following = write_place(Place(kept.position.head, kept.position.epoch))
    tail = b',"next":%b}\n' % quote(following)
    return events_in_pieces(kept.channel, kept.events, b"{" + head_of(kept), tail)


def head_of(kept: Kept) -> bytes:
    """What stands before the events, without the brace: the channel, where it stands, and what became of a place to go
    on from."""
    position = kept.position
    head = b'"channel":%b,"epoch":%b,"offset":%d' % (quote_name(kept.channel), quote(position.epoch), position.head)
    if kept.recovered is not None:
        head += b',"recovered":true' if kept.recovered else b',"recovered":false'
    return head + lost_field(kept.lost)


def tag(kept: Kept) -> bytes:
    """What tells an answer from another to the same question. It is weak, as the log may have let go events while they
    were being told (RFC 9110 section 8.8.1)."""
    return b'"%b:%d-%d"' % (kept.position.epoch, kept.start, kept.stop - 1)


def channels(page: Page) -> bytes:
    """A page of channels."""
    told = [
        b'{"channel":%b,"readers":%d,"offset":%d,"epoch":%b,"events":%d,"bytes":%d}'
        % (quote(one.channel), one.readers, one.position.head, quote(one.position.epoch), one.events, one.size)
        for one in page.channels
    ]
    return b'{"channels":[%b],"total":%d,"next":%b}\n' % (b",".join(told), page.total, _or_null(page.following))


def members(channel: bytes, page: Sequence[Member], readers: int, following: bytes | None) -> bytes:
    """A page of who reads a channel."""
    told = b",".join([member_object(member) for member in page])
    return b'{"channel":%b,"members":[%b],"readers":%d,"next":%b}\n' % (
        quote(channel),
        told,
        readers,
        _or_null(following),
    )


def _or_null(name: bytes | None) -> bytes:
    return b"null" if name is None else quote(name)
