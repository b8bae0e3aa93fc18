"""Endpoints for administrators: connected clients, disconnecting one of them, the connection log, and Prometheus
metrics."""

import gzip
import re
from functools import partial

import msgspec

from twistedsock.codecs.problem_details import ApiError
from twistedsock.codecs.query import (
    DEFAULT_PAGE_SIZE,
    MAX_PAGE_SIZE,
    PAGINATION_PARAMETERS,
    Pagination,
    bad_parameter,
    read_pagination,
)
from twistedsock.errors import FOR_ADMINS, FOR_ADMINS_WITH_TOKEN, UNAVAILABLE, CloseReason, Error, ErrorCode
from twistedsock.metrics.connection_journal import KINDS, ConnectionJournal, JournalEntry
from twistedsock.metrics.processes import LOG, METRICS, PEERS, OtherProcesses, Reports, gather, read_reports
from twistedsock.metrics.prometheus import Metrics
from twistedsock.pubsub.values import DisconnectClient
from twistedsock.server.http.headers import DATA_HEADERS, accepts_gzip
from twistedsock.server.http.request import HTTPRequest
from twistedsock.session.commands import MAX_OFFSET
from twistedsock.session.connection_info import ConnectionInfo, connection_info
from twistedsock.session.context import ServerContext
from twistedsock.session.session import Session

UNKNOWN_CONNECTION = Error(ErrorCode.BAD_ARGUMENT, "no client has this id")

DISCONNECTED = b"disconnected by an administrator"

DISCONNECTED_CODE = b"disconnected"
"""Code of the notice. Without it, a client that fetches tokens would reconnect with a new one, as after any other
close by the policy."""

MAX_REASON_LENGTH = 80
"""Characters of a reason. With the text before it, it fits into the close frame of a WebSocket."""

_REASON = re.compile(rf"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{{1,{MAX_REASON_LENGTH}}}")

GZIP_LEVEL = 1
"""Metrics are requested every few seconds, and the lowest level leaves a fifth of their size."""


class ConnectionsPage(msgspec.Struct, omit_defaults=True):
    """A page of connected clients, sorted by id."""

    peers: list[ConnectionInfo]
    total: int
    next: str | None
    missing: list[str] = []
    """The processes that have not answered: their clients are missing."""


class PeersReport(msgspec.Struct):
    """What a process reports of its clients: the first ones after an id, and how many it has."""

    peers: list[ConnectionInfo]
    total: int


_read_report = msgspec.json.Decoder(PeersReport).decode


class ConnectionsEndpoint:
    """``others`` are the other processes of this server."""

    def __init__(self, context: ServerContext, others: OtherProcesses | None = None) -> None:
        self._context = context
        self._others = others

    def list_all(self, request: HTTPRequest) -> None:
        """``GET /peers``"""
        check_admin(request)
        request.parameters.allow_only(PAGINATION_PARAMETERS)
        pagination = read_pagination(request.parameters)

        def respond(others: Reports) -> None:
            elsewhere, missing = read_reports(self._others, others, _read_report)
            reports = [self._first(pagination), *elsewhere]
            infos, after = pagination.page(
                [info for report in reports for info in report.peers], lambda info: info.id.encode()
            )
            total = sum([report.total for report in reports])
            page = ConnectionsPage(infos, total, None if after is None else after.decode(), missing)
            request.respond_json(200, msgspec.json.encode(page) + b"\n")

        topic = b"%s %d %s" % (PEERS, pagination.limit, pagination.after)
        if self._others is None:
            respond({})
        else:
            gather(self._others, topic, respond)

    def report(self, asked: bytes) -> bytes:
        """What another process asks for: the clients after an id, as many as a page has; or the client with an id."""
        limit, _, id = asked.partition(b" ")
        if limit != b"0":
            return msgspec.json.encode(self._first(Pagination(id, int(limit))))
        session = self._context.sessions.get(id)
        return self._encode(session) if isinstance(session, Session) else b""

    def _first(self, pagination: Pagination) -> PeersReport:
        """One more than the page has, if there are more."""
        sessions = [session for session in self._context.sessions if isinstance(session, Session)]
        longer = Pagination(pagination.after, pagination.limit + 1)
        found, _ = longer.page(sessions, lambda session: session.client.id)
        return PeersReport([self._info(session) for session in found], len(sessions))

    def show(self, request: HTTPRequest) -> None:
        """``GET /peers/{id}``"""
        request.parameters.allow_only(())
        check_admin(request)
        if self._others is None or not self._context.sessions.is_remote_id(request.captured):
            request.respond_json(200, self._encode(self._find(request)))
            return

        def respond(reports: Reports) -> None:
            for report in filter(None, reports.values()):
                request.respond_json(200, report)
                return
            _, missing = read_reports(self._others, reports, bytes)
            if request.captured.partition(b"-")[0].decode() in missing:
                request.respond_error(UNAVAILABLE, 503)
            else:
                request.respond_error(UNKNOWN_CONNECTION, 404)

        gather(self._others, b"%s 0 %s" % (PEERS, request.captured), respond)

    def disconnect(self, request: HTTPRequest) -> None:
        """``DELETE /peers/{id}``: the client receives the reason, then its connection is closed."""
        request.parameters.allow_only(("reason",))
        reason = request.parameters.text("reason")
        check_admin(request)
        id, sessions = request.captured, self._context.sessions
        session = None if sessions.is_remote_id(id) else self._find(request)
        if reason is not None and not _REASON.fullmatch(reason):
            raise bad_parameter("reason", f"it must be 1 to {MAX_REASON_LENGTH} characters, without control characters")
        message = DISCONNECTED + (b": " + reason.encode() if reason else b"")
        if session is None:  # a client of another node, which is told; whether it is there is not known
            self._context.broker.backplane.send(DisconnectClient(id, message, DISCONNECTED_CODE))
            request.respond(202, b"", b"")
        else:
            session.close(CloseReason.POLICY, message, DISCONNECTED_CODE)
            request.respond(204, b"", b"")

    def _encode(self, session: Session) -> bytes:
        return msgspec.json.encode(self._info(session)) + b"\n"

    def _info(self, session: Session) -> ConnectionInfo:
        return connection_info(session, self._context.broker.clock())

    def _find(self, request: HTTPRequest) -> Session:
        check_admin(request)
        session = self._context.sessions.get(request.captured)
        if not isinstance(session, Session):
            raise ApiError(UNKNOWN_CONNECTION, 404)
        return session


class JournalPage(msgspec.Struct, omit_defaults=True):
    """Entries of the connection log, the newest first. ``newest`` is the number of the newest event: to receive only
    later ones, send it as ``after``."""

    log: list[JournalEntry]
    total: int
    newest: int
    missing: list[str] = []
    """The processes that have not answered: their entries are missing."""


_read_journal = msgspec.json.Decoder(JournalPage).decode


class JournalEndpoint:
    """``others`` are the other processes of this server."""

    def __init__(self, journal: ConnectionJournal, others: OtherProcesses | None = None) -> None:
        self._journal = journal
        self._others = others

    def list_entries(self, request: HTTPRequest) -> None:
        """``GET /log``"""
        check_admin(request)
        parameters = request.parameters
        parameters.allow_only(("kind", "after", "limit"))
        kind = parameters.choice("kind", KINDS) or ""
        after = parameters.integer("after", MAX_OFFSET) or 0
        limit = parameters.integer("limit", MAX_PAGE_SIZE, least=1) or DEFAULT_PAGE_SIZE
        newest = self._journal.newest_complete
        if after > newest:  # the server has been restarted
            after = 0

        def respond(reports: Reports) -> None:
            elsewhere, missing = read_reports(self._others, reports, _read_journal)
            pages = [self._first(kind, after, newest, limit), *elsewhere]
            found = sorted([entry for page in pages for entry in page.log], key=lambda entry: -entry.number)
            page = JournalPage(found[:limit], sum([page.total for page in pages]), newest, missing)
            request.respond_json(200, msgspec.json.encode(page) + b"\n")

        if self._others is None:
            respond({})
        else:
            gather(self._others, b"%s %d %d %d %s" % (LOG, after, newest, limit, kind.encode()), respond)

    def report(self, asked: bytes) -> bytes:
        """The entries that another process asks for."""
        after, newest, limit, kind = asked.split(b" ")
        return msgspec.json.encode(self._first(kind.decode(), int(after), int(newest), int(limit)))

    def _first(self, kind: str, after: int, newest: int, limit: int) -> JournalPage:
        entries = self._journal.entries((kind,) if kind else KINDS)
        found = [entry for entry in entries if after < entry.number <= newest]
        return JournalPage(found[:limit], len(found), newest)


class MetricsEndpoint:
    """Without a policy, local clients are administrators. ``others`` are the other processes of this server."""

    def __init__(self, metrics: Metrics, others: OtherProcesses | None = None) -> None:
        self._metrics = metrics
        self._others = others

    def report(self, asked: bytes) -> bytes:
        """The metrics of this process, for another one."""
        return self._metrics.report()

    def render(self, request: HTTPRequest) -> None:
        """``GET /metrics``, in the format that the request accepts. For administrators, because metrics show how busy
        all clients are."""
        check_admin(request)
        if self._others is None:
            self._respond(request, None)
        else:  # without the others, the metrics of this process are better than nothing
            gather(self._others, METRICS, partial(self._respond, request))

    def _respond(self, request: HTTPRequest, reports: Reports | None) -> None:
        name = "" if self._others is None else self._others.node_name.decode()
        content_type, body = self._metrics.render(request.header(b"accept").decode("latin-1"), reports, name)
        headers = {**DATA_HEADERS, b"Vary": b"Accept, Accept-Encoding"}
        if accepts_gzip(request.header(b"accept-encoding")):
            headers[b"Content-Encoding"] = b"gzip"
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
        request.respond(200, content_type.encode("latin-1"), body, headers)


def check_admin(request: HTTPRequest) -> None:
    """Raises ``ApiError`` if the client is not an administrator."""
    if not request.is_admin:
        identity = request.identity
        is_anonymous = request.context.policy is not None and (identity is None or not identity.proof)
        raise ApiError(FOR_ADMINS_WITH_TOKEN if is_anonymous else FOR_ADMINS)
