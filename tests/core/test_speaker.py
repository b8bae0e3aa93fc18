"""The speaking half of a session; that replies are in order and bounded is tested with the whole of it."""

import gc
import weakref

from twistedsock.core.speaker import nothing
from twistedsock.testing import Hall


class Witness:
    """Held by what a session calls back."""

    def ready(self) -> None: ...


def test_who_is_over_calls_nobody_back_and_holds_nobody() -> None:
    peer, witness = Hall().line_peer(), Witness()
    peer.session.on_ready = witness.ready
    gone = weakref.ref(witness)
    peer.leaves()
    gc.disable()
    try:
        del witness
        assert gone() is None
    finally:
        gc.enable()
    assert peer.session.on_ready() is False
    assert nothing() is False
