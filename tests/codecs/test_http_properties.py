"""Any request head is read or rejected."""

from typing import Any

from hypothesis import strategies as st

from tests.fuzz.grammars import EXTRA, HEADS, METHODS, TARGETS, UPGRADE, head_of
from tests.fuzz.properties import holds
from twistedsock.codecs.http import origin_form, read_head


@holds(examples=150, data=HEADS | st.binary().map(lambda data: data + b"\r\n\r\n"))
def test_any_head(data: bytes) -> None:
    """Any bytes are read as a head whose parts occur in them, or rejected; only a complete handshake has a key."""
    head = read_head(data)
    if head is None:
        return
    text = data.decode("latin-1")
    target = text.split(" ")[1]
    assert text.startswith(f"{head.method} ") and (head.path in target or head.path == "/")
    assert all(part in text for part in (head.host, head.origin or "", head.key))
    assert not any(sign in part for part in (head.host, head.origin or "", *head.subprotocols) for sign in ("\r\n",))
    if head.key:
        assert text.isascii() and head.upgrade and head.method == "GET" and len(head.key) == 24
        assert text.lower().count("\r\nsec-websocket-key:") == text.lower().count("\r\nhost:") == 1
        assert head.host and ("\r\nsec-websocket-version: 13\r\n" in text.lower().replace(":13", ": 13"))


@holds(examples=80, method=METHODS, target=TARGETS, extra=EXTRA)
def test_sound_heads(method: str, target: str, extra: list[tuple[str, str]]) -> None:
    """A head that follows the standard is read as it was written; a head with two hosts or origins is rejected."""
    fields = UPGRADE + [(name, value) for name, value in extra if name.strip()]
    head = read_head(head_of(method, target, "HTTP/1.1", fields))
    headers: dict[str, list[Any]] = {}
    for name, value in fields:
        headers.setdefault(name.lower(), []).append(value)
    form = origin_form(method, target)
    is_valid = all(name.isascii() and " " not in name and "\0" not in value for name, value in fields)
    if form is None or not is_valid or len(headers["host"]) > 1 or len(headers.get("origin", [])) > 1:
        assert head is None
        return
    assert head is not None
    host = headers["host"][0] if form[1] is None else form[1]
    assert (head.method, head.path, head.host) == (method, form[0].partition("?")[0], host)
    assert head.origin == (headers["origin"][0] if "origin" in headers else None) and head.upgrade
    offered = ",".join(headers.get("sec-websocket-protocol", [])).split(",")
    assert head.subprotocols == tuple(word.strip() for word in offered if word.strip())
    plain = all(len(values) == 1 for values in headers.values()) and not {"sec-websocket-extensions"} & set(headers)
    if head.key:
        assert all(len(values) == 1 for values in headers.values()) and method == "GET"
    elif plain and method == "GET" and target in ("/ws", "/") and fields == UPGRADE:
        raise AssertionError("a plain handshake was not seen as one")
