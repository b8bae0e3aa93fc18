"""An echo server, as the Autobahn WebSocket TestSuite needs it.

It is the server of ``twistd sockbridge``: its options, listeners, web port and sessions. The differences:

- Instead of JSON it has a dialect in which each message is a PING with that text, and there is no welcome.
- Binary messages are echoed. The server itself closes with 1003.
- It counts the handshakes and messages of each code path.

    python -m tests.conformance.echo [options of twistd sockbridge]
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from twisted.logger import globalLogBeginner, textFileLogObserver

from twistedsock import tap
from twistedsock.codecs.framing import TextMessage
from twistedsock.codecs.json_encoder import JsonEncoder
from twistedsock.codecs.websocket import text_frame
from twistedsock.pubsub.values import Tag
from twistedsock.server.web_endpoints import JSON_PROTOCOL, Dialect, WebSocketEndpoint
from twistedsock.server.websocket import WebSocketFactory
from twistedsock.session.commands import Ping, Publish
from twistedsock.session.encoder import Endpoints

BINARY = b"binary"
"""The tag of messages that are echoed in binary."""

SHORT_HANDSHAKES, OTHER_HANDSHAKES = "short handshakes", "Autobahn's handshakes"
SHORT_MESSAGES, OTHER_MESSAGES = "short messages", "Autobahn's messages"

COUNTED = "counted: "
"""The prefix of the line that is written at the end."""


class EchoDialect(JsonEncoder):
    """Its reply to PING is the text only."""

    def welcome(self, id: bytes, ends: Endpoints) -> bytes:
        return b""

    def pong(self, tag: Tag, text: bytes) -> bytes:
        frame = text_frame(text)
        return b"\x82" + frame[1:] if tag == BINARY else frame


class EchoCodec:
    """Decodes each message as PING."""

    def decode(self, message: bytes) -> Ping:
        return Ping(message)

    def find_tag(self, message: bytes) -> Tag:
        return None

    def follow(self, first: Publish, items: Sequence[object], position: int) -> tuple[Publish, int]:
        raise AssertionError("nothing here is a publish")


ECHO = Dialect(EchoDialect(TextMessage()), EchoCodec())


class EchoShell:
    """Mixed in before the class of the WebSocket connection."""

    endpoint = WebSocketEndpoint({JSON_PROTOCOL: ECHO}, ECHO)
    counts: dict[str, int]

    # Provided by that class.
    pipeline: Any
    state: int
    STATE_OPEN: int

    def open_accepted(self, *arguments: Any) -> bool:
        self.counts[SHORT_HANDSHAKES] += 1
        return super().open_accepted(*arguments)  # type: ignore[misc]

    def onConnect(self, request: Any) -> str | None:
        self.counts[OTHER_HANDSHAKES] += 1
        return super().onConnect(request)  # type: ignore[misc]

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.counts[OTHER_MESSAGES] += 1
        if isBinary and self.pipeline is not None and self.state == self.STATE_OPEN:
            self.pipeline.submit([Ping(bytes(payload), BINARY)])
        else:
            if not isBinary:
                self.counts[SHORT_MESSAGES] -= 1  # handle_messages counts it too
            super().onMessage(payload, isBinary)  # type: ignore[misc]

    def handle_messages(self, messages: list[bytes]) -> None:
        self.counts[SHORT_MESSAGES] += len(messages)
        super().handle_messages(messages)  # type: ignore[misc]


def let_echo(factory: WebSocketFactory) -> dict[str, int]:
    """Let a factory's connections echo, with all its options. Returns their counters."""
    counts = dict.fromkeys((SHORT_HANDSHAKES, OTHER_HANDSHAKES, SHORT_MESSAGES, OTHER_MESSAGES), 0)
    protocol: Any = factory.protocol
    factory.protocol = type("EchoWebSocketConnection", (EchoShell, protocol), {"counts": counts})
    return counts


def main(arguments: Sequence[str]) -> None:
    """Run until the process is terminated."""
    from twisted.internet import reactor

    loop: Any = reactor
    globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
    options = tap.Options()
    options.parseOptions(list(arguments))
    service: Any = tap.makeService(options)
    (listener,) = service.web
    counts = let_echo(listener.factory.websockets)
    service.privilegedStartService()
    service.startService()
    loop.addSystemEventTrigger("before", "shutdown", service.stopService)
    loop.run()
    print(COUNTED + json.dumps(counts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
