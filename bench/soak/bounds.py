"""The limits of the server under test: so small that a run reaches every one of them."""

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Bounds:
    """``seconds`` is the duration of the run; other times are shorter in a short run."""

    seconds: float
    history_events: int = 2_000
    history_bytes: int = MIB
    history_total_bytes: int = 32 * MIB
    max_channels: int = 2_000
    max_subscriptions_per_client: int = 100
    max_connections: int = 400
    max_pending_presence: int = 50

    @property
    def history_age(self) -> float:
        """Seconds that the history keeps an event."""
        return min(20.0, max(1.0, self.seconds / 15))

    @property
    def flood_every(self) -> float:
        """Seconds between two floods of one kind: channels, connections, subscriptions up to their limit."""
        return min(45.0, max(1.0, self.seconds / 6))

    @property
    def stay(self) -> float:
        """Maximum seconds that a resident stays connected."""
        return min(60.0, max(1.0, self.seconds / 5))

    def options(self) -> list[str]:
        """The options for twistd."""
        return [
            f"--history-events={self.history_events}",
            f"--history-bytes={self.history_bytes}",
            f"--history-age={self.history_age}",
            f"--history-total-bytes={self.history_total_bytes}",
            f"--max-channels={self.max_channels}",
            f"--max-subscriptions-per-client={self.max_subscriptions_per_client}",
            f"--max-connections={self.max_connections}",
            f"--max-pending-presence={self.max_pending_presence}",
            "--ping-interval=5",
            "--ping-timeout=20",
        ]
