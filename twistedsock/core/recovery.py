"""Where a subscription begins (docs/protocol-lines.md, "Coming back: recovery")."""

from twistedsock.core.channel import Channel
from twistedsock.core.commands import Subscribe


def place_to_start(command: Subscribe, channel: Channel) -> tuple[int, bool | None]:
    """The first offset that is asked for, the one after the head where nothing is, and whether all after ``since`` is
    still there; None where that was not asked. The log may no longer reach back to that offset."""
    log, head = channel.log, channel.head
    recovered: bool | None = None
    if command.since is not None:
        if command.epoch == channel.epoch and command.since <= head:
            start = command.since + 1
            return start, start >= log.first
        recovered = False
    if command.last:
        return max(log.first, head + 1 - command.last), recovered
    return head + 1, recovered
