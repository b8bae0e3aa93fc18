"""``GET /metrics``, for Prometheus: the figures are for administrators, as they tell how busy everybody is."""

import gzip

from twistedsock.shells.http.files import accepts_gzip
from twistedsock.shells.http.headers import DATA
from twistedsock.shells.http.peers import see_admin
from twistedsock.shells.http.requests import BridgeRequest
from twistedsock.shells.metrics import Metrics

LEVEL = 1
"""Of compression: it is asked for every few seconds, and a fifth of its size is left in any case."""


class Scrape:
    """Where nobody is asked who they are, whoever is on this machine may look."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def metrics(self, request: BridgeRequest) -> None:
        """All figures, in the format that is asked for."""
        see_admin(request)
        kind, body = self._metrics.render(request.header(b"accept").decode("latin-1"))
        headers = {**DATA, b"Vary": b"Accept, Accept-Encoding"}
        if accepts_gzip(request.header(b"accept-encoding")):
            headers[b"Content-Encoding"] = b"gzip"
            body = gzip.compress(body, LEVEL, mtime=0)
        request.answer(200, kind.encode("latin-1"), body, headers)
