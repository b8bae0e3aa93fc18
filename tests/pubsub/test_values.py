"""Batches, payloads and their costs."""

import gc

import pytest

from twistedsock.pubsub.values import (
    BATCH_COST,
    BYTES,
    EVENT_COST,
    JSON,
    TEXT,
    Batch,
    Event,
    Member,
    PayloadKind,
    Payloads,
    PresenceChange,
    cost,
    read_kind,
    store_kind,
)

EVENT = Event(7, b"p1", b"ann", b"message", b"21.5", TEXT)
MEMBER = Member(b"p1", b"ann")
CONTENT = Payloads((b"21.5", b"", b"[1]"), 7, TEXT)
BATCH = Batch(7, 10, b"p1", b"ann", b"message", CONTENT)


@pytest.mark.parametrize(
    "value, field",
    [
        (EVENT, "offset"),
        (MEMBER, "nick"),
        (PresenceChange(MEMBER, True), "joined"),
        (CONTENT, "payloads"),
        (BATCH, "first"),
    ],
)
def test_values_are_frozen(value: object, field: str) -> None:
    with pytest.raises(AttributeError):
        setattr(value, field, None)


@pytest.mark.parametrize("value", [EVENT, BATCH, CONTENT])
def test_events_are_not_tracked_by_the_garbage_collector(value: object) -> None:
    """A log of many would be walked again and again otherwise."""
    assert not gc.is_tracked(value)


@pytest.mark.parametrize("size", [0, 1, 65_536])
def test_an_event_costs_its_payload_and_its_bookkeeping(size: int) -> None:
    alone = Batch(1, 2, b"p1", b"ann", b"message", Payloads((b"x" * size,), size))
    assert cost(alone) == BATCH_COST + EVENT_COST + size


def test_events_together_share_the_bookkeeping_of_their_batch() -> None:
    assert cost(BATCH) == BATCH_COST + 3 * EVENT_COST + 7


def test_iterates_over_the_events_of_a_batch() -> None:
    assert len(BATCH) == len(CONTENT) == 3
    assert [*BATCH.events()] == [
        EVENT,
        Event(8, b"p1", b"ann", b"message", b"", TEXT),
        Event(9, b"p1", b"ann", b"message", b"[1]", TEXT),
    ]


@pytest.mark.parametrize("kind, is_plain", [(JSON, False), (TEXT, True), (BYTES, False)])
@pytest.mark.parametrize("start, stop", [(0, 9), (7, 10), (7, 8), (8, 10), (8, 9), (9, 99)])
def test_part_has_the_events_between_two_offsets(start: int, stop: int, kind: PayloadKind, is_plain: bool) -> None:
    whole = Batch(7, 10, b"p1", b"ann", b"alarm", Payloads([b"21.5", b"", b"[1]"], 7, kind, is_plain))
    part = whole.part(start, stop)
    assert [*part.events()] == [event for event in whole.events() if start <= event.offset < stop]
    assert len(part) == len(part.payloads) and part.payloads.size == sum(map(len, part.payloads.items))
    assert (part.payloads.kind, part.payloads.is_plain) == (kind, is_plain)


def test_part_of_all_events_is_the_batch_itself() -> None:
    assert BATCH.part(0, 99) is BATCH


@pytest.mark.parametrize(("kind", "stored"), [(TEXT, False), (JSON, True), (BYTES, BYTES)])
def test_kinds_are_stored_so_that_older_versions_can_read_text_and_json(kind: PayloadKind, stored: object) -> None:
    assert store_kind(kind) is stored and read_kind(store_kind(kind)) is kind
