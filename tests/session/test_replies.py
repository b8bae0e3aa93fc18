"""Replies: those to publishes in their order, and those that are longer than a socket accepts."""

from twistedsock.errors import UNAVAILABLE
from twistedsock.session.replies import NO_INPUT, PendingReplies
from twistedsock.testing import FakeServer


def test_replies_in_order_are_ready_at_once() -> None:
    replies = PendingReplies()
    first, second = replies.add([b"1"]), replies.add([b"2", b"3"])
    assert replies and replies.publishes == 3
    assert replies.resolve(first, 7) == [([b"1"], 7)]
    assert replies.resolve(second, 8) == [([b"2", b"3"], 8)]
    assert not replies and replies.publishes == 0 and not replies.has_out_of_order()


def test_a_later_reply_waits_for_those_before_it() -> None:
    replies = PendingReplies()
    first, second, third = (replies.add([tag]) for tag in (b"1", b"2", b"3"))
    assert replies.resolve(third, UNAVAILABLE) == [] and replies.resolve(second, 2) == []
    assert replies.has_out_of_order() and replies.publishes == 3
    assert replies.resolve(first, 1) == [([b"1"], 1), ([b"2"], 2), ([b"3"], UNAVAILABLE)]
    assert not replies and not replies.has_out_of_order()


def test_offset_zero_is_a_result() -> None:
    replies = PendingReplies()
    assert replies.resolve(replies.add([None]), 0) == [([None], 0)]
    assert not replies and replies.publishes == 0


def test_a_closed_session_does_not_reference_its_pipeline() -> None:
    client = FakeServer().line_client()
    client.disconnect()
    assert client.session.replies.input is NO_INPUT


def test_input_of_a_closed_session_ignores_calls() -> None:
    NO_INPUT.pause_if_idle()
    NO_INPUT.resume()


def test_a_long_reply_is_unfinished_until_the_client_reads_it(server: FakeServer) -> None:
    server.line_client().send(*["PUB k " + "x" * 30_000] * 9)
    server.turn()
    reader = server.line_client()
    reader.outlet.room = 1_000
    reader.send("HIST k")
    assert reader.session.replies.has_unfinished_reply
    reader.outlet.drain()
    server.turn()
    assert not reader.session.replies.has_unfinished_reply
