"""The speaking half of a session; that replies are in order and bounded is tested with the whole of it."""

import gc
import weakref

from twistedsock.session.replies import nothing
from twistedsock.testing import FakeServer


class Witness:
    """Held by what a session calls back."""

    def ready(self) -> None: ...


def test_who_is_over_calls_nobody_back_and_holds_nobody() -> None:
    peer, witness = FakeServer().line_client(), Witness()
    peer.session.on_input_resumed = witness.ready
    gone = weakref.ref(witness)
    peer.disconnect()
    gc.disable()
    try:
        del witness
        assert gone() is None
    finally:
        gc.enable()
    assert peer.session.on_input_resumed() is False
    assert nothing() is False


def test_a_long_reply_has_a_midst() -> None:
    server = FakeServer()
    server.line_client().send(*["PUB k " + "x" * 30_000] * 9)
    server.turn()
    reader = server.line_client()
    reader.outlet.room = 1_000
    reader.send("HIST k")
    assert reader.session.has_unfinished_reply
    reader.outlet.drain()
    server.turn()
    assert not reader.session.has_unfinished_reply
