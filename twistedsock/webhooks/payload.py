"""The JSON body of a delivery and its signature (docs/how-to/webhooks.md, "Requests")."""

import hmac
from collections.abc import Iterable, Iterator

from twistedsock.codecs.payload import payload_field, payload_to_json, quote, quote_name
from twistedsock.pubsub.values import TEXT, Batch
from twistedsock.webhooks.presence import Change

SIGNATURE_HEADER = "Sockbridge-Signature-256"
"""Its value has the same form as that of GitHub's X-Hub-Signature-256."""


def encode_change(change: Change) -> bytes:
    head = b'{"type":"%b","channel":%b,"time":%.3f' % (change.kind.encode(), quote_name(change.channel), change.time)
    member = change.member
    if member is None:
        return head + b"}"
    return head + b',"member":{"id":%b,"nick":%b}}' % (quote_name(member.id), quote_name(member.nick))


def encode_published(channel: bytes, epoch: bytes, batch: Batch) -> Iterator[bytes]:
    """An item for each event of a batch. Times are in seconds, as those of all items."""
    payloads = batch.payloads
    is_plain_text = payloads.is_plain and payloads.kind is TEXT
    field = payload_field(payloads.kind)
    head = b'{"type":"event-published","channel":%b,"time":%.3f,"epoch":%b,"from":%b,"name":%b,"offset":' % (
        quote_name(channel),
        batch.time / 1000,
        quote_name(epoch),
        quote_name(batch.sender),
        quote_name(batch.name),
    )
    for offset, payload in enumerate(payloads.items, batch.first):
        data = b'"%b"' % payload if is_plain_text else payload_to_json(payload, payloads.kind)
        yield b'%b%d,"%b":%b}' % (head, offset, field, data)


def encode_dropped(count: int, since: float, time: float) -> bytes:
    """Reports events that were dropped and will never be delivered."""
    return b'{"type":"dropped","count":%d,"since":%.3f,"time":%.3f}' % (count, since, time)


def encode_body(webhook: str, delivery: str, sent: float, events: Iterable[bytes]) -> bytes:
    head = (quote(webhook.encode()), quote(delivery.encode()), sent)
    return b'{"webhook":%b,"delivery":%b,"sent":%.3f,"events":[%b]}' % (*head, b",".join(events))


def sign(secret: bytes, body: bytes) -> str:
    """HMAC with SHA-256 (RFC 2104) of the body, in hex. It proves the sender and that the body was not changed."""
    return "sha256=" + hmac.digest(secret, body, "sha256").hex()
