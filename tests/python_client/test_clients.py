"""The clients for asyncio, for programs without it, and for Twisted have the same methods. Each writes its own
signatures, because what they return differs, and type checkers and editors read them."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest

from sockbridge import aio, blocking, twisted


def parameters(function: Callable[..., Any]) -> list[tuple[Any, ...]]:
    return [(each.name, each.kind, each.default) for each in signature(function).parameters.values()]


@pytest.mark.parametrize("name", ["publish", "history", "members", "channels", "set_nick"])
def test_commands_have_the_same_parameters(name: str) -> None:
    expected = parameters(getattr(aio.Client, name))
    assert parameters(getattr(blocking.Client, name)) == parameters(getattr(twisted.Client, name)) == expected


def test_connecting_and_subscribing_have_the_same_parameters() -> None:
    assert parameters(blocking.connect) == parameters(aio.connect)
    assert parameters(blocking.Client.subscribe) == parameters(aio.Client.subscribe)
    own = {"on_report", "on_ready", "on_end"}
    assert [each for each in parameters(twisted.Client.subscribe) if each[0] not in own] == parameters(
        aio.Client.subscribe
    )


def test_clients_have_the_same_public_names() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert names(aio.Client) == names(blocking.Client)
