"""The connections of each address and identity to all workers together, as the hub keeps them for its workers."""

from twistedsock.limits.connections import is_many
from twistedsock.limits.principal import Principal
from twistedsock.limits.settings import Limits
from twistedsock.limits.shared_counts import Counts

News = dict[bytes, dict[Principal, int]]
"""The counts to send to workers, by their names: the connections of principals to all other workers, and 0 for those
whose connections are no longer near the limit."""


class ConnectionCounts:
    """Has entries only for principals with connections, so that there are not more than two for each connection."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._workers: dict[bytes, dict[Principal, int]] = {}
        self._totals: dict[Principal, int] = {}
        # Those that were sent to the workers.
        self._many: set[Principal] = set()

    def connect(self, worker: bytes) -> Counts:
        """A worker has connected that has not reported anything. Returns the counts to send to it; the former counts of
        a worker with this name must have been removed."""
        self._workers[worker] = {}
        return {principal: self._totals[principal] for principal in self._many}

    def report(self, worker: bytes, counts: Counts) -> News:
        """A worker has reported its connections of some principals."""
        own = self._workers[worker]
        for principal, count in counts.items():
            before = own.pop(principal, 0)
            if count:
                own[principal] = count
            total = self._totals.pop(principal, 0) + count - before
            if total:
                self._totals[principal] = total
        return self._news(counts)

    def remove(self, worker: bytes) -> News:
        """A worker has ended, and its connections with it."""
        counts = self._workers.get(worker, {})
        news = self.report(worker, dict.fromkeys(counts, 0)) if counts else {}
        self._workers.pop(worker, None)
        news.pop(worker, None)
        return news

    def _news(self, principals: Counts) -> News:
        news: News = {}
        for principal in principals:
            total = self._totals.get(principal, 0)
            if is_many(principal, total, self._limits) and total:
                self._many.add(principal)
                for worker, counts in self._workers.items():
                    news.setdefault(worker, {})[principal] = total - counts.get(principal, 0)
            elif principal in self._many:
                self._many.discard(principal)
                for worker in self._workers:
                    news.setdefault(worker, {})[principal] = 0
        return news
