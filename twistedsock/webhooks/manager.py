"""All webhooks of one bridge: they begin, change and end together."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, DeferredList, succeed

from twistedsock.limits.principal import Principal
from twistedsock.pubsub.backplane import Observer
from twistedsock.webhooks.config import WebhookTarget

if TYPE_CHECKING:
    from twistedsock.webhooks.collector import Figures
    from twistedsock.webhooks.delivery import DeliveryWorker
    from twistedsock.webhooks.http_client import HTTPSender


class WebhookManager:
    """``observers`` are those of the broker; there is none of ours among them while no webhook is configured.
    ``wall_clock`` gives seconds since 1970, ``draw_id`` a name that no other delivery has, ``chance`` numbers from 0 to
    1."""

    def __init__(
        self,
        observers: list[Observer],
        reactor: Any,
        version: str,
        wall_clock: Callable[[], float],
        draw_id: Callable[[], str],
        chance: Callable[[], float],
        owner_of: Callable[[bytes], Principal],
    ) -> None:
        self._observers = observers
        self._reactor = reactor
        self._version = version
        self._wall_clock = wall_clock
        self._draw_id = draw_id
        self._chance = chance
        self._owner_of = owner_of
        self._deliveries: dict[str, DeliveryWorker] = {}
        self._posters: dict[DeliveryWorker, HTTPSender] = {}
        self._leaving: list[DeliveryWorker] = []
        self._deadline: Any = None

    @property
    def figures(self) -> "dict[str, Figures]":
        """By name, of those that are configured."""
        return {name: delivery.figures for name, delivery in self._deliveries.items()}

    @property
    def warnings(self) -> list[str]:
        """Sentences for the operator about their files."""
        targets = [delivery.hook.target for delivery in self._deliveries.values()]
        return [target.warning for target in targets if target.warning]

    def use(self, targets: Sequence[WebhookTarget]) -> None:
        """These and no others. Those with the same name go on, with what they have queued."""
        wanted = {target.table.title: target for target in targets}
        for name in [name for name in self._deliveries if name not in wanted]:
            self._leave(self._deliveries.pop(name))
        for name, target in wanted.items():
            delivery = self._deliveries.get(name)
            if delivery is None:
                self._deliveries[name] = self._begin(target)
            elif delivery.hook.target != target:
                delivery.hook.use(target)
                self._go_by(delivery, target)

    def hasten(self, seconds: float) -> None:
        """The bridge stops: deliver at once what there is, and what those who leave still bring about; for so many
        seconds at most."""
        for delivery in self._deliveries.values():
            delivery.hasten()
        if self._deliveries or self._leaving:
            self._deadline = self._reactor.callLater(seconds, self.give_up)

    def end(self) -> "Deferred[Any]":
        """Nothing more will come. Calls back when all that can be delivered has been."""
        if not self._deliveries and not self._leaving:
            return succeed(None)
        deliveries = [*self._deliveries.values(), *self._leaving]
        return DeferredList([delivery.end() for delivery in deliveries]).addCallback(self._close)

    def give_up(self) -> None:
        """Wait no longer."""
        for delivery in [*self._deliveries.values(), *self._leaving]:
            delivery.give_up()

    def _begin(self, target: WebhookTarget) -> "DeliveryWorker":
        # What nobody pays for who has no webhook: treq and what it needs.
        from twistedsock.webhooks.collector import EventCollector
        from twistedsock.webhooks.delivery import DeliveryWorker

        delivery = DeliveryWorker(self._reactor, self._wall_clock, self._chance)
        delivery.hook = EventCollector(
            target, self._reactor.seconds, self._wall_clock, self._draw_id, delivery.wake, self._owner_of
        )
        self._go_by(delivery, target)
        self._observers.append(delivery.hook)
        return delivery

    def _go_by(self, delivery: "DeliveryWorker", target: WebhookTarget) -> None:
        from twistedsock.webhooks.http_client import HTTPSender

        before = self._posters.get(delivery)
        self._posters[delivery] = poster = HTTPSender(target, self._reactor, self._version)
        delivery.use(poster.post)
        if before is not None:
            before.close()

    def _leave(self, delivery: "DeliveryWorker") -> None:
        """What it has queued is still delivered, until that fails."""
        self._observers.remove(delivery.hook)
        self._leaving.append(delivery)
        delivery.hasten()
        delivery.end().addCallback(lambda nothing: self._left(delivery))

    def _left(self, delivery: "DeliveryWorker") -> None:
        self._leaving.remove(delivery)
        self._posters.pop(delivery).close()

    def _close(self, result: Any) -> "Deferred[Any]":
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        return DeferredList([poster.close() for poster in self._posters.values()])
