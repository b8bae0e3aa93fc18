"""Checks the hosts and origins of requests, and logs those that an option would allow."""

import msgspec
from twisted.logger import Logger

from twistedsock.auth.origins import AllowedOrigins, ListenerScope, OriginDecision, host_name
from twistedsock.errors import Error, ErrorCode

MAX_LOGGED = 100
"""Different refused origins and hosts that are logged. More of them are not the mistake of a misconfigured page."""

UNKNOWN_HOST = Error(ErrorCode.FORBIDDEN, "unknown host name: allow it with --allow-host")

FOREIGN_ORIGIN = Error(ErrorCode.FORBIDDEN, "origin not allowed: allow it with --allow-origin")


class RejectedRequest(msgspec.Struct, frozen=True):
    """The error that is sent in response to a request or handshake that fails a check."""

    error: Error
    status: int
    headers: dict[bytes, bytes] = {}


class OriginPolicy:
    """Shared by all web listeners, so that each refused origin or host is logged once, with the option that would allow
    it. A reload replaces ``origins``."""

    _log = Logger()

    def __init__(self, origins: AllowedOrigins) -> None:
        self.origins = origins
        self._logged: set[str] = set()

    def check_host(self, host: str, scope: ListenerScope) -> RejectedRequest | None:
        """Check the ``Host`` of a request without an origin that matters. None: allowed."""
        return self._rejection(self.origins.check_host(host, scope), host, None)

    def check_anonymous_host(self, host: str, scope: ListenerScope) -> RejectedRequest | None:
        """Check the ``Host`` of a request for channels without credentials. A page whose name was made to point here
        (DNS rebinding) sends no other kind: it has no token."""
        return self._rejection(self.origins.check_anonymous_host(host, scope), host, None)

    def check_origin(
        self, host: str, origin: str | None, scope: ListenerScope, what: str = "WebSocket"
    ) -> RejectedRequest | None:
        """Check the ``Host`` and the ``Origin`` of a WebSocket handshake, or of ``what`` else a page sent."""
        return self._rejection(self.origins.check_origin(host, origin, scope), host, origin, what)

    def is_allowed(self, host: str, origin: str, scope: ListenerScope) -> bool:
        """True if a page of this origin can read responses. Logs nothing."""
        return self.origins.check_origin(host, origin, scope) is OriginDecision.ALLOWED

    def _rejection(
        self, decision: OriginDecision, host: str, origin: str | None, what: str = ""
    ) -> RejectedRequest | None:
        if decision is OriginDecision.ALLOWED:
            return None
        if decision is OriginDecision.FOREIGN_HOST:
            self._warn_once("refused a request for host {shown}; --allow-host would allow it", host_name(host))
            return RejectedRequest(UNKNOWN_HOST, 421)
        self._warn_once(f"refused a {what} of origin {{shown}}; --allow-origin would allow it", origin or "")
        return RejectedRequest(FOREIGN_ORIGIN, 403)

    def _warn_once(self, message: str, refused: str) -> None:
        if refused not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(refused)
            # As repr, so that the client cannot forge a line of the log.
            self._log.warn(message, shown=repr(refused[:100]))
