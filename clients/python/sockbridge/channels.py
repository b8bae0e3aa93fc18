"""The channels that a client follows: subscriptions, their positions, and what becomes of these after a reconnection
(docs/explanation/recovery.md)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from sockbridge.errors import SockbridgeError
from sockbridge.messages import read_event
from sockbridge.values import Lost, Member, Position, Presence, Report, Reset

MAX_OWN_OFFSETS = 1024
"""Own events that are remembered for a channel without echo: after a reconnection, the server does not know that they
are the client's."""

RETRY_SECONDS = 5.0
"""Until the client subscribes again, if the server could not accept a subscription for the moment."""

_TEMPORARY = ("rate", "unavailable", "internal")

Callback = Callable[[Any, SockbridgeError | None], None]
"""Receives the result of a command, or its error."""


class Subscription:
    """A channel that the client follows. ``deliver`` receives events and reports, ``on_ready`` is called when the
    server has accepted the subscription, and ``on_end`` with the error if the server ends it. ``position`` is that of
    the newest event that was delivered."""

    def __init__(
        self,
        channel: str,
        deliver: Callable[[Report], None],
        on_ready: Callable[[], None],
        on_end: Callable[[SockbridgeError], None],
        *,
        last: int = 0,
        since: Position | None = None,
        echo: bool = True,
        presence: bool = False,
    ) -> None:
        self.channel = channel
        self.position = since
        self.deliver = deliver
        self.on_ready = on_ready
        self.on_end = on_end
        self.last = last
        self.echo = echo
        self.presence = presence
        self.own_offsets = deque[int](maxlen=MAX_OWN_OFFSETS)
        self.is_confirmed = False
        self.is_paused = False
        self.reported_from = 0
        """Lost events with smaller offsets are older than the subscription, and not reported."""

    def request(self) -> dict[str, Any]:
        """The message that subscribes, and continues at the position."""
        message: dict[str, Any] = {"type": "subscribe", "channel": self.channel}
        if not self.echo:
            message["echo"] = False
        if self.presence:
            message["presence"] = True
        if self.position is not None:
            message |= {"since": self.position.offset, "epoch": self.position.epoch}
        elif self.last:
            message["last"] = self.last
        return message


class Channels:
    """The subscriptions by channel. ``send`` sends a message at once, and passes its answer to the callback."""

    def __init__(self, send: Callable[..., None]) -> None:
        self.now = 0.0
        """The time of the last input."""
        self._by_name: dict[str, Subscription] = {}
        self._retries: list[tuple[float, Subscription]] = []
        self._send = send
        self._is_connected = False

    # Calls of the program.

    def subscribe(self, subscription: Subscription) -> None:
        """Follow a channel, until ``unsubscribe``. Raises SockbridgeError if the client does so already."""
        if subscription.channel in self._by_name:
            raise SockbridgeError("bad-argument", f"already subscribed to {subscription.channel}")
        self._by_name[subscription.channel] = subscription
        self._request(subscription)

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        if self._is_present(subscription):
            del self._by_name[subscription.channel]
            self._stop_events(subscription)

    def pause(self, subscription: Subscription) -> None:
        """Receive no more events of a channel for now: the server keeps them. The position stays."""
        if not subscription.is_paused and self._is_present(subscription):
            subscription.is_paused = True
            self._stop_events(subscription)

    def resume(self, subscription: Subscription) -> None:
        """Continue after ``pause``, at the position."""
        if subscription.is_paused:
            subscription.is_paused = False
            self._request(subscription)

    def published(self, channel: str, offset: int) -> None:
        """The client has published an event."""
        subscription = self._by_name.get(channel)
        if subscription is not None and not subscription.echo:
            subscription.own_offsets.append(offset)

    # The connection.

    def connected(self) -> None:
        """A connection is open: subscribe to all channels, each at its position."""
        self._is_connected = True
        for subscription in list(self._by_name.values()):
            self._request(subscription)

    def disconnected(self) -> None:
        """The connection has ended."""
        self._is_connected = False
        self._retries = []
        for subscription in self._by_name.values():
            subscription.is_confirmed = False

    def close(self, error: SockbridgeError) -> None:
        """The client is closed: end all subscriptions."""
        self.disconnected()
        subscriptions, self._by_name = self._by_name, {}
        for subscription in subscriptions.values():
            subscription.on_end(error)

    def end(self, channel: str, error: SockbridgeError) -> None:
        """The server has ended or refused a subscription."""
        if (subscription := self._by_name.pop(channel, None)) is not None:
            subscription.on_end(error)

    @property
    def next_retry(self) -> float:
        """When to call ``retry``: infinity if there is nothing to repeat."""
        return min((moment for moment, _ in self._retries), default=inf)

    def retry(self, now: float) -> None:
        """Repeat the subscriptions that the server could not accept before."""
        due = [subscription for moment, subscription in self._retries if moment <= now]
        self._retries = [(moment, subscription) for moment, subscription in self._retries if moment > now]
        for subscription in due:
            self._request(subscription)

    def _is_present(self, subscription: Subscription) -> bool:
        return self._by_name.get(subscription.channel) is subscription

    def _request(self, subscription: Subscription) -> None:
        if not self._is_connected or subscription.is_paused or not self._is_present(subscription):
            return

        def answered(answer: Any, error: SockbridgeError | None) -> None:
            if error is None:
                self._confirm(subscription, answer)
            elif error.code in _TEMPORARY:
                self._retries.append((self.now + RETRY_SECONDS, subscription))
            elif error.code not in ("disconnected", "closed") and self._is_present(subscription):
                self.end(subscription.channel, error)

        self._send(subscription.request(), answered)

    def _stop_events(self, subscription: Subscription) -> None:
        was_confirmed, subscription.is_confirmed = subscription.is_confirmed, False
        if self._is_connected and was_confirmed:
            self._send({"type": "unsubscribe", "channel": subscription.channel})

    def _confirm(self, subscription: Subscription, answer: dict[str, Any]) -> None:
        """The server has accepted a subscription: find out what has become of the position."""
        if not self._is_present(subscription):
            if subscription.channel not in self._by_name:  # otherwise it would end the one that has followed
                self._send({"type": "unsubscribe", "channel": subscription.channel})
            return
        if subscription.is_paused:
            self._send({"type": "unsubscribe", "channel": subscription.channel})
            return
        head, before = Position(answer["epoch"], answer["offset"]), subscription.position
        subscription.is_confirmed = True
        if before is None:
            # After a lost connection, a request for the newest events would skip those in between.
            subscription.position = Position(head.epoch, max(head.offset - subscription.last, 0))
            subscription.reported_from = head.offset + 1
        elif "since" in answer:
            subscription.position = Position(head.epoch, answer["since"])
            subscription.deliver(Reset(subscription.channel, head.epoch, before.offset, answer["since"]))
        elif before.epoch != head.epoch:
            subscription.position = Position(head.epoch, 0)
            subscription.reported_from = 0
            subscription.deliver(Lost(subscription.channel, before.offset + 1, None, before.epoch))
            if head.offset:  # the server sends no events of an epoch that the request did not name
                self._request(subscription)
                return
        elif before.offset > head.offset:
            subscription.position = head
        subscription.on_ready()

    # Messages of the server.

    def read_event(self, content: dict[str, Any]) -> None:
        subscription, position = self._confirmed(content)
        offset = content["offset"]
        if subscription is not None and offset > position.offset:
            subscription.position = Position(position.epoch, offset)
            if offset not in subscription.own_offsets:
                subscription.deliver(read_event(content, position.epoch))

    def read_lost(self, content: dict[str, Any]) -> None:
        subscription, position = self._confirmed(content)
        first, last = content["first"], content["last"]
        if subscription is not None:
            subscription.position = Position(position.epoch, max(last, position.offset))
            if last >= subscription.reported_from:
                first = max(first, subscription.reported_from)
                subscription.deliver(Lost(subscription.channel, first, last, position.epoch))

    def read_reset(self, content: dict[str, Any]) -> None:
        subscription, _ = self._confirmed(content)
        if subscription is not None:
            subscription.position = Position(content["epoch"], content["offset"])
            subscription.reported_from = 0
            subscription.own_offsets.clear()
            subscription.deliver(Reset(subscription.channel, content["epoch"], content["good"], content["offset"]))

    def read_presence(self, content: dict[str, Any]) -> None:
        subscription, _ = self._confirmed(content)
        if subscription is not None:
            member = Member(content["peer"]["id"], content["peer"]["nick"])
            subscription.deliver(Presence(subscription.channel, member, content["type"] == "join"))

    def _confirmed(self, content: dict[str, Any]) -> tuple[Subscription | None, Position]:
        """The subscription of a message, and its position. None if it has ended, or is paused or requested again: then
        its events come again later."""
        subscription = self._by_name.get(content["channel"])
        if subscription is None or not subscription.is_confirmed or subscription.position is None:
            return None, Position("", 0)
        return subscription, subscription.position
