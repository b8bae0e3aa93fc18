"""What becomes of a request, as far as its head tells: the same questions for each, in the order of what they cost."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from twistedsock.core.errors import TOO_FAST, Code, Refusal
from twistedsock.core.rate import ENTRY_PRICE, token_price
from twistedsock.shells.certificates import subject_of
from twistedsock.shells.proxied import address_of
from twistedsock.shells.sockets import here_of, host_of
from twistedsock.wire.credentials import find_credentials
from twistedsock.wire.http_head import RequestHead, is_valid_host, origin_form
from twistedsock.wire.problems import STATUS

if TYPE_CHECKING:
    from twistedsock.shells.http.requests import BridgeRequest

NOTHING_HERE = Refusal(Code.UNKNOWN_COMMAND, "there is nothing here")
NOT_LIKE_THIS = Refusal(Code.UNKNOWN_COMMAND, "that cannot be done here; the header Allow tells what can")
ONE_HOST = Refusal(Code.BAD_ARGUMENT, "a request names one host, and one origin at most")
INVALID_HOST = Refusal(Code.BAD_ARGUMENT, "missing or invalid Host header: send host:port of this server")
INVALID_TARGET = Refusal(Code.BAD_ARGUMENT, "invalid request target: send a path that begins with /")
FROM_ANOTHER_SITE = Refusal(
    Code.FORBIDDEN, "pages of other sites cannot embed or open this address: fetch it from an allowed origin"
)
NO_CLIENT = Refusal(Code.BAD_ARGUMENT, "X-Forwarded-For does not end with the address of a client")
NO_BODY_HERE = Refusal(Code.BAD_ARGUMENT, "only a POST has a body")
EXPIRED = Refusal(Code.UNAUTHORIZED, "your token has run out")
GOING_AWAY = Refusal(Code.UNAVAILABLE, "the server is going away")

BAD_TOKEN = {b"WWW-Authenticate": b'Bearer error="invalid_token"'}

PROXIED = (b"forwarded", b"via", b"x-forwarded-for")
"""Headers that proxies add (RFC 7239, RFC 9110 section 7.6.3)."""


class Rejection(msgspec.Struct, frozen=True):
    """A request that is not to be run."""

    refusal: Refusal
    status: int
    headers: dict[bytes, bytes] = {}


def judge(request: "BridgeRequest", length: int | None) -> Rejection | None:
    """Whether a request may be run; if so, it knows its route or file, and who asks. ``length`` is that of the body,
    None where it is told later."""
    connection, headers = request.connection, request.requestHeaders
    hosts, origins = headers.getRawHeaders(b"host", ()), headers.getRawHeaders(b"origin", ())
    if len(hosts) > 1 or len(origins) > 1:
        connection.persistent = False
        return Rejection(ONE_HOST, 400)
    if refusal := _validate_target(request, hosts):
        connection.persistent = False
        return Rejection(refusal, 400)
    if any(map(headers.hasHeader, PROXIED)):
        # A proxy would send the next request of any client of its own this way, a WebSocket's among them.
        connection.persistent = False
        if not _believe(request):
            return Rejection(NO_CLIENT, 400)
    request.file = connection.site.files.get(request.path)
    # On a connection that is kept alive, each request can name another host.
    host, origin = request.header(b"host").decode("latin-1"), b"".join(origins) if origins else None
    rejection = _judge_origin(request, host, origin)
    # The origin comes first, so that a page that is allowed to ask can read how long it has to wait. A request is
    # charged to the address, and to an identity once that is proved.
    if connection.is_too_fast(connection.principal, ENTRY_PRICE):
        return Rejection(TOO_FAST, 429)
    if length != 0 and request.method != b"POST":
        connection.persistent = False
    return rejection or _judge_server(request) or _judge_path(request, length)


def _validate_target(request: "BridgeRequest", hosts: Sequence[bytes]) -> Refusal | None:
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


def _believe(request: "BridgeRequest") -> bool:
    """Take the address that a trusted proxy tells; False where that is none."""
    connection = request.connection
    told = request.requestHeaders.getRawHeaders(b"x-forwarded-for", ()) if connection.is_proxied else ()
    if told:
        proxy = host_of(connection.peer)
        source = request.listening.trusted.find_client(b",".join(told).decode("latin-1"), proxy)
        if source is None:
            return False
        connection.know(address_of(source))
    return True


def _judge_origin(request: "BridgeRequest", host: str, origin: bytes | None) -> Rejection | None:
    gate, door = request.connection.site.gate, here_of(request.transport).door
    if request.file is not None or origin is None:
        refused = gate.judge_host(host, door)
        if refused is None and request.file is None and _is_from_another_site(request):
            return Rejection(FROM_ANOTHER_SITE, 403)
        if refused is None and origin is not None and gate.allows(host, origin.decode("latin-1"), door):
            request.origin = origin
    else:
        refused = gate.judge(host, origin.decode("latin-1"), door, "request")
        request.origin = origin if refused is None else b""
    return None if refused is None else Rejection(Refusal(Code.FORBIDDEN, refused[1]), refused[0])


def _judge_nobody(request: "BridgeRequest") -> Rejection | None:
    """Who shows a token is none whom a page has sent here under a name of its own: that page knows none."""
    host, door = request.header(b"host").decode("latin-1"), here_of(request.transport).door
    refused = request.connection.site.gate.judge_nobody(host, door)
    return None if refused is None else Rejection(Refusal(Code.FORBIDDEN, refused[1]), refused[0])


def _is_from_another_site(request: "BridgeRequest") -> bool:
    """Whether a page of another site embeds this address, or leads the browser to it. Such a request has no Origin but
    it has the cookie of the user, and most browsers tell where it comes from (Fetch Metadata, section 2). It could join
    a channel, under any nick, or measure when something happens there. Links from other sites can lead to files."""
    return request.header(b"sec-fetch-site") in (b"cross-site", b"same-site")


def _judge_server(request: "BridgeRequest") -> Rejection | None:
    request.found = request.connection.site.routes.find(request.path) if request.file is None else None
    if request.bridge.draining:
        request.connection.persistent = False
        route = request.found and request.found.methods.get(request.method)
        if not (route and route.drains):
            return Rejection(GOING_AWAY, 503)
    return None


def _judge_path(request: "BridgeRequest", length: int | None) -> Rejection | None:
    bad_body = Rejection(NO_BODY_HERE, 400) if length != 0 and request.method != b"POST" else None
    if request.method == b"OPTIONS" and request.allow:
        return bad_body
    if request.file is not None:
        allowed = request.method in (b"GET", b"HEAD")
        return bad_body if allowed else Rejection(NOT_LIKE_THIS, 405, {b"Allow": request.allow})
    found = request.found
    if found is None:
        return Rejection(NOTHING_HERE, 404)
    route = request.route = found.methods.get(request.method)
    if route is None:
        return Rejection(NOT_LIKE_THIS, 405, {b"Allow": request.allow})
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
        return Rejection(request.too_long, 413)
    return None


def _recharge(request: "BridgeRequest", price: float) -> bool:
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


def judge_again(request: "BridgeRequest") -> Refusal | None:
    """Why who asks is not taken for that any longer: since then its token may have run out, or the policy be another.
    A body can take as long as a client likes, and an answer as well."""
    bridge, identity = request.bridge, request.identity
    if identity is None or bridge.policy is None:
        return None
    if bridge.policy is not request.judged_by:
        outcome = bridge.policy.review(identity, request.listening.endpoint)
        if isinstance(outcome, Refusal):
            return outcome
        request.identity, request.judged_by = outcome, bridge.policy
        identity = outcome
    has_ended = identity.expires is not None and identity.expires <= bridge.expiries.wall_clock()
    return EXPIRED if has_ended else None


def _find_identity(request: "BridgeRequest") -> Rejection | None:
    bridge, listening, connection = request.bridge, request.listening, request.connection
    request.judged_by = bridge.policy
    if bridge.policy is None:
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
    shown = find_credentials(head, bridge.policy.cookie)
    subject = subject_of(request.transport) if listening.secure else None
    token = None if shown is None else shown.token
    price = 0.0 if token is None else token_price(len(token))
    if price and connection.is_too_fast(connection.principal, price):
        return Rejection(TOO_FAST, 429)
    outcome = bridge.recognize(listening.endpoint, token, subject)
    if isinstance(outcome, Refusal):
        return Rejection(outcome, STATUS[outcome.code], BAD_TOKEN)
    request.identity = outcome
    return None if _recharge(request, ENTRY_PRICE + price) else Rejection(TOO_FAST, 429)


def _joined(request: "BridgeRequest", name: bytes, separator: bytes) -> str:
    return separator.join(request.requestHeaders.getRawHeaders(name, ())).decode("latin-1")
