"""The queue is bounded, the oldest gives way, and what gave way is counted once."""

from twistedsock.webhooks.queue import BATCH_BYTES, ENTRY_COST, Queue


def filled(count, most_events=1_000, most_bytes=10**9):
    queue = Queue(most_events, most_bytes)
    for number in range(1, count + 1):
        queue.add(b"%d" % number, float(number))
    return queue


def test_batches_come_in_order():
    queue = filled(5)
    first, second = queue.take("a", 3), queue.take("b", 3)
    assert (first.id, first.events, first.since, first.dropped) == ("a", [b"1", b"2", b"3"], 1.0, 0)
    assert (second.events, second.since) == ([b"4", b"5"], 4.0)
    assert (len(queue), queue.bytes) == (0, 0)


def test_a_batch_ends_where_it_is_large_and_has_one_event_at_least():
    queue = Queue(10, 10**9)
    for _ in range(2):
        queue.add(b"x" * (BATCH_BYTES + 1), 0.0)
    for _ in range(3):
        queue.add(b"x" * (BATCH_BYTES // 2), 0.0)
    assert [len(queue.take("", 100).events) for _ in range(4)] == [1, 1, 2, 1]


def test_the_oldest_give_way_and_the_next_batch_tells():
    queue = filled(5, most_events=3)
    assert queue.dropped == 2
    batch = queue.take("", 1)
    assert (batch.events, batch.dropped, batch.dropped_since) == ([b"3"], 2, 1.0)
    assert queue.take("", 1).dropped == 0


def test_bytes_are_bounded_with_their_bookkeeping():
    queue = Queue(1_000, 10 * (ENTRY_COST + 2))
    for _ in range(100):
        queue.add(b"xx", 0.0)
    assert (len(queue), queue.bytes, queue.dropped) == (10, 10 * (ENTRY_COST + 2), 90)
    assert queue.take("", 10).size == 10 * (ENTRY_COST + 2)


def test_one_that_is_larger_than_all_that_may_wait_is_dropped():
    queue = Queue(10, 1_000)
    queue.add(b"x" * 1_000, 0.0)
    assert (len(queue), queue.bytes, queue.dropped) == (0, 0, 1)


def test_what_was_given_up_is_told_by_the_next_with_what_it_would_have_told():
    queue = filled(5, most_events=4)
    batch = queue.take("", 2)
    assert batch.dropped == 1
    queue.give_up(batch)
    assert (queue.dropped, queue.overflowed) == (3, 1)
    batch = queue.take("", 2)
    assert (batch.events, batch.dropped, batch.dropped_since) == ([b"4", b"5"], 3, 1.0)


def test_what_was_dropped_meanwhile_is_told_with_it():
    queue = filled(2, most_events=2)
    batch = queue.take("", 1)
    queue.add(b"3", 3.0)
    queue.add(b"4", 4.0)
    queue.give_up(batch)
    batch = queue.take("", 1)
    assert (batch.events, batch.dropped, batch.dropped_since) == ([b"3"], 2, 1.0)


def test_the_bounds_can_change():
    queue = filled(5)
    queue.most_events = 2
    queue.shrink()
    assert queue.take("", 10).events == [b"4", b"5"]


def test_the_client_with_most_events_loses_its_oldest():
    queue = Queue(10, 10**9)
    for number in range(4):
        queue.add(b"modest%d" % number, 0.0, b"modest")
    for number in range(100):
        queue.add(b"greedy%d" % number, 1.0, b"greedy")
    events = queue.take("", 100).events
    assert events == [b"modest%d" % n for n in range(4)] + [b"greedy%d" % n for n in range(94, 100)]
    assert queue.dropped == 94 and (len(queue), queue.bytes) == (0, 0)


def test_the_client_with_most_bytes_loses_its_oldest():
    queue = Queue(1_000, 10 * (ENTRY_COST + 1_000))
    queue.add(b"modest", 0.0, b"modest")
    for number in range(100):
        queue.add(b"%d" % (number % 10) * 1_000, 1.0, b"greedy")
    events = queue.take("", 100).events
    assert events[0] == b"modest" and len(events) == 10 and queue.dropped == 91


def test_the_events_that_are_left_keep_their_order():
    queue = Queue(4, 10**9)
    for number in range(4):
        queue.add(b"a%d" % number, 0.0, b"a")
        queue.add(b"b%d" % number, 0.0, b"b")
    assert queue.take("", 100).events == [b"a2", b"b2", b"a3", b"b3"]
