"""Query parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.query import MAX_PARAMETERS, QueryParameters, read_pagination
from twistedsock.errors import ErrorCode
from twistedsock.session.history_query import Moment


def error(what) -> str:
    """The message of the ``ApiError`` that ``what`` raises."""
    with pytest.raises(ApiError) as refused:
        what()
    assert refused.value.error.code is ErrorCode.BAD_ARGUMENT
    return refused.value.error.message


def test_decodes_values() -> None:
    arguments = QueryParameters(b"name=a%20b+c&nick=%C3%A9&empty=&bare&&x=1=2")
    assert arguments.text("name") == "a b c"
    assert arguments.text("nick") == "é"
    assert (arguments.text("empty"), arguments.text("bare"), arguments.text("x")) == ("", "", "1=2")
    assert arguments.text("other") is None
    assert "name" in arguments and "other" not in arguments


def test_accepts_empty_query() -> None:
    QueryParameters(b"").allow_only(())


def test_accepts_repeated_parameter_if_allowed() -> None:
    arguments = QueryParameters(b"channel=a&channel=b&wait=1")
    arguments.allow_only(("wait",), repeated=("channel",))
    assert arguments.texts("channel") == ["a", "b"]
    assert arguments.texts("other") == []


def test_rejects_unknown_parameter() -> None:
    assert error(lambda: QueryParameters(b"since=1&colour=red").allow_only(("since",))) == ("colour: unknown parameter")


def test_rejects_repeated_parameter() -> None:
    assert error(lambda: QueryParameters(b"since=1&since=1").allow_only(("since",))) == "since: given more than once"


def test_ignores_token() -> None:
    QueryParameters(b"token=secret").allow_only(())


@pytest.mark.parametrize("query", [b"name=%FF", b"name=\xff"])
def test_rejects_value_that_is_not_utf8(query) -> None:
    assert error(lambda: QueryParameters(query)) == "name: expected UTF-8, percent-encoded"


def test_rejects_name_that_is_not_utf8() -> None:
    assert error(lambda: QueryParameters(b"%FF=1")).startswith("the query: ")


def test_rejects_parameters_over_the_limit() -> None:
    QueryParameters(b"&".join([b"a=1"] * MAX_PARAMETERS))
    assert "at most" in error(lambda: QueryParameters(b"&".join([b"a=1"] * (MAX_PARAMETERS + 1))))


@pytest.mark.parametrize(("text", "value"), [(b"0", 0), (b"7", 7), (b"1000", 1000), (b"0007", 7)])
def test_reads_integer(text, value) -> None:
    assert QueryParameters(b"last=" + text).integer("last", 1000) == value
    assert QueryParameters(b"").integer("last", 1000) is None


@pytest.mark.parametrize("text", [b"", b"-1", b"1.5", b"1001", b"x", b"%D9%A1", b"9" * 5000, b"1_0"])
def test_rejects_invalid_integer(text) -> None:
    assert error(lambda: QueryParameters(b"last=" + text).integer("last", 1000)) == (
        "last: expected a whole number from 0 to 1000"
    )


def test_rejects_integer_below_minimum() -> None:
    assert "from 1 to 9" in error(lambda: QueryParameters(b"limit=0").integer("limit", 9, least=1))


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        (b"17", 17),
        (b"-1h", Moment(-3_600_000, is_relative=True)),
        (b"1970-01-01T01:00:01%2B01:00", Moment(1_000)),
        (b"1970-01-01T01:00:01+01:00", Moment(1_000)),
        (b"1970-01-01+00:00:01Z", Moment(1_000)),
    ],
)
def test_reads_bound(text: bytes, bound: int | Moment) -> None:
    """A plus sign of a time is accepted although it means a space."""
    assert QueryParameters(b"after=" + text).bound("after") == bound
    assert QueryParameters(b"").bound("after") is None


@pytest.mark.parametrize("text", ["", "yesterday", "-1", "17 05:00"])
def test_rejects_invalid_bound(text: str) -> None:
    assert error(lambda: QueryParameters(f"after={text.replace(' ', '+')}".encode()).bound("after")) == (
        f"after: invalid value '{text}': expected an offset such as 17, or a time such as 2026-11-29T05:00:00Z or -1h"
    )


@pytest.mark.parametrize(("text", "value"), [(b"0", 0.0), (b"25", 25.0), (b"2.5", 2.5), (b"60", 60.0)])
def test_reads_seconds(text, value) -> None:
    assert QueryParameters(b"wait=" + text).seconds("wait", 60) == value
    assert QueryParameters(b"").seconds("wait", 60) is None


@pytest.mark.parametrize("text", [b"", b"-1", b"61", b"nan", b"inf", b"1x", b"1" * 50])
def test_rejects_invalid_seconds(text) -> None:
    assert error(lambda: QueryParameters(b"wait=" + text).seconds("wait", 60)) == (
        "wait: expected a number of seconds from 0 to 60"
    )


def test_reads_choice() -> None:
    assert QueryParameters(b"presence=on").choice("presence", ("on", "off")) == "on"
    assert QueryParameters(b"").choice("presence", ("on", "off")) is None
    assert error(lambda: QueryParameters(b"presence=1").choice("presence", ("on", "off"))) == (
        "presence: expected on or off"
    )


@given(st.binary(max_size=200))
def test_reads_or_rejects_any_query(query) -> None:
    try:
        QueryParameters(query).allow_only((), repeated=())
    except ApiError as refused:
        assert refused.error.code is ErrorCode.BAD_ARGUMENT


def test_pages_contain_each_entry_once_in_order() -> None:
    entries, pages, after = [b"c", b"a", b"d", b"b", b"e"], [], ""
    while after is not None:
        page, following = read_pagination(QueryParameters(f"limit=2&after={after}".encode())).page(entries, bytes)
        pages.append(page)
        after = None if following is None else following.decode()
    assert pages == [[b"a", b"b"], [b"c", b"d"], [b"e"]]


@pytest.mark.parametrize(("query", "size"), [(b"", 100), (b"limit=1", 1), (b"limit=1000", 1000)])
def test_page_size_is_limited(query: bytes, size: int) -> None:
    page, after = read_pagination(QueryParameters(query)).page(range(1001), b"%04d".__mod__)
    assert (page, after) == (list(range(size)), b"%04d" % (size - 1))


@pytest.mark.parametrize("query", [b"limit=0", b"limit=1001"])
def test_rejects_page_size_outside_the_limits(query: bytes) -> None:
    assert error(lambda: read_pagination(QueryParameters(query))) == "limit: expected a whole number from 1 to 1000"
