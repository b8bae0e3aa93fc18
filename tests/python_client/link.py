"""The core of the Python client, connected to a fake server by hand."""

from collections.abc import Callable
from typing import Any

from sockbridge.channels import Subscription
from sockbridge.core import Core, State
from sockbridge.errors import SockbridgeError
from sockbridge.values import Event, Report
from sockbridge.wire import JsonLines
from twistedsock.testing import FakeServer, JsonLineClient


class Outcome:
    """The result of a command, or its error."""

    def __init__(self) -> None:
        self.is_done = False
        self.result: Any = None
        self.error: SockbridgeError | None = None

    def __call__(self, result: Any, error: SockbridgeError | None) -> None:
        assert not self.is_done, "a command has one result"
        self.is_done, self.result, self.error = True, result, error

    @property
    def code(self) -> str:
        assert self.error is not None
        return self.error.code


class Followed:
    """A subscription, and what it has received."""

    def __init__(self, channel: str, **options: Any) -> None:
        self.reports: list[Report] = []
        self.readies = 0
        self.ends: list[SockbridgeError] = []
        self.subscription = Subscription(channel, self.reports.append, self._ready, self.ends.append, **options)

    def _ready(self) -> None:
        self.readies += 1

    def take(self) -> list[Report]:
        """The reports since the last call."""
        taken, self.reports[:] = self.reports[:], []
        return taken

    def take_data(self) -> list[Any]:
        """The data of the events since the last call; other reports are left as they are."""
        return [report.data if isinstance(report, Event) else report for report in self.take()]


class Link:
    """Moves bytes between a core and a server. ``now`` is the clock of the client, ``cut`` splits the input of the
    client after so many bytes."""

    def __init__(self, server: FakeServer, nick: str | None = None) -> None:
        self.server = server
        self.now = 1000.0
        self.cut: int | None = None
        self.states: list[State] = []
        self.notices: list[tuple[str, str]] = []
        self.on_notice: Callable[[str, str], object] = lambda text, code: self.notices.append((text, code))
        self.renewals = 0
        self.core = Core(
            lambda: 0.5,
            nick=nick,
            on_state=lambda: self.states.append(self.core.state),
            on_notice=lambda text, code: self.on_notice(text, code),
            on_renewal=self._renew,
        )
        self.socket: JsonLineClient | None = None

    def _renew(self) -> None:
        self.renewals += 1

    def connect(self, token: str | None = None) -> None:
        """Open a connection."""
        self.socket = self.server.json_line_client()
        self.core.begin(JsonLines(), self.now, token)
        self.run()

    def disconnect(self) -> float | None:
        """The connection breaks. Returns the seconds until the next attempt."""
        assert self.socket is not None
        self.socket.disconnect()
        self.socket = None
        return self.core.end(self.now)

    def run(self) -> None:
        """Move bytes until neither side has any."""
        while self.socket is not None:
            data = self.core.output()
            if data:
                self.socket.send_messages(*data.split(b"\n")[:-1])
            self.server.turn()
            received = self.socket.received_bytes()
            if not received and not data:
                return
            for piece in [received] if self.cut is None else [received[: self.cut], received[self.cut :]]:
                if piece:
                    self.core.receive(piece, self.now)

    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        self.core.tick(self.now)
        self.run()

    def call(self, start: Callable[[Outcome], None]) -> Outcome:
        """Start a command, and move bytes."""
        outcome = Outcome()
        start(outcome)
        self.run()
        return outcome

    def publish(self, channel: str, data: Any, name: str | None = None, key: str | None = None) -> Outcome:
        return self.call(lambda outcome: self.core.publish(channel, data, name, outcome, key))

    def follow(self, channel: str, **options: Any) -> Followed:
        """Subscribe."""
        followed = Followed(channel, **options)
        self.core.channels.subscribe(followed.subscription)
        self.run()
        return followed
