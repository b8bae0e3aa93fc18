"""The connection log: the newest events of connections, for operators.

Each kind of event has its own share of the entries and of the bytes, and repeated events of one cause are one entry.
Therefore neither a client that reconnects all day nor one that is rejected a thousand times a second removes what is
known of the others.
"""

from collections.abc import Iterable, Iterator

import msgspec

from twistedsock.errors import Error
from twistedsock.limits.principal import client_principal
from twistedsock.session.connection_info import ClosedConnectionInfo
from twistedsock.session.context import ServerContext
from twistedsock.session.encoder import Endpoints
from twistedsock.session.session import Session
from twistedsock.session.timeline import Step

KINDS = ("connect", "behind", "lost", "end", "refused")

MAX_ENTRIES_PER_KIND = 100
"""500 in total."""

MAX_BYTES_PER_KIND = 48 * 1024
"""Encoded bytes that are shown. Most entries have 200 to 300, and at most about 1,000."""

MAX_TEXT_LENGTH = 120
"""Characters of a reason or an error message."""

NUMBERS_PER_MILLISECOND = 1024
"""More than there are workers, so that each has its own, and enough that two servers with random ones seldom have the
same. Numbers stay below 2^53, the largest integer that JavaScript reads exactly, until the year 2248."""

CLOCK_DIFFERENCE_SECONDS = 1.0
"""The clocks of servers on several machines may differ by this: entries of the last second can be incomplete."""

_encode = msgspec.json.Encoder().encode


class JournalEntry(msgspec.Struct, gc=False, omit_defaults=True, rename={"client": "from", "server": "to"}):
    """One event. Of repeated ones: the newest, with their number and the time of the first. Text contains no characters
    that a terminal would not print."""

    number: int
    """Increases with each event, so that programs can ask for later ones."""
    at: float
    """Seconds since 1970."""
    kind: str
    client: str
    server: str
    dialect: str
    """The protocol. Of a rejected client: ``line``, ``web`` (before its first request) or ``http``."""
    id: str = ""
    """Empty for rejected clients, which never had a session."""
    nick: str = ""
    subject: str = ""
    detail: str = ""
    """The channel and its offsets, the reason of the end, or the error message."""
    code: str = ""
    """The error code, for rejected clients."""
    by: str = ""
    """Which side ended the connection: ``peer`` or ``server``."""
    how: str = ""
    """How it ended: ``cleanly``, ``broken`` or ``aborted``."""
    seconds: float | None = None
    """The duration of a connection that has ended, or how long the client was behind."""
    sent: int | None = None
    received: int | None = None
    times: int = 1
    since: float | None = None
    """The time of the first of repeated events."""


Key = tuple[object, ...]
"""Events of one kind with the same key are one entry."""


class _Share:
    """The entries of one kind. Their bytes are counted when they are read, because connections are more frequent."""

    def __init__(self) -> None:
        # The newest at the end.
        self._entries: dict[Key, JournalEntry] = {}

    def __iter__(self) -> Iterator[JournalEntry]:
        """The newest first, as many as the bytes allow."""
        left = MAX_BYTES_PER_KIND
        for entry in reversed(self._entries.values()):
            left -= len(_encode(entry))
            if left < 0:
                return
            yield entry

    def get(self, key: Key) -> JournalEntry | None:
        return self._entries.get(key)

    def add(self, key: Key, entry: JournalEntry) -> None:
        """Add an entry in place of the one with the same key, and drop the oldest if there are too many."""
        self._entries.pop(key, None)
        self._entries[key] = entry
        if len(self._entries) > MAX_ENTRIES_PER_KIND:
            del self._entries[next(iter(self._entries))]


class ConnectionJournal:
    """Records the events of connections, as the monitor receives them. ``process`` is the index of this process if
    there are several, and ``clock_difference`` by how many seconds their clocks may differ."""

    def __init__(self, context: ServerContext, process: int | None = None, clock_difference: float = 0.0) -> None:
        self._context = context
        self._process = process
        self._clock_difference = clock_difference
        self.newest = 0
        """The number of the newest event."""
        self._shares = {kind: _Share() for kind in KINDS}

    def entries(self, kinds: Iterable[str] = KINDS) -> list[JournalEntry]:
        """The entries of these kinds, the newest first."""
        found = [entry for kind in kinds for entry in self._shares[kind]]
        for entry in found:
            if entry.kind == "connect":
                self._update_names(entry)
        return sorted(found, key=lambda entry: -entry.number)

    def _update_names(self, entry: JournalEntry) -> None:
        """A client that has just connected has no name yet, and may change its protocol."""
        session = self._context.sessions.get(entry.id.encode())
        if isinstance(session, Session):
            entry.nick, entry.subject, entry.dialect = _names(session)

    # Called by the monitor.

    def opened(self, session: Session) -> None:
        endpoints, id = session.endpoints, session.client.id
        client, server, nick = endpoints.client.decode(), endpoints.server.decode(), id.decode()
        self.newest = number = self._next_number()
        # The nick is the id still, and is looked up when the entry is read.
        entry = JournalEntry(number, self._now(), "connect", client, server, session.protocol, nick, nick)
        self._shares["connect"].add((id,), entry)

    def stepped(self, session: Session, step: Step) -> None:
        if step.name == "behind" or step.name == "lost":
            entry = self._entry_of(session, step.name)
            entry.detail = printable(step.words)
            self._add(step.name, (session.client.id,), entry)
        elif step.name == "caught-up":
            behind = self._shares["behind"].get((session.client.id,))
            if behind is not None:
                behind.seconds = round(max(0.0, self._now() - behind.at), 3)

    def closed(self, session: Session, record: ClosedConnectionInfo) -> None:
        entry = self._entry_of(session, "end")
        entry.detail, entry.by, entry.how = printable(record.why), record.by, record.how
        entry.seconds, entry.sent, entry.received = record.seconds, record.sent, record.received
        self._add("end", (session.client.id,), entry)
        connected = self._shares["connect"].get((session.client.id,))
        if connected is not None:
            connected.nick, connected.subject, connected.dialect = entry.nick, entry.subject, entry.dialect

    def refused(self, endpoints: Endpoints, protocol: str, error: Error, about: str = "") -> None:
        code = error.code.value.decode()
        detail = printable(f"{error.message} ({about})" if about else error.message)
        client, server = endpoints.client.decode(), endpoints.server.decode()
        entry = JournalEntry(0, 0.0, "refused", client, server, protocol, detail=detail, code=code)
        self._add("refused", (client_principal(endpoints.client), code), entry)

    def _entry_of(self, session: Session, kind: str) -> JournalEntry:
        client, server = session.endpoints.client.decode(), session.endpoints.server.decode()
        nick, subject, dialect = _names(session)
        return JournalEntry(0, 0.0, kind, client, server, dialect, session.client.id.decode(), nick, subject)

    def _add(self, kind: str, key: Key, entry: JournalEntry) -> None:
        share = self._shares[kind]
        self.newest = self._next_number()
        entry.number, entry.at = self.newest, self._now()
        earlier = share.get(key)
        if earlier is not None:
            entry.times = earlier.times + 1
            entry.since = earlier.at if earlier.since is None else earlier.since
        share.add(key, entry)

    def _next_number(self) -> int:
        """With several processes, numbers are times, so that one order holds for all, and no two are the same."""
        if self._process is None:
            return self.newest + 1
        time = max(self.newest // NUMBERS_PER_MILLISECOND + 1, int(self._context.wall_clock() * 1000))
        return time * NUMBERS_PER_MILLISECOND + self._process % NUMBERS_PER_MILLISECOND

    @property
    def newest_complete(self) -> int:
        """A number that all later events exceed, in all processes."""
        if self._process is None:
            return self.newest
        return int((self._context.wall_clock() - self._clock_difference) * 1000) * NUMBERS_PER_MILLISECOND - 1

    def _now(self) -> float:
        return round(self._context.wall_clock(), 3)


def _names(session: Session) -> tuple[str, str, str]:
    """Nick, subject and protocol."""
    identity = session.identity
    subject = "" if identity is None else printable(identity.subject.decode())
    return printable(session.client.nick.decode()), subject, session.protocol


def printable(text: str) -> str:
    """The text with escapes in place of characters that are not printed, or that change the order of others. It is cut
    to ``MAX_TEXT_LENGTH``."""
    if not text.isprintable():
        text = "".join([one if one.isprintable() else one.encode("unicode_escape").decode() for one in text])
    return text if len(text) <= MAX_TEXT_LENGTH else text[: MAX_TEXT_LENGTH - 1] + "…"
