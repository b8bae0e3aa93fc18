"""The queue of a webhook: its limits, which events it drops, and how it counts them."""

from twistedsock.webhooks.queue import ENTRY_BYTES, MAX_BATCH_BYTES, EventQueue


def filled(count: int, max_events: int = 1_000, max_bytes: int = 10**9) -> EventQueue:
    queue = EventQueue(max_events, max_bytes)
    for number in range(1, count + 1):
        queue.add(b"%d" % number, float(number))
    return queue


def test_batches_are_in_order() -> None:
    queue = filled(5)
    first, second = queue.pop_batch("a", 3), queue.pop_batch("b", 3)
    assert (first.id, first.events, first.since, first.dropped) == ("a", [b"1", b"2", b"3"], 1.0, 0)
    assert (second.events, second.since) == ([b"4", b"5"], 4.0)
    assert (len(queue), queue.bytes) == (0, 0)


def test_batch_is_limited_in_bytes_but_has_an_event() -> None:
    queue = EventQueue(10, 10**9)
    for _ in range(2):
        queue.add(b"x" * (MAX_BATCH_BYTES + 1), 0.0)
    for _ in range(3):
        queue.add(b"x" * (MAX_BATCH_BYTES // 2), 0.0)
    assert [len(queue.pop_batch("", 100).events) for _ in range(4)] == [1, 1, 2, 1]


def test_drops_the_oldest_events_and_reports_them_with_the_next_batch() -> None:
    queue = filled(5, max_events=3)
    assert queue.dropped == 2
    batch = queue.pop_batch("", 1)
    assert (batch.events, batch.dropped, batch.dropped_since) == ([b"3"], 2, 1.0)
    assert queue.pop_batch("", 1).dropped == 0


def test_limit_of_bytes_includes_the_overhead_of_entries() -> None:
    queue = EventQueue(1_000, 10 * (ENTRY_BYTES + 2))
    for _ in range(100):
        queue.add(b"xx", 0.0)
    assert (len(queue), queue.bytes, queue.dropped) == (10, 10 * (ENTRY_BYTES + 2), 90)
    assert queue.pop_batch("", 10).size == 10 * (ENTRY_BYTES + 2)


def test_drops_an_event_larger_than_the_limit() -> None:
    queue = EventQueue(10, 1_000)
    queue.add(b"x" * 1_000, 0.0)
    assert (len(queue), queue.bytes, queue.dropped) == (0, 0, 1)


def test_batch_reports_the_events_of_a_dropped_batch() -> None:
    queue = filled(5, max_events=4)
    batch = queue.pop_batch("", 2)
    assert batch.dropped == 1
    queue.drop(batch)
    assert (queue.dropped, queue.overflowed) == (3, 1)
    batch = queue.pop_batch("", 2)
    assert (batch.events, batch.dropped, batch.dropped_since) == ([b"4", b"5"], 3, 1.0)


def test_batch_reports_events_dropped_during_a_request() -> None:
    queue = filled(2, max_events=2)
    batch = queue.pop_batch("", 1)
    queue.add(b"3", 3.0)
    queue.add(b"4", 4.0)
    queue.drop(batch)
    batch = queue.pop_batch("", 1)
    assert (batch.events, batch.dropped, batch.dropped_since) == ([b"3"], 2, 1.0)


def test_limits_can_change() -> None:
    queue = filled(5)
    queue.max_events = 2
    queue.enforce_limits()
    assert queue.pop_batch("", 10).events == [b"4", b"5"]


def test_the_client_with_max_events_loses_its_oldest() -> None:
    queue = EventQueue(10, 10**9)
    for number in range(4):
        queue.add(b"small%d" % number, 0.0, b"small")
    for number in range(100):
        queue.add(b"large%d" % number, 1.0, b"large")
    events = queue.pop_batch("", 100).events
    assert events == [b"small%d" % n for n in range(4)] + [b"large%d" % n for n in range(94, 100)]
    assert queue.dropped == 94 and (len(queue), queue.bytes) == (0, 0)


def test_the_client_with_max_bytes_loses_its_oldest() -> None:
    queue = EventQueue(1_000, 10 * (ENTRY_BYTES + 1_000))
    queue.add(b"small", 0.0, b"small")
    for number in range(100):
        queue.add(b"%d" % (number % 10) * 1_000, 1.0, b"large")
    events = queue.pop_batch("", 100).events
    assert events[0] == b"small" and len(events) == 10 and queue.dropped == 91


def test_remaining_events_keep_their_order() -> None:
    queue = EventQueue(4, 10**9)
    for number in range(4):
        queue.add(b"a%d" % number, 0.0, b"a")
        queue.add(b"b%d" % number, 0.0, b"b")
    assert queue.pop_batch("", 100).events == [b"a2", b"b2", b"a3", b"b3"]
