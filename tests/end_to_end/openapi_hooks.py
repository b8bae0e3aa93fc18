"""What schemathesis cannot know of our requests from the OpenAPI file, as that has no words for it. It is loaded by the
program of that name, whose hooks these are."""

import itertools
import json
import os
from typing import Any

import schemathesis
from schemathesis import GenerationMode

numbers = itertools.count()


@schemathesis.serializer("application/x-ndjson")
def write_lines(context: Any, value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    query, headers = case.query or {}, case.headers or {}
    if case.operation.path.endswith("/events") and case.operation.method == "get":
        # A stream has no end, and nobody is to wait.
        headers["Accept"] = "application/json"
        if _is_seconds(query.get("wait")):
            query["wait"] = 0
    case.headers, case.query = headers, query
    if case.meta is None or case.meta.generation.mode is GenerationMode.POSITIVE:
        _complete(case, query, headers)


def _complete(case: Any, query: dict[str, Any], headers: Any) -> None:
    """What belongs together is given together, or not at all; names have their bytes; and no nick is a peer's id."""
    if "nick" in query:
        query["nick"] = _short(query["nick"], 27) + "-nick"
    if "name" in query:
        query["name"] = _short(query["name"], 64)
    if "channel" in (case.path_parameters or {}):
        case.path_parameters["channel"] = _short(case.path_parameters["channel"], 200)
    if "channel" in query:
        query["channel"] = [_short(channel, 200) for channel in query["channel"]]
    for name in ("nick", "presence"):
        if "Accept" in headers:
            query.pop(name, None)
    if not {"since", "epoch"} <= query.keys() or len(query.get("channel", ())) > 1:
        query.pop("since", None)
        query.pop("epoch", None)
    for ids, name in ((headers, "Last-Event-ID"), (query, "last-event-id"), (query, "lastEventId")):
        if name in ids:
            ids[name] = ",".join(["5f2c1a7b:17"] * len(set(query.get("channel", "."))))
    if {"wait", "last-event-id", "lastEventId"} & query.keys() or "Last-Event-ID" in headers:
        query.pop("after", None)
        query.pop("before", None)
    if "Idempotency-Key" in headers:
        headers["Idempotency-Key"] = f"{headers['Idempotency-Key'][:100]}-{next(numbers)}"
    if case.operation.definition.raw.get("operationId") == "getPeer":
        case.path_parameters["id"] = os.environ["PEER"]


def _short(name: str, most: int) -> str:
    """The schema of a name counts characters, as it must; the server counts bytes."""
    return name.encode()[:most].decode(errors="ignore")


def _is_seconds(value: Any) -> bool:
    try:
        return 0 <= float(value) <= 60
    except (TypeError, ValueError):
        return False
