"""Which principal each channel counts for, and whether a principal can have one more.

A channel counts for the principal that opened it. It gets another owner when other principals write much of its
history, and, while it has no history, when its owner has no subscription to it any more. So a principal is not charged
for long with channels that it does not use.
"""

from collections.abc import Callable
from itertools import islice

from twistedsock.errors import TOO_MANY_CHANNELS, Error
from twistedsock.limits.principal import ELSEWHERE, Principal
from twistedsock.limits.settings import RESERVED_CHANNELS
from twistedsock.limits.shares import Shares
from twistedsock.pubsub.channel import Channel
from twistedsock.pubsub.history_budget import HistoryBudget
from twistedsock.pubsub.names import check_channel, is_reserved
from twistedsock.pubsub.values import BATCH_COST, EVENT_COST, Payloads

MAX_SEARCHED_OWNERS = 8
"""Principals whose channels are searched for one that can be removed, those with most channels first. A principal is
passed over only if nearly all its channels have subscriptions."""


class ChannelShares:
    """Channels of the server itself (``$sys/``) are counted apart from those of clients."""

    def __init__(self, max_channels: int, history_budget: HistoryBudget) -> None:
        self._history_budget = history_budget
        self._shares = Shares(max_channels)
        self._reserved_shares = Shares(RESERVED_CHANNELS)
        # Channels that the backplane is opening, and the principals that they count for already.
        self._claims: dict[bytes, Principal] = {}

    def check(self, name: bytes, principal: Principal) -> Error | None:
        """The reason why a principal cannot have a channel of this name, which does not exist yet, or None. To make
        room for it, a channel that has only history may lose that."""
        error = check_channel(name)
        if error is not None:
            return error
        shares = self._of(name)
        if shares.total < shares.limit or name in self._claims:
            return None
        if (not is_reserved(name) and self._make_room(principal)) or shares.admits(principal):
            return None
        return TOO_MANY_CHANNELS

    def _make_room(self, principal: Principal) -> bool:
        """Empty a channel without subscriptions, of a principal that has more channels than this one and than a fair
        share. Returns whether there was one."""
        shares = self._shares
        fair = max(shares.of(principal) + 1, shares.fair_share_with(principal))
        for owner in islice(shares.largest_first(), MAX_SEARCHED_OWNERS):
            if shares.of(owner) <= fair:
                return False
            unused = self._history_budget.find_history_only(owner)
            if unused is not None:
                self._history_budget.clear(unused)
                return True
        return False

    def claim(self, name: bytes, principal: Principal) -> Callable[[object], None]:
        """Count a channel that the backplane is going to open. Call the returned function when it has, or has failed;
        the argument is ignored."""
        if name in self._claims:
            return lambda outcome: None
        self._claims[name] = principal
        self._of(name).add(principal, 1)

        def release(outcome: object) -> None:
            del self._claims[name]
            self._of(name).add(principal, -1)

        return release

    def owner_of_new(self, name: bytes) -> Principal:
        """The owner of a channel that the backplane delivers events for: of clients of other nodes if no client of this
        one has asked for it."""
        return self._claims.get(name, ELSEWHERE)

    def add(self, channel: Channel) -> None:
        self._of(channel.name).add(channel.owner, 1)

    def remove(self, channel: Channel) -> None:
        self._of(channel.name).add(channel.owner, -1)

    def count_foreign(self, channel: Channel, principal: Principal, payloads: Payloads) -> None:
        """A principal publishes to the channel of another one. When such principals have written half as much as the
        history holds, the channel counts for this one: a single event is not enough to be charged with the history of
        another principal, or to take it over."""
        channel.foreign_bytes += BATCH_COST + EVENT_COST * len(payloads) + payloads.size
        if 2 * channel.foreign_bytes > channel.history.size and not is_reserved(channel.name):
            self._change_owner(channel, principal)

    def give_to_subscriber(self, channel: Channel) -> None:
        """A channel that has subscriptions and no history counts for the newest of them."""
        if channel.subscriptions and not channel.history and not channel.pending:
            newest = next(reversed(channel.subscriptions.values()))
            if newest.principal != channel.owner:
                self._change_owner(channel, newest.principal)

    def _change_owner(self, channel: Channel, principal: Principal) -> None:
        self.remove(channel)
        self._history_budget.change_owner(channel, principal)
        self.add(channel)

    def _of(self, name: bytes) -> Shares:
        return self._reserved_shares if is_reserved(name) else self._shares
