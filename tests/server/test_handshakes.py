"""The web port remembers accepted handshakes: a page that connects again is judged by its key only."""

import pytest

from tests.server.clients import upgrade
from twistedsock.auth.origins import AllowedOrigins
from twistedsock.server import web as module
from twistedsock.server.handshakes import MAX_HANDSHAKES, MAX_HEAD_BYTES

KEY, OTHER_KEY = b"dGhlIHNhbXBsZSBub25jZQ==", b"AAAAAAAAAAAAAAAAAAAAAA=="
ACCEPT = {KEY: "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", OTHER_KEY: "ICX+Yqv66kxgM0FcWaLWlFLwTAI="}


def open_with(web, key, head=None):
    """Open a connection. Returns the status and the answer to the key."""
    status, headers, _ = web().ask((head or upgrade()).replace(KEY, key))
    return status, headers.get("sec-websocket-accept")


def test_same_page_is_read_once_and_gets_its_own_answer(web, monkeypatch):
    assert open_with(web, KEY) == (101, ACCEPT[KEY])
    monkeypatch.setattr(module, "read_head", lambda data: pytest.fail("the head was read again"))
    assert open_with(web, OTHER_KEY) == (101, ACCEPT[OTHER_KEY])
    assert open_with(web, KEY) == (101, ACCEPT[KEY])


@pytest.mark.parametrize("name", ["sec-websocket-key", "SEC-WEBSOCKET-KEY"])
def test_names_in_any_case_are_remembered(web, monkeypatch, name):
    head = upgrade().replace(b"Sec-WebSocket-Key", name.encode())
    open_with(web, KEY, head)
    monkeypatch.setattr(module, "read_head", lambda data: pytest.fail("the head was read again"))
    assert open_with(web, OTHER_KEY, head) == (101, ACCEPT[OTHER_KEY])


@pytest.mark.parametrize(
    "head",
    [
        upgrade(Cookie="session=secret"),
        upgrade(Authorization="Bearer secret"),
        upgrade("/ws?token=secret"),
        upgrade(X_Forwarded_For="192.0.2.1"),
        upgrade(X_Long="x" * MAX_HEAD_BYTES),
        upgrade(Sec_WebSocket_Extensions="x-unknown"),
    ],
    ids=["cookie", "token", "query", "proxy", "long", "not plain"],
)
def test_heads_of_one_client_are_not_remembered(web, head):
    assert open_with(web, KEY, head)[0] == 101
    assert len(web.factory.handshakes) == 0


def test_rejected_handshakes_are_not_remembered(web):
    assert open_with(web, KEY, upgrade(Origin="https://elsewhere.example"))[0] == 403
    assert open_with(web, KEY, upgrade("/nowhere"))[0] == 404
    assert len(web.factory.handshakes) == 0


def test_invalid_key_is_not_taken_for_a_known_page(web):
    open_with(web, KEY)
    assert open_with(web, KEY[1:])[0] == 400


def test_other_origins_after_a_reload_apply_at_once(make_web, server):
    web = make_web(server, origins=AllowedOrigins(["https://example.org"]))
    head = upgrade(Origin="https://example.org")
    assert open_with(web, KEY, head)[0] == 101
    web.factory.origin_policy.origins = AllowedOrigins()
    assert open_with(web, KEY, head)[0] == 403
    assert len(web.factory.handshakes) == 0


def test_decision_holds_for_one_end_of_the_server_only(web):
    """A page of another name is allowed at an address that other machines reach, and not on loopback."""
    head = upgrade().replace(b"127.0.0.1:8082", b"192.0.2.7:8082")
    assert web(here="192.0.2.7").ask(head)[0] == 101
    assert web(here="127.0.0.1").ask(head)[0] == 421


def test_oldest_is_forgotten_for_a_new_one(web, monkeypatch):
    for number in range(MAX_HANDSHAKES + 1):
        open_with(web, KEY, upgrade(User_Agent=f"browser {number}"))
    assert len(web.factory.handshakes) == MAX_HANDSHAKES
    monkeypatch.setattr(module, "read_head", lambda data: None)
    assert open_with(web, KEY, upgrade(User_Agent="browser 0"))[0] == 400
    assert open_with(web, KEY, upgrade(User_Agent="browser 1"))[0] == 101
