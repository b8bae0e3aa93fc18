"""``GET /metrics``, for Prometheus: the figures are for administrators, as they tell how busy everybody is."""

import gzip

from twistedsock.core.errors import FOR_ADMINS, FOR_ADMINS_WITH_TOKEN
from twistedsock.shells.http.files import accepts_gzip
from twistedsock.shells.http.headers import DATA
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.shells.metrics import Metrics
from twistedsock.wire.problems import Refused

LEVEL = 1
"""Of compression: it is asked for every few seconds, and a fifth of its size is left in any case."""


class Scrape:
    """Where nobody is asked who they are, whoever is on this machine may look."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def metrics(self, request: BridgeRequest) -> None:
        """All figures, in the format that is asked for."""
        if not request.is_admin:
            nobody = request.bridge.policy is not None and (request.identity is None or not request.identity.proof)
            raise Refused(FOR_ADMINS_WITH_TOKEN if nobody else FOR_ADMINS)
        kind, body = self._metrics.render(request.header(b"accept").decode("latin-1"))
        headers = {**DATA, b"Vary": b"Accept, Accept-Encoding"}
        if accepts_gzip(request.header(b"accept-encoding")):
            headers[b"Content-Encoding"] = b"gzip"
            body = gzip.compress(body, LEVEL, mtime=0)
        request.answer(200, kind.encode("latin-1"), body, headers)
