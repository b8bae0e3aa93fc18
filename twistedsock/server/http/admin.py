"""Who is connected, and sending somebody away: for administrators."""

import gzip
import re

import msgspec

from twistedsock.codecs.query import ApiError, bad_parameter
from twistedsock.errors import FOR_ADMINS, FOR_ADMINS_WITH_TOKEN, CloseReason, Error, ErrorCode
from twistedsock.metrics.prometheus import Metrics
from twistedsock.server.http.request import DATA, PAGING, HTTPRequest, read_pagination
from twistedsock.server.http.static import accepts_gzip
from twistedsock.session.registry import ServerContext
from twistedsock.session.session import Session
from twistedsock.session.timeline import ConnectionInfo, connection_info

NO_SUCH_PEER = Error(ErrorCode.BAD_ARGUMENT, "no peer has that id")

SENT_AWAY = b"disconnected by an administrator"

SENT_AWAY_CODE = b"disconnected"
"""Of the notice: who fetches tokens would come back with another one, as after any other end by the policy."""

MAX_REASON = 80
"""Characters of a reason: with the words before it, it fits into the close frame of a WebSocket."""

_REASON = re.compile(rf"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{{1,{MAX_REASON}}}")


class PeersPage(msgspec.Struct):
    """A page of peers, by id."""

    peers: list[ConnectionInfo]
    total: int
    next: str | None


class ConnectionsEndpoint:
    def __init__(self, context: ServerContext) -> None:
        self._context = context

    def all(self, request: HTTPRequest) -> None:
        """``GET /peers``."""
        check_admin(request)
        request.arguments.only(PAGING)
        paging = read_pagination(request.arguments)
        sessions = [guest for guest in self._context.roster if isinstance(guest, Session)]
        found, following = paging.page(sessions, lambda session: session.peer.id)
        told = None if following is None else following.decode()
        page = PeersPage([self._record(session) for session in found], len(sessions), told)
        request.answer_json(200, msgspec.json.encode(page) + b"\n")

    def one(self, request: HTTPRequest) -> None:
        """``GET /peers/{id}``."""
        request.arguments.only(())
        request.answer_json(200, msgspec.json.encode(self._record(self._find(request))) + b"\n")

    def disconnect(self, request: HTTPRequest) -> None:
        """``DELETE /peers/{id}``: the peer is told so, and closed."""
        request.arguments.only(("reason",))
        reason = request.arguments.text("reason")
        session = self._find(request)
        if reason is not None and not _REASON.fullmatch(reason):
            raise bad_parameter("reason", f"it must be 1 to {MAX_REASON} characters, without control characters")
        session.dismiss(CloseReason.POLICY, SENT_AWAY + (b": " + reason.encode() if reason else b""), SENT_AWAY_CODE)
        request.answer(204, b"", b"")

    def _record(self, session: Session) -> ConnectionInfo:
        return connection_info(session, self._context.broker.clock())

    def _find(self, request: HTTPRequest) -> Session:
        check_admin(request)
        guest = self._context.roster.get(request.captured)
        if not isinstance(guest, Session):
            raise ApiError(NO_SUCH_PEER, 404)
        return guest


def check_admin(request: HTTPRequest) -> None:
    """Raises ``ApiError`` where it is not an administrator who asks."""
    if not request.is_admin:
        nobody = request.context.policy is not None and (request.identity is None or not request.identity.proof)
        raise ApiError(FOR_ADMINS_WITH_TOKEN if nobody else FOR_ADMINS)


LEVEL = 1
"""Of compression: it is asked for every few seconds, and a fifth of its size is left in any case."""


class MetricsEndpoint:
    """Where nobody is asked who they are, whoever is on this machine may look."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def metrics(self, request: HTTPRequest) -> None:
        """All figures, in the format that is asked for."""
        check_admin(request)
        kind, body = self._metrics.render(request.header(b"accept").decode("latin-1"))
        headers = {**DATA, b"Vary": b"Accept, Accept-Encoding"}
        if accepts_gzip(request.header(b"accept-encoding")):
            headers[b"Content-Encoding"] = b"gzip"
            body = gzip.compress(body, LEVEL, mtime=0)
        request.answer(200, kind.encode("latin-1"), body, headers)


# TODO-MERGED-DOC: ``GET /metrics``, for Prometheus: the figures are for administrators, as they tell how busy
# everybody is.
