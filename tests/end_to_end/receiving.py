"""A receiver of webhooks on a real port, which checks signatures and records deliveries."""

import hashlib
import hmac
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Receiver:
    """``statuses`` contains the statuses of the next responses. The default is 204. Pass ``port`` to reuse a port."""

    def __init__(self, secret: str, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.deliveries: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.errors: list[str] = []
        receiver = self

        class Request(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
                if not hmac.compare_digest(f"sha256={digest}", self.headers["Sockbridge-Signature-256"]):
                    receiver.errors.append("wrong signature")
                delivery = json.loads(body)
                if delivery["delivery"] != self.headers["Sockbridge-Delivery"]:
                    receiver.errors.append("the ids in header and body differ")
                receiver.deliveries.append(delivery)
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                """Log nothing."""

        self._server = HTTPServer(("127.0.0.1", port), Request)
        if context is not None:
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events in order, without repeated deliveries."""
        seen = {delivery["delivery"]: delivery for delivery in self.deliveries}
        return [event for delivery in seen.values() for event in delivery["events"]]

    @property
    def summaries(self) -> list[Any]:
        """For each event: the data of publications, type and nick of joins and leaves, otherwise the type."""
        return [event["data"] if "data" in event else " ".join([event["type"], *_nick(event)]) for event in self.events]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _nick(event: dict[str, Any]) -> list[str]:
    return [event["member"]["nick"]] if "member" in event else []
