"""Reports that one worker requests from all other workers, through the hub."""

from collections.abc import Callable, Iterable
from functools import partial

from twistedsock.backplanes import hub_messages as messages
from twistedsock.backplanes.hub_link import Link

GATHER_SECONDS = 1.0
"""The time in which workers report. One that is busy for longer is missing in the answer."""


class _Gathering:
    """Reports of workers that are being waited for."""

    __slots__ = ("link", "missing", "reports", "request")

    def __init__(self, link: Link, request: int, missing: set[Link], reports: dict[bytes, bytes]) -> None:
        self.link = link
        self.request = request
        self.missing = missing
        self.reports = reports


class Gatherings:
    """``schedule`` calls a function after some seconds."""

    def __init__(self, schedule: Callable[[float, Callable[[], None]], object]) -> None:
        self._schedule = schedule
        self._gatherings: dict[int, _Gathering] = {}
        self._last = 0

    def begin(self, link: Link, request: int, topic: bytes, others: Iterable[Link], own: dict[bytes, bytes]) -> None:
        """Ask the other workers for their reports about a topic. The answer to the request contains them beside
        ``own``, by the names of the workers."""
        missing = set(others)
        if not missing:
            link.answer(request, messages.Reports(own))
            return
        self._last = number = self._last % 0xFFFFFFFF + 1
        self._gatherings[number] = _Gathering(link, request, missing, own)
        for other in missing:
            other.send(messages.Ask(topic), number)
        self._schedule(GATHER_SECONDS, partial(self._end, number))

    def reported(self, link: Link, number: int, content: bytes) -> None:
        """A worker has reported."""
        gathering = self._gatherings.get(number)
        if gathering is not None and link in gathering.missing:
            gathering.reports[link.node_name] = content
            self._remove(link, number, gathering)

    def disconnected(self, link: Link) -> None:
        """A worker cannot report any more."""
        for number, gathering in list(self._gatherings.items()):
            if link in gathering.missing:
                self._remove(link, number, gathering)

    def _remove(self, link: Link, number: int, gathering: _Gathering) -> None:
        gathering.missing.discard(link)
        if not gathering.missing:
            self._end(number)

    def _end(self, number: int) -> None:
        gathering = self._gatherings.pop(number, None)
        if gathering is not None:
            gathering.link.answer(gathering.request, messages.Reports(gathering.reports))
