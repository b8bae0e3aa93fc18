"""The checks that every request passes as soon as its head is received, from the cheapest to the most expensive."""

from collections.abc import Sequence

from twistedsock.codecs.http import find_credentials, is_valid_host, origin_form
from twistedsock.codecs.problem_details import HTTP_STATUS, method_not_allowed, unknown_path
from twistedsock.errors import TOO_FAST, Error, ErrorCode
from twistedsock.limits.rate import ENTRY_PRICE, token_price
from twistedsock.server.http.origin_policy import RejectedRequest
from twistedsock.server.http.request import BAD_TOKEN_HEADERS, HTTPRequest
from twistedsock.server.proxy_protocol import twisted_address
from twistedsock.server.sockets import host_of, local_address_of, subject_of

REPEATED_HEADER = Error(ErrorCode.BAD_ARGUMENT, "repeated Host or Origin header: send each once")

INVALID_HOST = Error(ErrorCode.BAD_ARGUMENT, "missing or invalid Host header: send host:port of this server")

INVALID_TARGET = Error(ErrorCode.BAD_ARGUMENT, "invalid request target: send a path that begins with /")

FROM_ANOTHER_SITE = Error(
    ErrorCode.FORBIDDEN, "pages of other sites cannot embed or open this address: fetch it from an allowed origin"
)

INVALID_FORWARDED_FOR = Error(ErrorCode.BAD_ARGUMENT, "X-Forwarded-For does not end with the address of a client")

UNEXPECTED_BODY = Error(ErrorCode.BAD_ARGUMENT, "unexpected request body: only POST has one")

SHUTTING_DOWN = Error(ErrorCode.UNAVAILABLE, "server is shutting down: try again later")

PROXY_HEADERS = (b"forwarded", b"via", b"x-forwarded-for")
"""Headers that proxies add (RFC 7239, RFC 9110 section 7.6.3)."""


def check_request(request: HTTPRequest, length: int | None) -> RejectedRequest | None:
    """Set the route or file and the identity of a request. Returns the error to send instead of calling the handler,
    if any. ``length`` is that of the body, None if it is chunked."""
    connection, headers = request.connection, request.requestHeaders
    hosts, origins = headers.getRawHeaders(b"host", ()), headers.getRawHeaders(b"origin", ())
    if len(hosts) > 1 or len(origins) > 1:
        connection.persistent = False
        return RejectedRequest(REPEATED_HEADER, 400)
    if error := _check_target(request, hosts):
        connection.persistent = False
        return RejectedRequest(error, 400)
    if any(map(headers.hasHeader, PROXY_HEADERS)):
        # A proxy could send requests of other clients on the same connection, WebSocket handshakes among them.
        connection.persistent = False
        if not _read_forwarded_for(request):
            return RejectedRequest(INVALID_FORWARDED_FOR, 400)
    request.static_file = connection.site.files.get(request.path)
    request.match = connection.site.routes.find(request.path) if request.static_file is None else None
    # Each request of a kept-alive connection can name another host.
    host, origin = request.header(b"host").decode("latin-1"), b"".join(origins) if origins else None
    rejection = _check_origin(request, host, origin)
    # The origin comes first, so that a page of an allowed origin can read how long it has to wait. A request is
    # charged to the address, and to an identity once that is proved.
    if connection.exceeds_rate(connection.principal, ENTRY_PRICE):
        return RejectedRequest(TOO_FAST, 429)
    if length != 0 and not _takes_body(request):
        connection.persistent = False
    return rejection or _check_shutdown(request) or _check_path(request, length)


def _check_target(request: HTTPRequest, hosts: Sequence[bytes]) -> Error | None:
    """Check the target and the ``Host`` header, and set the header to the host of a target in absolute form."""
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


def _read_forwarded_for(request: HTTPRequest) -> bool:
    """Adopt the client address that a trusted proxy reports. False if it is invalid."""
    connection = request.connection
    if not connection.is_trusted_proxy:
        return True
    if values := request.requestHeaders.getRawHeaders(b"x-forwarded-for", ()):
        proxy = host_of(connection.client_address)
        source = request.listener.trusted.find_client(b",".join(values).decode("latin-1"), proxy)
        if source is None:
            return False
        connection.set_client_address(twisted_address(source))
    return True


def _check_origin(request: HTTPRequest, host: str, origin: bytes | None) -> RejectedRequest | None:
    policy, scope = request.connection.site.origin_policy, local_address_of(request.transport).scope
    is_public = request.static_file is not None or (request.match is not None and request.match.allows_every_origin)
    if is_public or origin is None:
        rejection = policy.check_host(host, scope)
        if rejection is not None:
            return rejection
        if request.static_file is None and origin is None and _is_from_another_site(request):
            return RejectedRequest(FROM_ANOTHER_SITE, 403)
        if origin is not None and policy.is_allowed(host, origin.decode("latin-1"), scope):
            request.origin = origin
        return None
    rejection = policy.check_origin(host, origin.decode("latin-1"), scope, "request")
    request.origin = origin if rejection is None else b""
    return rejection


def _is_from_another_site(request: HTTPRequest) -> bool:
    """True if a page of another site embeds or opens this address. Such a request has no Origin but it has the cookie
    of the user, and most browsers report the site (Fetch Metadata, section 2). It could join a channel under any nick,
    or measure when something happens there. Links from other sites can lead to files."""
    return request.header(b"sec-fetch-site") in (b"cross-site", b"same-site")


def _check_shutdown(request: HTTPRequest) -> RejectedRequest | None:
    if request.context.draining:
        request.connection.persistent = False
        route = request.match and request.match.methods.get(request.method)
        if not (route and route.available_during_shutdown):
            return RejectedRequest(SHUTTING_DOWN, 503)
    return None


def _takes_body(request: HTTPRequest) -> bool:
    route = request.match.methods.get(request.method) if request.match is not None else None
    return request.method == b"POST" or (route is not None and route.takes_body)


def _check_path(request: HTTPRequest, length: int | None) -> RejectedRequest | None:
    bad_body = RejectedRequest(UNEXPECTED_BODY, 400) if length != 0 and not _takes_body(request) else None
    if request.method == b"OPTIONS" and request.allow:
        return bad_body
    if request.static_file is not None:
        return bad_body if request.method in (b"GET", b"HEAD") else _reject_method(request)
    if request.match is None:
        return RejectedRequest(unknown_path(request.path), 404)
    route = request.route = request.match.methods.get(request.method)
    if route is None:
        return _reject_method(request)
    if bad_body is not None:
        return bad_body
    if route.authenticates:
        rejection = _authenticate(request)
        if rejection is None and request.identity is None:
            rejection = _check_anonymous_host(request)
        if rejection is not None:
            return rejection
    if length is not None and length > request.max_body:
        request.connection.persistent = False
        return RejectedRequest(request.body_too_long, 413)
    return None


def _reject_method(request: HTTPRequest) -> RejectedRequest:
    return RejectedRequest(method_not_allowed(request.path, request.allow), 405, {b"Allow": request.allow})


def _authenticate(request: HTTPRequest) -> RejectedRequest | None:
    context, listener, connection = request.context, request.listener, request.connection
    request.identified_by = context.policy
    if context.policy is None:
        return None
    authorization, cookies = _joined(request, b"authorization", b","), _joined(request, b"cookie", b";")
    credentials = find_credentials(authorization, request.query.decode("latin-1"), cookies, context.policy.cookie)
    subject = subject_of(request.transport) if listener.secure else None
    token = None if credentials is None else credentials.token
    price = 0.0 if token is None else token_price(len(token))
    if price and connection.exceeds_rate(connection.principal, price):
        return RejectedRequest(TOO_FAST, 429)
    outcome = context.authenticate(listener.endpoint, token, subject)
    if isinstance(outcome, Error):
        return RejectedRequest(outcome, HTTP_STATUS[outcome.code], BAD_TOKEN_HEADERS)
    request.identity = outcome
    return None if _charge_identity(request, ENTRY_PRICE + price) else RejectedRequest(TOO_FAST, 429)


def _joined(request: HTTPRequest, name: bytes, separator: bytes) -> str:
    return separator.join(request.requestHeaders.getRawHeaders(name, ())).decode("latin-1")


def _charge_identity(request: HTTPRequest, price: float) -> bool:
    """Charge a request to the identity that it has proved instead of its address. If that exceeds the rate of the
    identity, returns False and the address stays charged for the check of the token."""
    connection, principal = request.connection, request.principal
    if principal == connection.principal:
        return True
    if connection.exceeds_rate(principal, price):
        return False
    limiter = connection.rate_limiter_of(connection.principal)
    if limiter is not None:
        limiter.charge(-price)
    return True


def _check_anonymous_host(request: HTTPRequest) -> RejectedRequest | None:
    host, scope = request.header(b"host").decode("latin-1"), local_address_of(request.transport).scope
    return request.connection.site.origin_policy.check_anonymous_host(host, scope)
