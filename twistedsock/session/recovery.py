"""Where a subscription begins (docs/protocol-lines.md, "Coming back: recovery")."""

from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.history import History
from twistedsock.pubsub.values import Lost
from twistedsock.session.commands import Subscribe


def resume_offset(command: Subscribe, channel: Channel) -> tuple[int, bool | None]:
    """The first offset that is asked for, the one after the head where nothing is, and whether all after ``since`` is
    still there; None where that was not asked. The log may no longer reach back to that offset."""
    log, head = channel.history, channel.head
    recovered: bool | None = None
    if command.since is not None:
        if command.epoch == channel.epoch and command.since <= head:
            start = command.since + 1
            return start, start >= log.first
        recovered = False
    if command.last:
        return max(log.first, head + 1 - command.last), recovered
    return head + 1, recovered


def history_start(log: History, last: int | None, since: int | None) -> int:
    """The first offset that a question for the history asks for: the newest ``last`` events, those after ``since``, or
    of those the newest. The log may no longer reach back to that offset if ``since`` is given."""
    start = log.first if since is None else since + 1
    return start if last is None else max(start, log.end - last)


def lost_before(log: History, start: int) -> Lost | None:
    """What is gone of the events from ``start`` on; None if the log still has that event, or never had it."""
    return Lost(start, log.first - 1) if start < log.first else None
