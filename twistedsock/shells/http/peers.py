"""Who is connected, and sending somebody away: for administrators."""

import re

import msgspec

from twistedsock.core.bridge import Bridge
from twistedsock.core.dialect import Ending
from twistedsock.core.errors import FOR_ADMINS, FOR_ADMINS_WITH_TOKEN, Code, Refusal
from twistedsock.core.peer_record import PeerRecord, peer_record
from twistedsock.core.session import Session
from twistedsock.shells.http.paging import PAGING, read_paging
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.wire.arguments import wrong
from twistedsock.wire.problems import Refused

NO_SUCH_PEER = Refusal(Code.BAD_ARGUMENT, "no peer has that id")

SENT_AWAY = b"disconnected by an administrator"
SENT_AWAY_CODE = b"disconnected"
"""Of the notice: who fetches tokens would come back with another one, as after any other end by the policy."""

MOST_REASON = 80
"""Characters of a reason: with the words before it, it fits into the close frame of a WebSocket."""

_REASON = re.compile(rf"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{{1,{MOST_REASON}}}")


class PeersPage(msgspec.Struct):
    """A page of peers, by id."""

    peers: list[PeerRecord]
    total: int
    next: str | None


class Peers:
    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def all(self, request: BridgeRequest) -> None:
        """``GET /peers``."""
        see_admin(request)
        request.arguments.only(PAGING)
        paging = read_paging(request.arguments)
        sessions = [guest for guest in self._bridge.roster if isinstance(guest, Session)]
        found, following = paging.page(sessions, lambda session: session.peer.id)
        told = None if following is None else following.decode()
        page = PeersPage([self._record(session) for session in found], len(sessions), told)
        request.answer_json(200, msgspec.json.encode(page) + b"\n")

    def one(self, request: BridgeRequest) -> None:
        """``GET /peers/{id}``."""
        request.arguments.only(())
        request.answer_json(200, msgspec.json.encode(self._record(self._find(request))) + b"\n")

    def disconnect(self, request: BridgeRequest) -> None:
        """``DELETE /peers/{id}``: the peer is told so, and closed."""
        request.arguments.only(("reason",))
        reason = request.arguments.text("reason")
        session = self._find(request)
        if reason is not None and not _REASON.fullmatch(reason):
            raise wrong("reason", f"it must be 1 to {MOST_REASON} characters, without control characters")
        session.dismiss(Ending.POLICY, SENT_AWAY + (b": " + reason.encode() if reason else b""), SENT_AWAY_CODE)
        request.answer(204, b"", b"")

    def _record(self, session: Session) -> PeerRecord:
        return peer_record(session, self._bridge.broker.clock())

    def _find(self, request: BridgeRequest) -> Session:
        see_admin(request)
        guest = self._bridge.roster.get(request.captured)
        if not isinstance(guest, Session):
            raise Refused(NO_SUCH_PEER, 404)
        return guest


def see_admin(request: BridgeRequest) -> None:
    """Raises ``Refused`` where it is not an administrator who asks."""
    if not request.is_admin:
        nobody = request.bridge.policy is not None and (request.identity is None or not request.identity.proof)
        raise Refused(FOR_ADMINS_WITH_TOKEN if nobody else FOR_ADMINS)
