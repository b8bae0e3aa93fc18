"""The protocol of subscribers in the server's own process."""

from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.native import (
    NATIVE_ENCODER,
    ClosingRecord,
    EventsRecord,
    LostRecord,
    RefusedRecord,
    ResetRecord,
    SubscribedRecord,
    read_records,
)
from twistedsock.codecs.payload import build_payloads
from twistedsock.errors import BAD_CHANNEL
from twistedsock.pubsub.values import Batch, Member, Page, PayloadKind, Payloads, Position, PresenceChange, Reset
from twistedsock.session.encoder import Endpoints, SessionInfo

ENDS = Endpoints(b"unix:-", b"unix:-")
ANN = Member(b"k3x9", b"ann")
AT = Position(b"5f2c1a", 17)

batches = st.builds(
    lambda first, payloads, kind, time: Batch(
        first, first + len(payloads), b"k3x9", b"ann", b"message", build_payloads(payloads, kind), time
    ),
    st.integers(1, 2**53),
    st.lists(st.binary(), min_size=1, max_size=5),
    st.sampled_from(PayloadKind),
    st.integers(0, 2**53),
)


@given(st.lists(batches, max_size=3))
def test_batches_are_read_as_they_were_written(several: list[Batch]) -> None:
    data = b"".join([NATIVE_ENCODER.batch(b"kitchen", batch, b"5f2c1a") for batch in several])
    records = list(read_records(data))
    assert [(record.epoch, list(record.batch.events())) for record in records if isinstance(record, EventsRecord)] == [
        (b"5f2c1a", list(batch.events())) for batch in several
    ]


def test_messages_of_a_subscription() -> None:
    data = b"".join(
        [
            NATIVE_ENCODER.subscribed(b"1", b"kitchen", AT, None),
            NATIVE_ENCODER.subscribed(b"1", b"kitchen", AT, False, 3),
            NATIVE_ENCODER.lost(b"kitchen", 3, 7),
            NATIVE_ENCODER.reset(b"kitchen", Reset(b"9ab3", 5, 7, None)),
            NATIVE_ENCODER.refused(None, BAD_CHANNEL),
            NATIVE_ENCODER.notice(b"the server is going away"),
        ]
    )
    assert list(read_records(data)) == [
        SubscribedRecord(AT, None, 18),
        SubscribedRecord(AT, False, 3),
        LostRecord(3, 7),
        ResetRecord(Position(b"9ab3", 7), 5),
        RefusedRecord(b"bad-channel", BAD_CHANNEL.message),
        ClosingRecord(b"the server is going away"),
    ]


def test_has_no_other_messages() -> None:
    encoder = NATIVE_ENCODER
    assert encoder.with_time() is encoder
    encoder.fell_behind(b"kitchen", 3)
    messages = [
        encoder.welcome(b"k3x9", ENDS),
        encoder.published((None,), 1),
        encoder.unsubscribed(None, b"kitchen"),
        encoder.nicked(None, b"ann"),
        encoder.authenticated(None, b"ann", None),
        encoder.pong(None, b""),
        encoder.facts(None, SessionInfo(ANN, ENDS, 1, 0, b"0.1.0")),
        *encoder.history(None, b"kitchen", [], AT),
        *encoder.members(None, b"kitchen", [ANN]),
        *encoder.channels(None, Page([], 0, None)),
        encoder.presence(b"kitchen", [PresenceChange(ANN, True)]),
        encoder.presence_lost(b"kitchen"),
        encoder.bye(b""),
    ]
    assert set(messages) == {b""}


def test_payloads_of_one_batch_share_their_names() -> None:
    batch = Batch(1, 3, b"k3x9", b"ann", b"message", Payloads((b"1", b"2"), 2))
    assert NATIVE_ENCODER.batch(b"kitchen", batch).count(b"ann") == 1
