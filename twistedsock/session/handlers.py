"""Runs the commands of clients: one function for each type of command.

Replies leave in the order of the commands. Several publishes can wait for the backplane together; any other command
waits for the replies to those before it, and those after it wait for its own reply. So a client sees its commands take
effect in their order, however slow the backplane is.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from twistedsock import errors
from twistedsock.auth.identity import Identity, Right, check_access
from twistedsock.errors import CloseReason, Error
from twistedsock.limits.rate import answer_price, rename_price, rights_price, search_price
from twistedsock.limits.settings import MAX_PUBLISHES_IN_FLIGHT
from twistedsock.pubsub.future import Future, on_result
from twistedsock.pubsub.names import RESERVED, check_nick
from twistedsock.pubsub.subscription import Subscription
from twistedsock.pubsub.values import BATCH_COST, EVENT_COST, Batch, Event, Lost, Member, Page, Position, Tag
from twistedsock.session import commands
from twistedsock.session.authorizer import MAX_FAILED_TOKENS
from twistedsock.session.commands import Command, Publish, changes_epoch, dropped_since, resume_offset
from twistedsock.session.encoder import HistoryItem, Piece, SessionInfo
from twistedsock.session.history_reader import HistoryPart, read_part
from twistedsock.session.replies import PendingReplies, PendingReply
from twistedsock.session.session import Session, SessionState

if TYPE_CHECKING:
    from twistedsock.pubsub.channel import Channel
    from twistedsock.session.encoder import Encoder

T = TypeVar("T")

# As names of their own, because access to a member of an enum costs ten times as much on Python 3.11.
_OPEN, _WRITE = SessionState.OPEN, Right.WRITE


def handle(session: Session, command: Command) -> None:
    """Run one command. The caller must run no other while ``session.replies.input_paused`` is True."""
    if session.state is not _OPEN:
        return
    if session.pending_replies and not isinstance(command, Publish | commands.Notice):
        session.deferred_command = command
        session.replies.pause_input()
    else:
        HANDLERS[type(command)](session, command)


def _publish(session: Session, command: Publish) -> None:
    tags, pending = command.tags, session.pending_replies
    result: int | Error | Future[int]
    if session.context.policy is not None and (error := session.current_auth().check_access(command.channel, _WRITE)):
        result = error
    elif command.channel.startswith(RESERVED):
        result = errors.RESERVED_CHANNEL
    elif command.key:
        publish = partial(session.broker.publish, session.client)
        result = session.context.idempotency.publish_once(session.client.principal, command, publish)
    else:
        result = session.broker.publish(session.client, command)
    if isinstance(result, int) and not pending:  # nearly all
        if session.replies.subscriber.behind:
            _send_resets(session)
        if reply := session.replies.encoder.published(tags, result):
            session.replies.write(reply)
    elif isinstance(result, Error) and not pending:
        _write_errors(session, tags, result)
    else:
        if pending is None:
            pending = session.pending_replies = PendingReplies()
        on_result(result, partial(_published, session, pending, pending.add(tags)))
        if pending.publishes >= MAX_PUBLISHES_IN_FLIGHT:
            session.replies.pause_input()
    if session.broker.needs_flush:
        session.replies.flush()
        session.broker.flush()


def _published(session: Session, pending: PendingReplies, reply: PendingReply, outcome: int | Error) -> None:
    ready = pending.resolve(reply, outcome)
    if session.state is not SessionState.OPEN:
        return
    _send_resets(session)
    if not ready:
        # The event can be delivered now, but the replies before it, which must precede it, are not known.
        session.replies.hold_events()
        return
    for tags, result in ready:
        _write_published(session, tags, result)
    session.replies.flush()
    if not pending.has_out_of_order():
        session.replies.release_events()
    if session.deferred_command is None:
        if session.replies.is_busy and pending.publishes < MAX_PUBLISHES_IN_FLIGHT:
            session.replies.finish_command()
    elif not pending:
        command, session.deferred_command = session.deferred_command, None
        session.replies.is_busy = False
        handle(session, command)
        session.replies.flush()
        session.replies.resume_input()


def _send_resets(session: Session) -> None:
    """Send the resets that wait: the next reply can have an offset of a new epoch."""
    for subscription in session.behind:
        if subscription in (subscription.channel.resets or ()):
            session.replies.flush()
            subscription.subscriber.send_resets(subscription)


def _write_published(session: Session, tags: Sequence[Tag], outcome: int | Error) -> None:
    if isinstance(outcome, Error):
        for tag in tags:
            session.replies.write_error(tag, outcome)
    else:
        session.replies.write(session.replies.encoder.published(tags, outcome))


def _write_errors(session: Session, tags: Sequence[Tag], error: Error) -> None:
    session.replies.write_errors(tags, error)
    if session.replies.has_unfinished_reply and session.memory_budget.is_exceeded_by(session.client.source):
        session.replies.drop_unfinished_reply()
        session.close_with_error(errors.MEMORY_LIMIT_REACHED)


def _subscribe(session: Session, command: commands.Subscribe) -> None:
    limit = session.context.limits.max_subscriptions_per_client
    if (command.since is None) is not (command.epoch is None):
        session.replies.write_error(command.tag, errors.SINCE_WITHOUT_EPOCH)
    elif command.channel not in session.subscriptions and len(session.subscriptions) >= limit:
        session.replies.write_error(command.tag, errors.TOO_MANY_SUBSCRIPTIONS)
    else:
        _with_readable(session, command.channel, command.tag, partial(_subscribe_to, session, command))


def _subscribe_to(session: Session, command: commands.Subscribe, channel: "Channel", oldest: int | None = None) -> None:
    """``oldest`` is the offset from which on the backplane has the events, if it was asked."""
    broker = session.broker
    if oldest is None and broker.reads_older:
        broker.histories.update(channel)  # so that it drops nothing more before the reply
        if (since := dropped_since(command, channel)) is not None:
            _find_oldest(session, command, channel, since)
            return
    session.replies.flush()  # the replies to the client's own publishes precede their events, which follow now
    subscription, encoder = session.subscriptions.get(channel.name), session.event_encoder(command)
    if subscription is None:
        if not broker.subscription_shares.admits(session.client.principal):
            session.replies.write_error(command.tag, errors.TOO_MANY_SUBSCRIPTIONS_IN_ALL)
            broker.channels.close_if_unused(channel)
            return
        subscription = session.add_subscription(channel, command.echo, command.presence, encoder)
    else:
        broker.change_options(subscription, command.echo, command.presence, encoder)
    start, recovered = resume_offset(command, channel, oldest)
    replies = session.replies.encoder
    moved_to = start - 1 if changes_epoch(command, channel) else None
    session.replies.write(replies.subscribed(command.tag, channel.name, channel.position, recovered, start, moved_to))
    if start <= channel.head:
        _replay(session, subscription, channel, start, oldest)


def _find_oldest(session: Session, command: commands.Subscribe, channel: "Channel", since: Position) -> None:
    """Ask the backplane whether it has what the history has dropped, then subscribe."""
    answer = session.broker.backplane.read(channel.name, since, 1)
    found = Future[int]()

    def was_read(outcome: Sequence[Batch] | Error) -> None:
        found.settle(outcome[0].first if outcome and not isinstance(outcome, Error) else channel.history.first)

    def subscribe(oldest: int) -> None:
        def subscribe_to(reopened: "Channel") -> None:
            _subscribe_to(session, command, reopened, oldest if reopened.epoch == since.epoch else None)

        # Opened again, because the channel may have been closed meanwhile.
        _with_readable(session, channel.name, command.tag, subscribe_to)

    _when_ready(session, found, command.tag, subscribe)
    on_result(answer, was_read)
    session.broker.channels.close_if_unused(channel)


def _replay(
    session: Session, subscription: Subscription, channel: "Channel", start: int, oldest: int | None = None
) -> None:
    history = channel.history
    if subscription in session.behind:
        start = min(start, subscription.cursor)
    available = history.first if oldest is None else min(oldest, history.first)
    # Otherwise the backplane is asked when the subscription gets there.
    if start < available and (oldest is not None or not session.broker.reads_older):
        session.replies.write(session.replies.encoder.lost(channel.name, start, available - 1))
        channel.stats.lost += available - start
        start = available
    if session.is_rate_limited:
        # What only the backplane has is taken for as long as the events here.
        each = history.size / len(history) if history else BATCH_COST + EVENT_COST
        session.charge(answer_price(int(each * (history.end - start))))
    subscription.read_from(start)
    session.broker.resume(subscription.subscriber)


def _unsubscribe(session: Session, command: commands.Unsubscribe) -> None:
    if command.channel not in session.subscriptions:
        session.replies.write_error(command.tag, errors.NOT_SUBSCRIBED)
        return
    session.end_subscription(command.channel)
    session.replies.write(session.replies.encoder.unsubscribed(command.tag, command.channel))


def _history(session: Session, command: commands.ReadHistory) -> None:
    _with_readable(session, command.channel, command.tag, partial(_history_of, session, command))


def _history_of(session: Session, command: commands.ReadHistory, channel: "Channel") -> None:
    broker = session.broker
    session.replies.flush()
    broker.histories.update(channel)
    if channel.name in session.subscriptions:  # the subscription gets each event before the history shows it
        broker.send_undelivered(session.subscriptions[channel.name])
    encoder = session.replies.encoder
    if command.with_time:
        encoder = encoder.with_time()
    _stream(session, _history_pieces(session, command, channel, encoder))
    broker.channels.close_if_unused(channel)


def _history_pieces(
    session: Session, command: commands.ReadHistory, channel: "Channel", encoder: "Encoder"
) -> Iterator[Piece]:
    broker, position, now = session.broker, channel.position, session.context.wall_clock()
    part = yield from read_part(broker, channel, command.query, now, session.client.source)
    if isinstance(part, Error):
        broker.stats.count_error(part.code)
        yield encoder.refused(command.tag, part)
        return
    events = _events_while_readable(session, channel.name, part)
    yield from encoder.history(command.tag, channel.name, events, position, part.lost)


def _who(session: Session, command: commands.Who) -> None:
    if _may_read(session, command.channel, command.tag):
        members = session.broker.members(command.channel)
        _when_ready(session, members, command.tag, partial(_write_members, session, command))


def _write_members(session: Session, command: commands.Who, members: list[Member]) -> None:
    broker = session.broker
    if not _may_read(session, command.channel, command.tag):  # checked again, because the command may have waited
        return
    if not broker.member_shares.admits(session.client.principal, len(members)):
        session.replies.write_error(command.tag, errors.TOO_MANY_MEMBER_LISTS)
        return
    counted = broker.member_shares.count_while_iterated(members, session.client.principal)
    readable = _while_readable(session, command.channel, counted)
    _stream(session, session.replies.encoder.members(command.tag, command.channel, readable))


MAX_LISTED_CHANNELS = 1_000
"""In one reply: 240 kB with the longest names."""


def _list(session: Session, command: commands.ListChannels) -> None:
    context, readable = session.context, None
    if context.policy is not None:
        auth = session.current_auth()
        if auth.error is not None:
            session.replies.write_error(command.tag, auth.error)
            return
        readable = auth.identity.grants.readable()
    session.charge(search_price(len(session.broker.channels), 0 if readable is None else readable.stars))
    found = context.channel_index.find(
        command.prefix,
        command.after,
        MAX_LISTED_CHANNELS,
        session.client.principal,
        readable,
        lambda: session.state is SessionState.OPEN,
    )
    _when_ready(session, found, command.tag, partial(_write_channels, session, command))


def _write_channels(session: Session, command: commands.ListChannels, page: Page) -> None:
    _stream(session, session.replies.encoder.channels(command.tag, page))


def _nick(session: Session, command: commands.Nick) -> None:
    error = check_nick(command.nick)
    if error is not None:
        session.replies.write_error(command.tag, error)
    elif command.nick != session.client.id and session.context.sessions.is_id(command.nick):
        session.replies.write_error(command.tag, errors.NICK_IS_AN_ID)
    else:
        session.charge(rename_price(len(session.subscriptions)))
        has_policy = session.context.policy is not None
        session.rename(session.current_auth().displayed_nick(command.nick) if has_policy else command.nick)
        session.replies.write(session.replies.encoder.nicked(command.tag, session.client.nick))


def _authenticate(session: Session, command: commands.Auth) -> None:
    if session.context.policy is None:
        session.replies.write_error(command.tag, errors.NO_KEYS)
        return
    session.send_undelivered()  # the former identity had the right to these events
    auth = session.current_auth()
    error = session.update_identity(auth.authenticate(command.token))
    if error is not None:
        session.replies.write_error(command.tag, error)
        if auth.failed >= MAX_FAILED_TOKENS:
            session.close(CloseReason.POLICY, errors.TOO_MANY_TOKENS)
        return
    session.charge(rights_price(len(session.subscriptions), len(auth.identity.grants.pairs)))
    session.add_step("authenticated", auth.identity.subject.decode())
    encoder = session.replies.encoder
    session.replies.write(encoder.authenticated(command.tag, session.client.nick, auth.seconds_left()))
    session.pause_events()
    session.replies.is_busy = True  # until the subscriptions have been checked, which can take several turns
    session.broker.scheduler.run_steps(session.recheck_rights(), partial(_rights_checked, session))
    if session.replies.is_busy:
        session.replies.pause_input()


def _rights_checked(session: Session) -> None:
    if session.state is SessionState.OPEN:
        session.replies.finish_command()


def _ping(session: Session, command: commands.Ping) -> None:
    session.replies.write(session.replies.encoder.pong(command.tag, command.text))


def _info(session: Session, command: commands.Info) -> None:
    context = session.context
    info = SessionInfo(
        session.client.member(), session.endpoints, len(session.subscriptions), context.uptime(), context.version
    )
    session.replies.write(session.replies.encoder.facts(command.tag, info))


def _reply(session: Session, command: commands.Reply) -> None:
    if command.encoder is not None:
        session.replies.encoder = command.encoder
    session.replies.write(command.data)


def _notice(session: Session, command: commands.Notice) -> None:
    session.replies.write(session.replies.encoder.notice(command.text))


def _quit(session: Session, command: commands.Quit) -> None:
    session.send_undelivered()
    session.replies.write(session.replies.encoder.bye(b""))
    session.finish(CloseReason.NORMAL, command.words, "peer")


def _close(session: Session, command: commands.Close) -> None:
    session.close(command.reason, command.message)


def _invalid_command(session: Session, command: commands.InvalidCommand) -> None:
    _write_errors(session, (command.tag, *command.more), command.error)


def _may_read(session: Session, channel: bytes, tag: Tag) -> bool:
    """Returns False after writing an error if the client has no right to read the channel."""
    context = session.context
    if context.policy is not None:
        error = session.current_auth().check_access(channel, Right.READ)
    elif not channel.startswith(RESERVED):
        return True
    else:
        error = check_access(None, channel, Right.READ, context.is_admin(None, session.endpoints.client))
    if error is not None:
        session.replies.write_error(tag, error)
    return error is None


def _while_readable(session: Session, channel: bytes, items: Iterator[T]) -> Iterator[T]:
    """Items of a reply that is written in pieces; it ends when the client loses the right to read the channel."""
    checked: Identity | None = None
    for item in items:
        if session.context.policy is not None:
            auth = session.current_auth()
            if (auth.identity is not checked or auth.error) and auth.check_access(channel, Right.READ):
                return
            checked = auth.identity
        yield item


def _events_while_readable(session: Session, channel: bytes, part: HistoryPart) -> Iterator[HistoryItem]:
    """Events of a history; those that the client loses the right to read are reported as lost."""
    start = part.start
    for item in _while_readable(session, channel, part.events):
        if isinstance(item, Event):
            start = item.offset + 1
        elif isinstance(item, Lost):
            start = item.last + 1
        yield item
    if start < part.stop:
        yield Lost(start, part.stop - 1)


def _when_ready(session: Session, result: T | Error | Future[T], tag: Tag, action: Callable[[T], None]) -> None:
    """Continue a command with ``action`` when the result is known; an error is the reply."""
    if isinstance(result, Future):
        session.replies.pause_input()
        result.then(partial(_act_later, session, tag, action))
    else:
        _act(session, tag, action, result)


def _act(session: Session, tag: Tag, action: Callable[[T], None], outcome: T | Error) -> None:
    if isinstance(outcome, Error):
        session.replies.write_error(tag, outcome)
    else:
        action(outcome)


def _act_later(session: Session, tag: Tag, action: Callable[[T], None], outcome: T | Error) -> None:
    if session.state is SessionState.OPEN:
        session.replies.is_busy = False
        _act(session, tag, action, outcome)
        session.replies.flush()
        session.replies.resume_input()


def _with_readable(session: Session, name: bytes, tag: Tag, action: Callable[["Channel"], None]) -> None:
    """Continue a command with a channel that the client has the right to read."""
    if not _may_read(session, name, tag):
        return
    opened = session.broker.channels.open(name, session.client.principal)
    if isinstance(opened, Future):
        _when_ready(session, opened, tag, partial(_opened_later, session, name, tag, action))
    else:
        _act(session, tag, action, opened)


def _opened_later(
    session: Session, name: bytes, tag: Tag, action: Callable[["Channel"], None], channel: "Channel"
) -> None:
    if session.broker.channels.get(name) is not channel:
        # Another session that waited for the channel did not need it, so that it was closed.
        _with_readable(session, name, tag, action)
    elif _may_read(session, name, tag):  # checked again, because the command has waited
        action(channel)
    else:
        session.broker.channels.close_if_unused(channel)


def _stream(session: Session, pieces: Iterator[Piece]) -> None:
    """Write a reply that can be long. It is charged as it is written."""
    session.replies.stream(_charged(session, pieces) if session.is_rate_limited else pieces)


def _charged(session: Session, pieces: Iterator[Piece]) -> Iterator[Piece]:
    for piece in pieces:
        if not isinstance(piece, Future):
            session.charge(answer_price(len(piece)))
        yield piece


HANDLERS: dict[type[Command], Callable[[Session, Any], None]] = {
    Publish: _publish,
    commands.Subscribe: _subscribe,
    commands.Unsubscribe: _unsubscribe,
    commands.ReadHistory: _history,
    commands.Who: _who,
    commands.ListChannels: _list,
    commands.Nick: _nick,
    commands.Auth: _authenticate,
    commands.Ping: _ping,
    commands.Info: _info,
    commands.Reply: _reply,
    commands.Quit: _quit,
    commands.Close: _close,
    commands.Notice: _notice,
    commands.InvalidCommand: _invalid_command,
}
