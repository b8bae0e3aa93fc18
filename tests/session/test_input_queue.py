"""Tests of the queue of waiting input: it keeps the order, in little more memory than the bytes of the input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.pubsub.values import Payloads
from twistedsock.session.commands import Publish, Quit
from twistedsock.session.input_pipeline import MESSAGES_PER_PART, OBJECT_BYTES, InputQueue, Message


def rest(backlog: InputQueue) -> list[Message]:
    taken: list[Message] = []
    while backlog:
        some = backlog.take()
        assert 0 < len(some) <= MESSAGES_PER_PART
        taken += some
    assert backlog.take() == []
    return taken


@pytest.mark.parametrize("count", [0, 1, MESSAGES_PER_PART, MESSAGES_PER_PART + 1, 3 * MESSAGES_PER_PART])
def test_returns_messages_in_order(count: int) -> None:
    messages: list[Message] = [b"%d" % number * (number % 3) for number in range(count)]
    backlog = InputQueue()
    backlog.extend(messages)
    assert bool(backlog) is (count > 0)
    assert rest(backlog) == messages


def test_keeps_commands_between_messages() -> None:
    messages: list[Message] = [b"a"] * MESSAGES_PER_PART + [Quit()] + [b"b"] * MESSAGES_PER_PART
    backlog = InputQueue()
    backlog.extend(messages)
    assert rest(backlog) == messages


def test_returns_few_messages_together() -> None:
    backlog = InputQueue()
    for number in range(MESSAGES_PER_PART + 1):
        backlog.extend([b"%d" % number])
    assert [len(backlog.take()) for _ in range(3)] == [MESSAGES_PER_PART, 1, 0]


@given(st.lists(st.tuples(st.sampled_from(["extend", "put_back", "take"]), st.integers(0, 2_500)), max_size=6))
def test_stores_few_messages_as_a_list(steps: list[tuple[str, int]]) -> None:
    backlog, plain = InputQueue(), [b""][:0]
    for number, (step, count) in enumerate(steps):
        messages = [b"%d.%d" % (number, index) for index in range(count)]
        if step == "extend":
            backlog.extend(messages)
            plain = plain + messages
        elif step == "put_back":
            backlog.put_back(messages)
            plain = messages + plain
        else:
            taken = backlog.take()
            assert taken == plain[: len(taken)] and bool(taken) is bool(plain)
            plain = plain[len(taken) :]
    assert rest(backlog) == plain


def test_reports_its_size() -> None:
    backlog = InputQueue()
    assert backlog.size == 0
    backlog.extend([b"abc", Quit(), Publish(b"k", Payloads((b"de", b"f"), 3))])
    assert backlog.size == 3 * OBJECT_BYTES + 3 + 3 + 2 * OBJECT_BYTES
    backlog.take()
    backlog.extend([b"a"] * 3 * MESSAGES_PER_PART)
    assert backlog.size == 3 * (MESSAGES_PER_PART + MESSAGES_PER_PART * 4)
