"""The close codes of WebSocket (RFC 6455 section 7.4.1 and the IANA registry). Fallback streams send them too."""

from twistedsock.errors import CloseReason

CLOSE_CODES = {
    CloseReason.NORMAL: 1000,
    CloseReason.GOING_AWAY: 1001,
    CloseReason.POLICY: 1008,
    CloseReason.TRY_AGAIN: 1013,
}
