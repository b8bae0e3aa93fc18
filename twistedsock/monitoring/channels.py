"""One look at all channels: their rates, and the orders in which they are told."""

from collections.abc import Iterable

from twistedsock.core.channel import Channel
from twistedsock.core.names import is_reserved
from twistedsock.monitoring.pages import ROWS, ChannelRow, channels_page, pages_for, rows_for
from twistedsock.monitoring.ranking import Work, rank
from twistedsock.monitoring.topics import Topic

PART = 1_000
"""Channels that are looked at in one bit of work."""

Heads = dict[Channel, int]
"""Where each channel stood."""


class ChannelCensus:
    """What is told until the next look. An order is made when somebody asks for it first."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.channels: list[Channel] = []
        self.rates: list[float] = []
        self.heads: Heads = {}
        self._longest = 0
        self._orders: dict[str, list[int]] = {}

    def take(self, channels: Iterable[Channel], before: "ChannelCensus | None") -> Work[None]:
        """Look at all but the server's own. A rate is the difference to the look before; who was not there then has
        the rate 0."""
        heads: Heads = {} if before is None else before.heads
        seconds = 1.0 if before is None else max(0.001, self.at - before.at)
        waiting = list(channels)
        for start in range(0, len(waiting), PART):
            part = [channel for channel in waiting[start : start + PART] if not is_reserved(channel.name)]
            self.channels += part
            self.heads.update([(channel, channel.head) for channel in part])
            self.rates += [(channel.head - heads.get(channel, channel.head)) / seconds for channel in part]
            self._longest = max([self._longest, *[len(channel.name) for channel in part]])
            yield

    def order(self, name: str) -> Work[list[int]]:
        """The places of the channels: by name, or the most first; where there are as many, by name."""
        known = self._orders.get(name)
        if known is not None:
            return known
        channels = self.channels
        if name == "name":
            order = yield from rank([channel.name for channel in channels])
        else:
            names = yield from self.order("name")
            keys = (
                [-self.rates[place] for place in names]
                if name == "rate"
                else [-len(channels[place].readers) for place in names]
            )
            yield
            order = [names[place] for place in (yield from rank(keys))]
        self._orders[name] = order
        return order

    def answer(self, topic: Topic) -> Work[bytes]:
        """The page that is asked for; one behind the last is empty."""
        if topic.text:
            return (yield from self._find(topic.text))
        order = yield from self.order(topic.order)
        rows = rows_for(self._longest)
        start = topic.page * rows
        shown = [self._row(place) for place in order[start : start + rows]]
        return channels_page(topic.page, pages_for(len(order), rows), len(order), shown)

    def _find(self, text: bytes) -> Work[bytes]:
        order, found = (yield from self.order("rate")), list[int]()
        for start in range(0, len(order), PART):
            part = order[start : start + PART]
            found += [place for place in part if text in self.channels[place].name.lower()]
            yield
        rows = min(ROWS, rows_for(self._longest))
        return channels_page(0, 1, len(found), [self._row(place) for place in found[:rows]])

    def _row(self, place: int) -> ChannelRow:
        channel = self.channels[place]
        return ChannelRow(
            channel.name.decode(),
            len(channel.readers),
            channel.head,
            channel.epoch.decode(),
            len(channel.log),
            channel.log.size,
            round(self.rates[place], 2),
        )
