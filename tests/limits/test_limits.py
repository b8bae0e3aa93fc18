"""The bounds of a bridge: their defaults, their names for operators, and what cannot be meant."""

import msgspec
import pytest

from twistedsock.limits.settings import CHUNK_BYTES, MAX_PUBLISHES_IN_FLIGHT, Limits

FIELDS = msgspec.structs.fields(Limits)


def test_a_log_keeps_what_the_protocol_says() -> None:
    limits = Limits()
    assert (limits.history_events, limits.history_bytes, limits.history_age) == (10_000, 4 * 1024 * 1024, 300)


def test_a_line_and_a_message_are_as_long_as_the_protocol_says() -> None:
    assert Limits().max_line_bytes == Limits().max_message_bytes == 65_536


def test_one_chunk_fits_a_message_of_a_peer() -> None:
    assert CHUNK_BYTES == 64 * 1024
    assert MAX_PUBLISHES_IN_FLIGHT == 1_000


def test_lag_skips_unless_told_otherwise() -> None:
    assert Limits().slow_consumer == "skip"


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_each_bound_is_explained_to_the_operator(field: msgspec.structs.FieldInfo) -> None:
    """The description is what ``--help`` shows; the name is written as options are."""
    assert "description" in repr(field.type)
    assert field.encode_name == field.name.replace("_", "-")


@pytest.mark.parametrize(
    "told",
    [
        {"history-events": -1},
        {"history-bytes": -1},
        {"history-age": -0.1},
        {"history-total-bytes": -1},
        {"max-line-bytes": 511},
        {"max-message-bytes": 16 * 1024 * 1024 + 1},
        {"max-channels": 0},
        {"max-subscriptions-per-client": 0},
        {"max-subscriptions": 0},
        {"max-connections": 0},
        {"max-connections-per-address": 0},
        {"max-buffered-bytes": 1024 * 1024 - 1},
        {"max-pending-presence": -1},
        {"commands-per-second": -1},
        {"commands-burst": 0},
        {"bytes-per-second": -0.5},
        {"bytes-burst": 0},
        {"handshake-timeout": 2},
        {"first-command-timeout": -1},
        {"read-timeout": -1},
        {"idle-timeout": -1},
        {"unreachable-timeout": -1},
        {"slow-consumer": "wait"},
    ],
    ids=repr,
)
def test_what_cannot_be_meant_is_refused(told: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(told, Limits)


@pytest.mark.parametrize(
    "told",
    [
        {"history-events": 0},
        {"history-age": 0},
        {"history-total-bytes": 0},
        {"slow-consumer": "close"},
        {"commands-per-second": 0.5},
    ],
    ids=repr,
)
def test_what_can_be_meant_is_taken(told: dict[str, object]) -> None:
    msgspec.convert(told, Limits)
