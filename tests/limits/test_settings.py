"""The limits that an operator can set: defaults, and the range of each value."""

from typing import get_type_hints

import msgspec
import pytest

from twistedsock.limits.settings import Limits

AT_LEAST_0 = (
    *("history-events", "history-bytes", "history-age", "history-total-bytes", "max-pending-presence"),
    *("commands-per-second", "bytes-per-second", "unreachable-timeout"),
    *("first-command-timeout", "read-timeout", "idle-timeout"),
)
AT_LEAST_1 = (
    *("max-channels", "max-subscriptions", "max-subscriptions-per-client", "max-connections"),
    *("max-connections-per-address", "max-connections-per-identity", "commands-burst", "bytes-burst"),
)
MINIMA = {
    **dict.fromkeys(AT_LEAST_0, 0),
    **dict.fromkeys(AT_LEAST_1, 1),
    **{"max-line-bytes": 512, "max-message-bytes": 512, "max-buffered-bytes": 1024 * 1024, "handshake-timeout": 3},
}
MAXIMA = {"max-line-bytes": 16 * 1024 * 1024, "max-message-bytes": 16 * 1024 * 1024}


def test_defaults_are_those_of_the_protocol_documentation() -> None:
    limits = Limits()
    assert (limits.history_events, limits.history_bytes, limits.history_age) == (10_000, 4 * 1024 * 1024, 300)
    assert limits.max_line_bytes == limits.max_message_bytes == 65_536
    assert limits.slow_consumer == "skip"


def test_each_limit_has_a_description_and_a_heading() -> None:
    for field, hint in get_type_hints(Limits, include_extras=True).items():
        (meta,) = hint.__metadata__
        assert meta.description and meta.extra["heading"] and meta.extra["unit"], field


def test_each_number_has_a_minimum() -> None:
    names = {field.encode_name for field in msgspec.structs.fields(Limits)}
    assert MINIMA.keys() == names - {"slow-consumer"}


@pytest.mark.parametrize(("name", "value"), [*MINIMA.items(), *MAXIMA.items(), ("slow-consumer", "close")])
def test_accepts_smallest_and_largest_value(name: str, value: object) -> None:
    assert msgspec.to_builtins(msgspec.convert({name: value}, Limits))[name] == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, least - 1) for name, least in MINIMA.items()),
        *((name, most + 1) for name, most in MAXIMA.items()),
        ("slow-consumer", "wait"),
    ],
)
def test_rejects_value_out_of_range(name: str, value: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({name: value}, Limits)
