"""Socket.IO, inwards: packets of one client to commands (docs/reference/socketio-protocol.md).

In a namespace, an event is a publication on the channel of that name. On the main namespace, the events in
``_COMMANDS`` are the commands of the JSON protocol: they are written as its messages, so that both check arguments in
the same way.
"""

import re
from collections.abc import Callable, Sequence

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from twistedsock.codecs import json_decoder
from twistedsock.codecs.payload import MESSAGES_PER_STEP, alike_texts, build_payloads, is_too_deep
from twistedsock.codecs.socketio import (
    MAIN_NAMESPACE,
    TOO_DEEP,
    InvalidPacket,
    PacketDecoder,
    PacketType,
    SocketPacket,
    event_name_to_server,
)
from twistedsock.codecs.socketio_encoder import (
    MAIN_EVENTS,
    NAMESPACE_EVENTS,
    RECOVERED_MAIN_EVENTS,
    RECOVERED_NAMESPACE_EVENTS,
    SILENT,
    SocketIOEncoder,
    ack_tag,
    ack_tags,
    connect_tag,
    event_tag,
    recovery_text,
)
from twistedsock.codecs.sse import parse_event_id
from twistedsock.errors import NOT_SUBSCRIBED, Error, ErrorCode
from twistedsock.pubsub.names import DEFAULT_EVENT_NAME
from twistedsock.pubsub.values import BYTES, JSON, TEXT, Payloads, Tag
from twistedsock.session import commands
from twistedsock.session.commands import MAX_OFFSET, Command, InvalidCommand, Publish, Several

_TEXT = b"4"
"""Before a text: its packet type, so that WebSocket messages can be passed on as they are."""

_BINARY = b"\x00"
"""Before the bytes of a binary message."""

_JOIN = b"\x01"
"""The message that continues the joining of a namespace, when the commands before it have been run."""


def to_message(data: bytes, is_binary: bool) -> bytes:
    """An Engine.IO message as ``SocketIODecoder.decode`` takes it. A text packet is one already."""
    return (_BINARY if is_binary else _TEXT) + data


_COMMANDS = {
    "subscribe": ("channel",),
    "unsubscribe": ("channel",),
    "publish": ("channel", "data"),
    "history": ("channel",),
    "who": ("channel",),
    "list": (),
    "nick": ("nick",),
    "auth": ("token",),
    "ping": (),
    "info": (),
}
"""The events of the main namespace, with the arguments before the options."""

_QUESTIONS = frozenset({"history", "who", "list", "ping", "info"})
"""Events that have no other effect than their answer."""

_UNKNOWN_EVENT = Error(
    ErrorCode.UNKNOWN_COMMAND,
    "unknown event: on the main namespace, emit subscribe, unsubscribe, publish, history, who, list, nick, auth, ping "
    'or info; other events need the namespace of a channel, such as io("/kitchen")',
)

_NO_ACK = Error(ErrorCode.BAD_ARGUMENT, "no acknowledgement: pass a callback, or use emitWithAck")

_DATA_TOO_DEEP = Error(ErrorCode.BAD_JSON, TOO_DEEP)

_NESTED_BYTES = Error(
    ErrorCode.BAD_ARGUMENT,
    "unsupported bytes: an event can have bytes as its only argument, and no bytes inside of JSON or beside other "
    "arguments",
)

_JOINED_AS_NAMESPACE = Error(ErrorCode.BAD_ARGUMENT, "this connection has joined the channel as a namespace")

_SUBSCRIBED_ON_MAIN = Error(
    ErrorCode.BAD_ARGUMENT, "this connection has subscribed to the channel on the main namespace"
)


class _Auth(msgspec.Struct, gc=False):
    """The fields of ``auth`` that mean something here. ``pid`` and ``offset`` are sent by clients that recover."""

    token: str | UnsetType = UNSET
    nick: str | UnsetType = UNSET
    last: int | UnsetType = UNSET
    echo: bool = True
    presence: bool = False
    recover: bool = False
    pid: str | UnsetType = UNSET
    offset: str | UnsetType = UNSET


_read_auth = msgspec.json.Decoder(_Auth).decode

_read_text = msgspec.json.Decoder(str).decode


class _Placeholder(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    is_placeholder: bool = msgspec.field(name="_placeholder")
    number: int = msgspec.field(name="num")


_read_placeholder = msgspec.json.Decoder(_Placeholder).decode

_PLACEHOLDER = _Placeholder(True, 0)

_MAX_PLACEHOLDER_BYTES = 64
"""Clients differ in white space."""

_PID = re.compile(r"[0-9]{1,9}/([0-9A-Za-z_-]{1,64}:[0-9]{1,16})(?:/([0-9A-Za-z_-]{1,64}:[0-9]{1,16}))?")
"""A number, the position at which the connection began, and the offset that the client had then."""


class SocketIODecoder:
    """``encoder`` is that of the same session, which holds the joined namespaces. ``max_bytes`` is the maximum size of
    an event, ``max_packet_bytes`` that of a packet with its attachments. ``has_policy`` returns whether tokens are
    accepted; otherwise they are ignored. Events of the main namespace that are no commands belong to ``main_channel``,
    if there is one."""

    __slots__ = (
        "_encoder",
        "_has_policy",
        "_join",
        "_main_channel",
        "_main_events",
        "_max_bytes",
        "_packets",
        "has_failed",
    )

    def __init__(
        self,
        encoder: SocketIOEncoder,
        max_bytes: int,
        max_packet_bytes: int,
        has_policy: Callable[[], bool],
        main_channel: bytes = b"",
    ) -> None:
        self.has_failed = False
        """True if the client has violated the protocol, so that its session ends."""
        self._encoder = encoder
        self._max_bytes = max_bytes
        self._packets = PacketDecoder(max_packet_bytes)
        self._has_policy = has_policy
        self._main_channel = main_channel
        # How events of the main channel are written. A client that recovers needs their positions in any case.
        self._main_events = MAIN_EVENTS
        # How to join a namespace when the commands before have been run.
        self._join: commands.Subscribe | None = None

    @property
    def buffered_bytes(self) -> int:
        """The size of a packet that waits for attachments."""
        return self._packets.buffered_bytes

    def find_tag(self, message: bytes) -> Tag:
        return None

    def decode_alike(self, first: Publish, messages: Sequence[object], position: int) -> Publish | None:
        """One publication for the messages from ``position`` on that differ only in their text from the one before,
        whose command is ``first``. Returns None if there are none. Its text is the last argument, and there is no
        other if it is not that of a command: several arguments are one payload in JSON."""
        message = messages[position - 1]
        if first.payloads.kind is not TEXT or not isinstance(message, bytes) or message[-2:] != b'"]':
            return None
        stop = len(message) - 2
        start = message.rfind(b'"', 0, stop) + 1
        found, ids = _WITH_ID.match(message), list[int]()
        if found is None:
            texts = alike_texts(messages, position, start, stop, self._max_bytes)
        else:
            texts, ids = _alike_with_ids(found, messages, position, start, stop, self._max_bytes)
        if not texts:
            return None
        tags = ack_tags(first.tags[0] or b"", ids) if ids else (*first.tags,) * len(texts)
        return replace(first, payloads=build_payloads(texts, TEXT), tags=tags)

    def decode(self, message: bytes) -> Command | Several | None:
        """The commands in a message, which ``to_message`` has made."""
        try:
            if message == _JOIN:
                return self._joined()
            packet = self._packets.feed(message[1:], message.startswith(_BINARY))
            return None if packet is None else self._command(packet)
        except InvalidPacket as invalid:
            self.has_failed = True
            return commands.Quit(f"invalid packet: {invalid}")

    def _command(self, packet: SocketPacket) -> Command | Several | None:
        namespace, is_main = packet.namespace.encode()[1:], packet.namespace == MAIN_NAMESPACE
        if packet.type is PacketType.CONNECT:
            return self._connect(packet, namespace)
        if packet.type is PacketType.DISCONNECT:
            return self._disconnect(namespace, is_main)
        if packet.type is not PacketType.EVENT:
            return None  # an ack: the server does not ask for any
        tag = event_tag(namespace) if packet.id is None else ack_tag(namespace, packet.id, namespace)
        if not (self._encoder.is_main_joined if is_main else namespace in self._encoder.namespaces):
            return InvalidCommand(NOT_SUBSCRIBED, tag)
        if packet.error:
            return InvalidCommand(Error(ErrorCode.BAD_JSON, packet.error), tag)
        name = packet.event_name
        if not is_main:
            return self._publish(namespace, event_name_to_server(name), packet.items[1:], packet, tag)
        if name in _COMMANDS:
            return self._main_command(name, packet, tag)
        if not self._main_channel:
            return InvalidCommand(_UNKNOWN_EVENT, tag)
        if packet.id is not None:
            tag = ack_tag(b"", packet.id, self._main_channel)
        return self._publish(self._main_channel, event_name_to_server(name), packet.items[1:], packet, tag)

    # Joining and leaving namespaces.

    def _connect(self, packet: SocketPacket, namespace: bytes) -> Command | Several | None:
        encoder = self._encoder
        if encoder.is_main_joined if not namespace else namespace in encoder.namespaces:
            raise InvalidPacket("the namespace has been joined already")
        if packet.error:
            return InvalidCommand(Error(ErrorCode.BAD_JSON, packet.error), connect_tag(namespace))
        try:
            auth = _read_auth(packet.items[0]) if packet.items else _Auth()
        except msgspec.ValidationError as error:
            return InvalidCommand(Error(ErrorCode.BAD_ARGUMENT, f"invalid auth: {error}"), connect_tag(namespace))
        if auth.last is not UNSET and not 0 <= auth.last <= MAX_OFFSET:
            return InvalidCommand(Error(ErrorCode.BAD_ARGUMENT, "invalid auth: last"), connect_tag(namespace))
        if namespace in encoder.followed:
            return InvalidCommand(_SUBSCRIBED_ON_MAIN, connect_tag(namespace))
        if not namespace and self._main_channel in encoder.namespaces:
            return InvalidCommand(_JOINED_AS_NAMESPACE, connect_tag(namespace))
        self._join = self._subscription(namespace, auth)
        if not namespace:
            self._main_events = RECOVERED_MAIN_EVENTS if auth.recover else MAIN_EVENTS
        tag = encoder.connecting = self._join.tag
        before: list[bytes | Command] = []
        if auth.token is not UNSET and self._has_policy():
            before.append(commands.Auth(auth.token.encode(), tag))
        if auth.nick is not UNSET:
            before.append(commands.Nick(auth.nick.encode(), tag))
        return Several([*before, _JOIN]) if before else self._joined()

    def _subscription(self, namespace: bytes, auth: _Auth) -> commands.Subscribe:
        """How to subscribe to the channel of a namespace, without a channel for the main namespace if it has none."""
        channel = namespace or self._main_channel
        last = None if auth.last is UNSET else auth.last
        events = NAMESPACE_EVENTS if namespace else MAIN_EVENTS
        if not auth.recover or not channel:
            return commands.Subscribe(
                channel, last, echo=auth.echo, presence=auth.presence, tag=connect_tag(namespace), encoder=events
            )
        events = RECOVERED_NAMESPACE_EVENTS if namespace else RECOVERED_MAIN_EVENTS
        since, epoch, recovery = _read_recovery(auth)
        return commands.Subscribe(
            channel,
            last,
            since,
            epoch,
            auth.presence,
            auth.echo,
            tag=connect_tag(namespace, recovery),
            encoder=events,
        )

    def _joined(self) -> Command | None:
        """The end of joining a namespace, unless a command before it has failed."""
        join, self._join = self._join, None
        if join is None or self._encoder.connecting != join.tag:
            return None
        return join if join.channel else commands.Reply(self._encoder.main_joined(), tag=join.tag)

    def _disconnect(self, namespace: bytes, is_main: bool) -> Command | Several | None:
        encoder = self._encoder
        if not is_main:
            if namespace not in encoder.namespaces:
                return None
            del encoder.namespaces[namespace]
            return commands.Unsubscribe(namespace, SILENT, has_left=True)
        encoder.is_main_joined = False
        if not encoder.followed:
            return None
        return Several([commands.Unsubscribe(channel, SILENT, has_left=True) for channel in encoder.followed])

    # Events.

    def _publish(self, channel: bytes, name: bytes, values: Sequence[bytes], packet: SocketPacket, tag: Tag) -> Command:
        payloads = _read_payload(values, packet.attachments)
        if isinstance(payloads, Error):
            return InvalidCommand(payloads, tag)
        return self._checked(Publish(channel, payloads, name, tags=(tag,)))

    def _checked(self, command: Publish) -> Command:
        if command.payloads.size <= self._max_bytes:
            return command
        error = Error(ErrorCode.TOO_LONG, f"event too long: at most {self._max_bytes} bytes are allowed")
        return InvalidCommand(error, command.tags[0])

    def _main_command(self, name: str, packet: SocketPacket, tag: Tag) -> Command:
        """A command on the main namespace: its arguments are fields of a message of the JSON protocol, and so are the
        options."""
        fields, values = _COMMANDS[name], packet.items[1:]
        if name == "publish" and len(values) == 2 and values[0].startswith(b'"'):  # nearly all
            channel = _read_text(values[0]).encode()
            if packet.id is not None:
                tag = ack_tag(b"", packet.id, channel)
            return self._publish(channel, DEFAULT_EVENT_NAME, values[1:], packet, tag)
        if packet.id is None and name in _QUESTIONS:
            return InvalidCommand(_NO_ACK, tag)
        options = values[len(fields)] if len(values) == len(fields) + 1 else b"{}"
        if not len(fields) <= len(values) <= len(fields) + 1 or not options.startswith(b"{"):
            expected = ", ".join([f'emit("{name}"', *fields, "options)"])
            return InvalidCommand(Error(ErrorCode.BAD_ARGUMENT, f"invalid arguments: expected {expected}"), tag)
        payload: bytes | None = None
        if packet.attachments:
            if name != "publish" or not _is_attachment(values[1]) or len(packet.attachments) > 1:
                return InvalidCommand(_NESTED_BYTES, tag)
            fields, payload = fields[:1], packet.attachments[0]
        parts = [b'"%b":%b' % (field.encode(), value) for field, value in zip(fields, values, strict=False)]
        # The last field of a name counts, so options cannot replace these.
        inner = options[1:-1].strip()
        message = b",".join([*([inner] if inner else []), b'"id":0,"type":"%b"' % name.encode(), *parts])
        return self._answered_with(json_decoder.decode(b"{%b}" % message, payload), tag, packet.id)

    def _answered_with(self, command: Command, tag: Tag, id: int | None) -> Command:
        """The command of a message of the JSON protocol with another tag."""
        if isinstance(command, Publish):
            if id is not None:
                tag = ack_tag(b"", id, command.channel)
            name = event_name_to_server(command.name.decode())
            return self._checked(replace(command, name=name, tags=(tag,)))
        if isinstance(command, commands.Subscribe | commands.Unsubscribe):
            if command.channel in self._encoder.namespaces:
                return InvalidCommand(_JOINED_AS_NAMESPACE, tag)
            if isinstance(command, commands.Subscribe):
                events = self._main_events if command.channel == self._main_channel else MAIN_EVENTS
                return replace(command, tag=tag, encoder=events)
        return replace(command, tag=tag)


_WITH_ID = re.compile(rb"(42(?:/[^,]*+,)?+)([0-9]{1,15})(\[.*)", re.DOTALL)
"""An event with the id of its ack."""


def _alike_with_ids(
    first: re.Match[bytes], messages: Sequence[object], position: int, start: int, stop: int, max_bytes: int
) -> tuple[list[bytes], list[int]]:
    """``alike_texts`` of events that differ in their ids too, and these ids. ``first`` is the event before them."""
    head, array, offset = first[1], first[3], first.start(3)
    prefix = array[: start - offset]
    texts, ids = list[bytes](), list[int]()
    is_complete = False
    while not is_complete:
        begin = position + len(texts)
        numbers, arrays = list[bytes](), [array]
        for message in messages[begin : begin + MESSAGES_PER_STEP]:
            event = _WITH_ID.match(message) if isinstance(message, bytes) else None
            if event is None or event[1] != head or not event[3].startswith(prefix):
                break
            numbers.append(event[2])
            arrays.append(event[3])
        some = alike_texts(arrays, 1, start - offset, stop - offset, max_bytes) if numbers else []
        texts += some
        ids += map(int, numbers[: len(some)])
        is_complete = len(some) < MESSAGES_PER_STEP
    return texts, ids


def _read_payload(values: Sequence[bytes], attachments: Sequence[bytes]) -> Payloads | Error:
    """The arguments of an event as one payload: JSON null without any, an array for several."""
    if attachments:
        if len(values) != 1 or not _is_attachment(values[0]) or len(attachments) > 1:
            return _NESTED_BYTES
        return build_payloads(attachments, BYTES)
    value = values[0] if len(values) == 1 else b"[%b]" % b",".join(values) if values else b"null"
    if value.startswith(b'"'):
        return build_payloads((_read_text(value).encode() if b"\\" in value else value[1:-1],), TEXT)
    return _DATA_TOO_DEEP if is_too_deep(value) else build_payloads((value,), JSON)


def _is_attachment(value: bytes) -> bool:
    """True for the placeholder of the first attachment."""
    if len(value) > _MAX_PLACEHOLDER_BYTES:
        return False
    try:
        return _read_placeholder(value) == _PLACEHOLDER
    except msgspec.DecodeError:
        return False


def _read_recovery(auth: _Auth) -> tuple[int | None, bytes | None, bytes]:
    """The position after which a client wants to continue, if it sent one, and the text for its tag."""
    pid = "" if auth.pid is UNSET else auth.pid
    offset = "" if auth.offset is UNSET else auth.offset
    found = _PID.fullmatch(pid)
    if found is None:
        return None, None, recovery_text()
    begin, former = found.groups()
    text = offset if offset and offset != former else begin
    positions = parse_event_id(text, 1)
    position = positions[0] if positions else None
    if position is None:
        return None, None, recovery_text()
    return position.offset, position.epoch, recovery_text(pid, offset, position.offset)
