"""All webhooks of a server: they are started, reconfigured and stopped together."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, succeed

from twistedsock.limits.principal import Principal
from twistedsock.pubsub.backplane import Observer
from twistedsock.webhooks.config import WebhookTarget

if TYPE_CHECKING:
    from twistedsock.webhooks.delivery import DeliveryStatistics, DeliveryWorker
    from twistedsock.webhooks.http_client import HTTPSender


class WebhookManager:
    """Adds an observer to ``observers`` of the broker for each webhook. ``wall_clock`` returns seconds since 1970,
    ``generate_id`` unique ids of deliveries, ``random`` numbers from 0 to 1."""

    def __init__(
        self,
        observers: list[Observer],
        reactor: Any,
        version: str,
        wall_clock: Callable[[], float],
        generate_id: Callable[[], str],
        random: Callable[[], float],
        owner_of: Callable[[bytes], Principal],
    ) -> None:
        self._observers = observers
        self._reactor = reactor
        self._version = version
        self._wall_clock = wall_clock
        self._generate_id = generate_id
        self._random = random
        self._owner_of = owner_of
        self._workers: dict[str, DeliveryWorker] = {}
        self._senders: dict[DeliveryWorker, HTTPSender] = {}
        self._removed: list[DeliveryWorker] = []
        """Workers of webhooks that were removed from the configuration and still deliver their queue."""
        self._deadline: Any = None

    @property
    def statistics(self) -> "dict[str, DeliveryStatistics]":
        """The statistics of the configured webhooks by name."""
        return {name: worker.statistics for name, worker in self._workers.items()}

    @property
    def warnings(self) -> list[str]:
        """Messages for the operator about files that other users can read."""
        targets = [worker.collector.target for worker in self._workers.values()]
        return [target.warning for target in targets if target.warning]

    def configure(self, targets: Sequence[WebhookTarget]) -> None:
        """Run exactly these webhooks. A webhook whose name is configured already keeps its queue."""
        wanted = {target.table.title: target for target in targets}
        for name in [name for name in self._workers if name not in wanted]:
            self._remove(self._workers.pop(name))
        for name, target in wanted.items():
            worker = self._workers.get(name)
            if worker is None:
                self._workers[name] = self._start(target)
            elif worker.collector.target != target:
                worker.collector.reconfigure(target)
                self._replace_sender(worker, target)

    def drain(self, timeout_seconds: float) -> None:
        """Deliver without delay what is queued and what closing sessions will add, for at most this time."""
        for worker in self._workers.values():
            worker.drain()
        if self._workers or self._removed:
            self._deadline = self._reactor.callLater(timeout_seconds, self.abort)

    def stop(self) -> "Deferred[Any]":
        """To be called when all sessions are closed. Fires when everything that can be delivered has been."""
        if not self._workers and not self._removed:
            return succeed(None)
        workers = [*self._workers.values(), *self._removed]
        return DeferredList([worker.stop() for worker in workers]).addCallback(self._close_senders)

    def abort(self) -> None:
        """Stop without waiting for responses."""
        for worker in [*self._workers.values(), *self._removed]:
            worker.abort()

    def _start(self, target: WebhookTarget) -> "DeliveryWorker":
        # Servers without webhooks do not load treq and its dependencies.
        from twistedsock.webhooks.collector import EventCollector
        from twistedsock.webhooks.delivery import DeliveryWorker

        worker = DeliveryWorker(self._reactor, self._wall_clock, self._random)
        worker.collector = EventCollector(
            target, self._reactor.seconds, self._wall_clock, self._generate_id, worker.wake, self._owner_of
        )
        self._replace_sender(worker, target)
        self._observers.append(worker.collector)
        return worker

    def _replace_sender(self, worker: "DeliveryWorker", target: WebhookTarget) -> None:
        from twistedsock.webhooks.http_client import HTTPSender

        before = self._senders.get(worker)
        self._senders[worker] = sender = HTTPSender(target, self._reactor, self._version)
        worker.replace_sender(sender.post)
        if before is not None:
            before.close()

    def _remove(self, worker: "DeliveryWorker") -> None:
        """Stop a webhook when its queue has been delivered, or that has failed."""
        self._observers.remove(worker.collector)
        self._removed.append(worker)
        worker.drain()
        worker.stop().addCallback(lambda nothing: self._removed_worker_stopped(worker))

    def _removed_worker_stopped(self, worker: "DeliveryWorker") -> None:
        self._removed.remove(worker)
        self._senders.pop(worker).close()

    def _close_senders(self, result: Any) -> "Deferred[Any]":
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        return DeferredList([sender.close() for sender in self._senders.values()])
