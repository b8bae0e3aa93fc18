"""One look at all peers, and the orders in which they are told."""

from collections.abc import Iterable

from twistedsock.core.names import NICK_BYTES
from twistedsock.core.peer_record import peer_record
from twistedsock.core.session import Session
from twistedsock.monitoring.pages import pages_for, peers_page, rows_for
from twistedsock.monitoring.ranking import Work, rank
from twistedsock.monitoring.topics import Topic

PART = 1_000
"""Peers that are looked at in one bit of work."""

SOCKETS = 2_000
"""Sockets that are asked what they have sent, for the order by that, at each look; of more peers, those that were not
asked keep what they had sent before."""
SOCKETS_PART = 250
"""Of these, in one bit of work: each is a system call."""


class PeerCensus:
    """What is told until the next look. An order is made when somebody asks for it first."""

    def __init__(self, at: float, longest: int) -> None:
        """``longest`` is how many bytes all the names of one peer have at most."""
        self.at = at
        self.sessions: list[Session] = []
        self.sent: dict[Session, int] = {}
        self.asked_to = 0
        self._longest = longest
        self._orders: dict[str, list[int]] = {}
        self._texts: list[bytes] = []
        self._before: PeerCensus | None = None

    def take(self, sessions: Iterable[Session], before: "PeerCensus | None") -> None:
        """Look at all. What their sockets had sent is known from ``before``."""
        self.sessions = list(sessions)
        if before is not None:
            self.sent, self.asked_to = before.sent, before.asked_to

    def order(self, name: str) -> Work[list[int]]:
        """The places of the sessions."""
        known = self._orders.get(name)
        if known is not None:
            return known
        count = len(self.sessions)
        newest = list(range(count - 1, -1, -1))
        if name == "newest":
            order = newest
        elif name == "id":
            order = yield from rank([session.peer.id for session in self.sessions])
        else:
            keys: list[float] = []
            if name == "sent":
                yield from self._ask_sockets()
            for start in range(0, count, PART):
                part = [self.sessions[place] for place in newest[start : start + PART]]
                if name == "sent":
                    keys += [-self.sent[session] for session in part]
                else:
                    keys += [-session.lag if session.behind else 0 for session in part]
                yield
            if any(keys):
                order = [newest[place] for place in (yield from rank(keys))]
            else:  # most of the time nobody is behind
                order = newest
        self._orders[name] = order
        return order

    def _ask_sockets(self) -> Work[None]:
        sessions, count = self.sessions, len(self.sessions)
        start = self.asked_to if self.asked_to < count else 0
        known = self.sent
        self.sent = {}
        for first in range(0, count, PART):
            part = sessions[first : first + PART]
            self.sent.update([(session, known.get(session, 0)) for session in part])
            yield
        asked = (sessions[start:] + sessions[:start])[:SOCKETS]
        for first in range(0, len(asked), SOCKETS_PART):
            for session in asked[first : first + SOCKETS_PART]:
                traffic = session.traffic()
                if traffic is not None:
                    self.sent[session] = traffic.sent
            yield
        self.asked_to = (start + SOCKETS) % count if count > SOCKETS else 0

    def answer(self, topic: Topic, now: float) -> Work[bytes]:
        """The page that is asked for; one behind the last is empty."""
        if topic.text:
            order = yield from self._find(topic.text)
        else:
            order = yield from self.order(topic.order)
        rows = rows_for(self._longest)
        pages = 1 if topic.text else pages_for(len(order), rows)
        start = topic.page * rows
        shown = [peer_record(self.sessions[place], now) for place in order[start : start + rows]]
        return peers_page(topic.page, pages, len(order), shown)

    def _find(self, text: bytes) -> Work[list[int]]:
        order, texts = (yield from self.order("newest")), self._texts
        while len(texts) < len(self.sessions):
            texts += [_text(session) for session in self.sessions[len(texts) : len(texts) + PART]]
            yield
        found = [place for place in order if text in texts[place]]
        yield
        return found


def _subject(session: Session) -> bytes:
    identity = session.identity
    return b"" if identity is None else identity.subject


def longest_names(session: Session) -> int:
    """Bytes of all its names at most, as it may change its nick."""
    peer, ends = session.peer, session.ends
    return len(peer.id) + NICK_BYTES + len(ends.client) + len(ends.server) + len(_subject(session))


def _text(session: Session) -> bytes:
    """In what is looked for."""
    peer = session.peer
    return b"\n".join((peer.id, peer.nick, _subject(session), session.ends.client)).lower()
