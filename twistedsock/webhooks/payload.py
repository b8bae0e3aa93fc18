"""What a delivery says, as JSON (docs/webhooks.md, "What is sent")."""

import hmac
from collections.abc import Iterable, Iterator

from twistedsock.codecs.payload import payload_to_json, quote, quote_name
from twistedsock.pubsub.values import TEXT
from twistedsock.pubsub.values import Batch as Published
from twistedsock.webhooks.presence import Change


def write_change(change: Change) -> bytes:
    """Somebody came or went."""
    head = b'{"type":"%b","channel":%b,"time":%.3f' % (change.kind.encode(), quote_name(change.channel), change.time)
    member = change.member
    if member is None:
        return head + b"}"
    return head + b',"member":{"id":%b,"nick":%b}}' % (quote_name(member.id), quote_name(member.nick))


def write_published(channel: bytes, epoch: bytes, batch: Published, time: float) -> Iterator[bytes]:
    """Each event of a batch."""
    payloads = batch.payloads
    is_plain_text = payloads.is_plain and payloads.kind is TEXT
    head = b'{"type":"event-published","channel":%b,"time":%.3f,"epoch":%b,"from":%b,"name":%b,"offset":' % (
        quote_name(channel),
        time,
        quote_name(epoch),
        quote_name(batch.sender),
        quote_name(batch.name),
    )
    for offset, payload in enumerate(payloads.items, batch.first):
        data = b'"%b"' % payload if is_plain_text else payload_to_json(payload, payloads.kind)
        yield b'%b%d,"data":%b}' % (head, offset, data)


def write_dropped(count: int, since: float, time: float) -> bytes:
    """What will never be told."""
    return b'{"type":"dropped","count":%d,"since":%.3f,"time":%.3f}' % (count, since, time)


def write_body(webhook: str, delivery: str, sent: float, events: Iterable[bytes]) -> bytes:
    """The whole of a request."""
    head = (quote(webhook.encode()), quote(delivery.encode()), sent)
    return b'{"webhook":%b,"delivery":%b,"sent":%.3f,"events":[%b]}' % (*head, b",".join(events))


SIGNATURE = "Sockbridge-Signature-256"
"""The header, with the same value as GitHub's X-Hub-Signature-256."""


def sign(secret: bytes, body: bytes) -> str:
    """HMAC with SHA-256 (RFC 2104) over the body as it is sent, in hex."""
    return "sha256=" + hmac.digest(secret, body, "sha256").hex()


# TODO-MERGED-DOC: The signature of a delivery, by which its receiver knows who sent it, and that nobody has
# changed it.
