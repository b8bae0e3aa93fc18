"""The table of sessions, and the listeners to their timelines."""

from twistedsock.errors import TOO_FAST, Error
from twistedsock.session.encoder import Endpoints
from twistedsock.session.registry import SessionRegistry
from twistedsock.session.session import Session
from twistedsock.session.timeline import Step
from twistedsock.testing import FakeServer


def registry(*drawn: bytes) -> SessionRegistry[str]:
    return SessionRegistry(iter(drawn).__next__)


def add(sessions: SessionRegistry[str]) -> bytes:
    id = sessions.new_id()
    sessions.add(id, f"session {id.decode()}")
    return id


def test_draws_another_id_while_the_first_is_in_use() -> None:
    sessions = registry(b"a", b"a", b"a", b"b")
    assert (sessions.new_id(), sessions.new_id()) == (b"a", b"b")


def test_ids_of_one_of_several_nodes_begin_with_its_name() -> None:
    sessions = SessionRegistry[str](iter([b"abc", b"abc", b"def"]).__next__, b"n1")
    assert [add(sessions), add(sessions)] == [b"n1-abc", b"n1-def"]
    assert sessions.is_id(b"n1-abc") and not sessions.is_id(b"n1-xyz")
    remote = [name for name in (b"n2-abc", b"n1-abc", b"n2-", b"n2-Abc", b"n22-abc", b"ann") if sessions.is_id(name)]
    assert remote == [b"n2-abc", b"n1-abc"]
    assert sessions.is_remote_id(b"n2-abc") and not sessions.is_remote_id(b"n1-abc")


def test_ids_of_a_single_node_have_no_prefix() -> None:
    sessions = registry(b"abc")
    assert add(sessions) == b"abc" and not sessions.is_id(b"n2-abc")


def test_releases_the_id_of_a_removed_session() -> None:
    sessions = registry(b"a", b"a")
    sessions.remove(add(sessions))
    assert sessions.new_id() == b"a"


def test_finds_sessions_by_id() -> None:
    sessions = registry(b"a")
    add(sessions)
    assert b"a" in sessions and b"b" not in sessions
    assert sessions.get(b"a") == "session a" and sessions.get(b"b") is None


def test_iterates_over_sessions_and_not_over_reserved_ids() -> None:
    sessions = registry(b"a", b"b")
    add(sessions)
    sessions.new_id()
    assert list(sessions) == ["session a"] and len(sessions) == 2


def test_sessions_can_be_removed_during_the_iteration() -> None:
    sessions = registry(b"a", b"b", b"c")
    for _ in range(3):
        add(sessions)
    seen = []
    for session in sessions:
        seen.append(session)
        sessions.remove(session[-1:].encode())
    assert seen == ["session a", "session b", "session c"] and len(sessions) == 0


def test_calls_back_when_the_last_session_is_removed() -> None:
    sessions, calls = registry(b"a", b"b", b"c"), list[str]()
    first, second = add(sessions), add(sessions)
    sessions.when_empty(lambda: calls.append("empty"))
    sessions.remove(first)
    assert calls == []
    sessions.remove(second)
    assert calls == ["empty"]


def test_calls_back_at_once_if_there_is_no_session() -> None:
    calls: list[str] = []
    registry().when_empty(lambda: calls.append("empty"))
    assert calls == ["empty"]


def test_ignores_a_second_removal() -> None:
    sessions = registry(b"a")
    id = add(sessions)
    for _ in range(2):
        sessions.remove(id)
        assert len(sessions) == 0


class Recorder:
    def __init__(self, server: FakeServer) -> None:
        self.calls: list[str] = []
        server.context.connection_events.listeners.append(self)

    def opened(self, session: Session) -> None:
        self.calls.append("opened " + session.client.id.decode())

    def stepped(self, session: Session, step: Step) -> None:
        self.calls.append(f"step {step.name} {session.client.id.decode()}")

    def closed(self, session: Session) -> None:
        self.calls.append("closed " + session.client.id.decode())

    def refused(self, endpoints: Endpoints, protocol: str, error: Error, about: str) -> None:
        self.calls.append(f"refused {protocol} {endpoints.client.decode()} {error.code.value.decode()} {about}")


def test_calls_listeners_once_for_each_opening_step_and_closing() -> None:
    server = FakeServer()
    recorder = Recorder(server)
    client = server.line_client()
    client.session.add_step("behind")
    client.session.connection_lost()
    client.session.connection_lost()
    assert recorder.calls == ["opened p1", "step behind p1", "step closed p1", "closed p1"]


def test_calls_listeners_for_a_client_that_is_rejected_before_it_has_a_session() -> None:
    server = FakeServer()
    recorder = Recorder(server)
    endpoints = Endpoints(b"198.51.100.9:5", b"10.0.0.1:8082")
    server.context.connection_events.refused(endpoints, "web", TOO_FAST, "https://evil.example")
    assert recorder.calls == ["refused web 198.51.100.9:5 rate https://evil.example"]
