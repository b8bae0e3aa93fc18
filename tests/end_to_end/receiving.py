"""A receiver of webhooks on a real port: checks each signature, notes each delivery, answers as it is told to."""

import hashlib
import hmac
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class Receiver:
    """``statuses`` are those of the next answers; 204 when there are none left. ``port`` may be one that was used
    before."""

    def __init__(self, secret: str, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        self.deliveries: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.faults: list[str] = []
        receiver = self

        class Request(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
                if not hmac.compare_digest(f"sha256={digest}", self.headers["Sockbridge-Signature-256"]):
                    receiver.faults.append("a signature is wrong")
                delivery = json.loads(body)
                if delivery["delivery"] != self.headers["Sockbridge-Delivery"]:
                    receiver.faults.append("the two ids differ")
                receiver.deliveries.append(delivery)
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                """Nobody reads it."""

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
        """All that was told, in order, what came with an id that was there before left out."""
        seen = {delivery["delivery"]: delivery for delivery in self.deliveries}
        return [event for delivery in seen.values() for event in delivery["events"]]

    @property
    def told(self) -> list[Any]:
        """The data of what was published; type and nick of who came and went; the type of what else there is."""
        return [event["data"] if "data" in event else " ".join([event["type"], *_nick(event)]) for event in self.events]

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _nick(event: dict[str, Any]) -> list[str]:
    return [event["member"]["nick"]] if "member" in event else []
