"""The catalogue of refusals: its codes are the protocol's, its words are for people."""

import pytest

from twistedsock import errors
from twistedsock.errors import Error, ErrorCode

REFUSALS = {name: value for name, value in vars(errors).items() if isinstance(value, Error)}


def test_the_codes_are_those_of_the_protocol() -> None:
    assert {code.value.decode() for code in ErrorCode} == set(
        "unknown-command bad-argument bad-channel bad-name too-long not-utf8 not-subscribed unauthorized forbidden"
        " limit rate unavailable internal bad-json bad-type".split()
    )


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_has_words_for_one_line(name: str) -> None:
    error = REFUSALS[name]
    assert error.message.isprintable() and error.message


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.BAD_CHANNEL, "bad-channel"),
        (errors.BAD_EVENT_NAME, "bad-name"),
        (errors.BAD_NICK, "bad-name"),
        (errors.NICK_IS_AN_ID, "bad-name"),
        (errors.NOT_SUBSCRIBED, "not-subscribed"),
        (errors.SINCE_WITHOUT_EPOCH, "bad-argument"),
        (errors.TOO_MANY_CHANNELS, "limit"),
        (errors.TOO_MANY_SUBSCRIPTIONS, "limit"),
        (errors.TOO_MANY_SUBSCRIPTIONS_IN_ALL, "limit"),
        (errors.TOO_MANY_CONNECTIONS, "limit"),
        (errors.TOO_MANY_FROM_ADDRESS, "limit"),
        (errors.TOO_FAST, "rate"),
        (errors.TOO_MANY_ASK_WHO, "limit"),
        (errors.UNAVAILABLE, "unavailable"),
        (errors.INTERNAL, "internal"),
    ],
)
def test_a_refusal_has_the_code_that_scripts_look_for(error: Error, code: str) -> None:
    assert error.code.value.decode() == code
