"""What becomes of a request, as far as its head tells: the same questions for each, in the order of what they cost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
from twisted.logger import Logger

from twistedsock.auth.origins import AllowedOrigins, ListenerScope, OriginDecision, host_name
from twistedsock.codecs.http import RequestHead, find_credentials, is_valid_host, origin_form
from twistedsock.codecs.query import STATUS
from twistedsock.errors import TOO_FAST, Error, ErrorCode
from twistedsock.limits.rate import ENTRY_PRICE, token_price
from twistedsock.server.proxy_protocol import proxied_address
from twistedsock.server.sockets import host_of, local_address_of
from twistedsock.server.tls import subject_of

if TYPE_CHECKING:
    from twistedsock.server.http.request import HTTPRequest

NOTHING_HERE = Error(ErrorCode.UNKNOWN_COMMAND, "there is nothing here")

NOT_LIKE_THIS = Error(ErrorCode.UNKNOWN_COMMAND, "that cannot be done here; the header Allow tells what can")

ONE_HOST = Error(ErrorCode.BAD_ARGUMENT, "a request names one host, and one origin at most")

INVALID_HOST = Error(ErrorCode.BAD_ARGUMENT, "missing or invalid Host header: send host:port of this server")

INVALID_TARGET = Error(ErrorCode.BAD_ARGUMENT, "invalid request target: send a path that begins with /")

FROM_ANOTHER_SITE = Error(
    ErrorCode.FORBIDDEN, "pages of other sites cannot embed or open this address: fetch it from an allowed origin"
)

NO_CLIENT = Error(ErrorCode.BAD_ARGUMENT, "X-Forwarded-For does not end with the address of a client")

NO_BODY_HERE = Error(ErrorCode.BAD_ARGUMENT, "only a POST has a body")

EXPIRED = Error(ErrorCode.UNAUTHORIZED, "your token has run out")

GOING_AWAY = Error(ErrorCode.UNAVAILABLE, "the server is going away")

BAD_TOKEN = {b"WWW-Authenticate": b'Bearer error="invalid_token"'}

PROXIED = (b"forwarded", b"via", b"x-forwarded-for")
"""Headers that proxies add (RFC 7239, RFC 9110 section 7.6.3)."""


class RejectedRequest(msgspec.Struct, frozen=True):
    """A request that is not to be run."""

    error: Error
    status: int
    headers: dict[bytes, bytes] = {}


def check_request(request: "HTTPRequest", length: int | None) -> RejectedRequest | None:
    """Whether a request may be run; if so, it knows its route or file, and who asks. ``length`` is that of the body,
    None where it is told later."""
    connection, headers = request.connection, request.requestHeaders
    hosts, origins = headers.getRawHeaders(b"host", ()), headers.getRawHeaders(b"origin", ())
    if len(hosts) > 1 or len(origins) > 1:
        connection.persistent = False
        return RejectedRequest(ONE_HOST, 400)
    if error := _validate_target(request, hosts):
        connection.persistent = False
        return RejectedRequest(error, 400)
    if any(map(headers.hasHeader, PROXIED)):
        # A proxy would send the next request of any client of its own this way, a WebSocket's among them.
        connection.persistent = False
        if not _believe(request):
            return RejectedRequest(NO_CLIENT, 400)
    request.file = connection.site.files.get(request.path)
    # On a connection that is kept alive, each request can name another host.
    host, origin = request.header(b"host").decode("latin-1"), b"".join(origins) if origins else None
    rejection = _judge_origin(request, host, origin)
    # The origin comes first, so that a page that is allowed to ask can read how long it has to wait. A request is
    # charged to the address, and to an identity once that is proved.
    if connection.is_too_fast(connection.principal, ENTRY_PRICE):
        return RejectedRequest(TOO_FAST, 429)
    if length != 0 and request.method != b"POST":
        connection.persistent = False
    return rejection or _judge_server(request) or _judge_path(request, length)


def _validate_target(request: "HTTPRequest", hosts: Sequence[bytes]) -> Error | None:
    """Check the target and the ``Host`` header, and set the header to the host of a target in absolute form. Returns
    the error, if any."""
    host, version = hosts[0].decode("latin-1") if hosts else None, request.clientproto.decode("latin-1")
    if not is_valid_host(host, version):
        return INVALID_HOST
    if request.uri.startswith(b"/"):
        return None
    form = origin_form(request.method.decode("latin-1"), request.uri.decode("latin-1"))
    if form is None:
        return INVALID_TARGET
    target, authority = form
    if authority is not None:
        if not is_valid_host(authority, version):
            return INVALID_TARGET
        request.requestHeaders.setRawHeaders(b"host", [authority.encode("latin-1")])
    request.set_target(target.encode("latin-1"))
    return None


def _believe(request: "HTTPRequest") -> bool:
    """Take the address that a trusted proxy tells; False where that is none."""
    connection = request.connection
    told = request.requestHeaders.getRawHeaders(b"x-forwarded-for", ()) if connection.is_proxied else ()
    if told:
        proxy = host_of(connection.peer)
        source = request.listening.trusted.find_client(b",".join(told).decode("latin-1"), proxy)
        if source is None:
            return False
        connection.know(proxied_address(source))
    return True


def _judge_origin(request: "HTTPRequest", host: str, origin: bytes | None) -> RejectedRequest | None:
    gate, door = request.connection.site.gate, local_address_of(request.transport).door
    if request.file is not None or origin is None:
        refused = gate.judge_host(host, door)
        if refused is None and request.file is None and _is_from_another_site(request):
            return RejectedRequest(FROM_ANOTHER_SITE, 403)
        if refused is None and origin is not None and gate.allows(host, origin.decode("latin-1"), door):
            request.origin = origin
    else:
        refused = gate.judge(host, origin.decode("latin-1"), door, "request")
        request.origin = origin if refused is None else b""
    return None if refused is None else RejectedRequest(Error(ErrorCode.FORBIDDEN, refused[1]), refused[0])


def _judge_nobody(request: "HTTPRequest") -> RejectedRequest | None:
    """Who shows a token is none whom a page has sent here under a name of its own: that page knows none."""
    host, door = request.header(b"host").decode("latin-1"), local_address_of(request.transport).door
    refused = request.connection.site.gate.judge_nobody(host, door)
    return None if refused is None else RejectedRequest(Error(ErrorCode.FORBIDDEN, refused[1]), refused[0])


def _is_from_another_site(request: "HTTPRequest") -> bool:
    """Whether a page of another site embeds this address, or leads the browser to it. Such a request has no Origin but
    it has the cookie of the user, and most browsers tell where it comes from (Fetch Metadata, section 2). It could join
    a channel, under any nick, or measure when something happens there. Links from other sites can lead to files."""
    return request.header(b"sec-fetch-site") in (b"cross-site", b"same-site")


def _judge_server(request: "HTTPRequest") -> RejectedRequest | None:
    request.found = request.connection.site.routes.find(request.path) if request.file is None else None
    if request.context.draining:
        request.connection.persistent = False
        route = request.found and request.found.methods.get(request.method)
        if not (route and route.drains):
            return RejectedRequest(GOING_AWAY, 503)
    return None


def _judge_path(request: "HTTPRequest", length: int | None) -> RejectedRequest | None:
    bad_body = RejectedRequest(NO_BODY_HERE, 400) if length != 0 and request.method != b"POST" else None
    if request.method == b"OPTIONS" and request.allow:
        return bad_body
    if request.file is not None:
        allowed = request.method in (b"GET", b"HEAD")
        return bad_body if allowed else RejectedRequest(NOT_LIKE_THIS, 405, {b"Allow": request.allow})
    found = request.found
    if found is None:
        return RejectedRequest(NOTHING_HERE, 404)
    route = request.route = found.methods.get(request.method)
    if route is None:
        return RejectedRequest(NOT_LIKE_THIS, 405, {b"Allow": request.allow})
    if bad_body is not None:
        return bad_body
    if route.asks_who:
        rejection = _find_identity(request)
        if rejection is not None:
            return rejection
        if request.identity is None and (rejection := _judge_nobody(request)):
            return rejection
    if length is not None and length > request.most_body:
        request.connection.persistent = False
        return RejectedRequest(request.too_long, 413)
    return None


def _recharge(request: "HTTPRequest", price: float) -> bool:
    """Charge a request to the identity that it has proved instead of its address; False if that exceeds the rate of
    the identity. Then the address is charged for the proof."""
    connection, principal = request.connection, request.principal
    if principal == connection.principal:
        return True
    if connection.is_too_fast(principal, price):
        return False
    meter = connection.meter_of(connection.principal)
    if meter is not None:
        meter.charge(-price)
    return True


def recheck_auth(request: "HTTPRequest") -> Error | None:
    """Why who asks is not taken for that any longer: since then its token may have run out, or the policy be another.
    A body can take as long as a client likes, and an answer as well."""
    context, identity = request.context, request.identity
    if identity is None or context.policy is None:
        return None
    if context.policy is not request.judged_by:
        outcome = context.policy.review(identity, request.listening.endpoint)
        if isinstance(outcome, Error):
            return outcome
        request.identity, request.judged_by = outcome, context.policy
        identity = outcome
    has_ended = identity.expires is not None and identity.expires <= context.expiries.wall_clock()
    return EXPIRED if has_ended else None


def _find_identity(request: "HTTPRequest") -> RejectedRequest | None:
    context, listening, connection = request.context, request.listening, request.connection
    request.judged_by = context.policy
    if context.policy is None:
        return None
    head = RequestHead(
        method="",
        path="",
        host="",
        origin=None,
        upgrade=False,
        subprotocols=(),
        query=request.query.decode("latin-1"),
        authorization=_joined(request, b"authorization", b","),
        cookies=_joined(request, b"cookie", b";"),
    )
    shown = find_credentials(head, context.policy.cookie)
    subject = subject_of(request.transport) if listening.secure else None
    token = None if shown is None else shown.token
    price = 0.0 if token is None else token_price(len(token))
    if price and connection.is_too_fast(connection.principal, price):
        return RejectedRequest(TOO_FAST, 429)
    outcome = context.recognize(listening.endpoint, token, subject)
    if isinstance(outcome, Error):
        return RejectedRequest(outcome, STATUS[outcome.code], BAD_TOKEN)
    request.identity = outcome
    return None if _recharge(request, ENTRY_PRICE + price) else RejectedRequest(TOO_FAST, 429)


def _joined(request: "HTTPRequest", name: bytes, separator: bytes) -> str:
    return separator.join(request.requestHeaders.getRawHeaders(name, ())).decode("latin-1")


MAX_TOLD = 100
"""Different refused origins and hosts that are logged; whoever tries more of them is no misconfigured page."""


class OriginPolicy:
    """Judges hosts and origins, and logs each that it refuses once, with the option that would allow it. Its
    ``origins`` can be changed."""

    _log = Logger()

    def __init__(self, origins: AllowedOrigins) -> None:
        self.origins = origins
        self._told: set[str] = set()

    def judge_host(self, host: str, door: ListenerScope) -> tuple[int, str] | None:
        """The status and words of a refusal, None for welcome."""
        return self._say(self.origins.judge_host(host, door), host, None)

    def judge_nobody(self, host: str, door: ListenerScope) -> tuple[int, str] | None:
        """As ``judge_host``, for somebody who shows nothing and asks for what is on the channels."""
        return self._say(self.origins.judge_nobody(host, door), host, None)

    def allows(self, host: str, origin: str, door: ListenerScope) -> bool:
        """Whether a page of this origin can read what it asks for. Logs nothing."""
        return self.origins.judge(host, origin, door) is OriginDecision.WELCOME

    def judge(
        self, host: str, origin: str | None, door: ListenerScope, what: str = "WebSocket"
    ) -> tuple[int, str] | None:
        """As ``judge_host``, for a WebSocket, or what else a page may ask for."""
        return self._say(self.origins.judge(host, origin, door), host, origin, what)

    def _say(self, verdict: OriginDecision, host: str, origin: str | None, what: str = "") -> tuple[int, str] | None:
        if verdict is OriginDecision.WELCOME:
            return None
        if verdict is OriginDecision.FOREIGN_HOST:
            self._tell("refused a request for host {shown}; --allow-host would allow it", host_name(host))
            return verdict.value, "this server is not known by that name; --allow-host would allow it"
        self._tell(f"refused a {what} of origin {{shown}}; --allow-origin would allow it", origin or "")
        return verdict.value, "pages of that origin may not connect; --allow-origin would allow it"

    def _tell(self, words: str, refused: str) -> None:
        if refused not in self._told and len(self._told) < MAX_TOLD:
            self._told.add(refused)
            # As repr, so that nothing a stranger sends can look like a line of ours.
            self._log.warn(words, shown=repr(refused[:100]))


# TODO-MERGED-DOC: Which hosts and origins may ask for something, and who is told of those that may not.
