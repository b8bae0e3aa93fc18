"""Random HTTP clients that send one request after another: history, long polls, and publications. Each response is
compared with the model of ``tests.fuzz.model``."""

import json
from typing import Any
from urllib.parse import quote

from twisted.internet.address import IPv4Address

from tests.fakes import FakeTransport
from tests.fuzz.connections import Connection
from tests.fuzz.model import Model, check_history
from tests.fuzz.session_clients import Client
from twistedsock.codecs.sse import parse_event_id
from twistedsock.pubsub.values import Position
from twistedsock.server.http.connection import HTTPConnection


class SlowTransport(FakeTransport):
    """Pauses its producer after each write while it is ``slow``."""

    slow = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.slow and self.producer is not None:
            self.producer.pauseProducing()


class HttpConnection(Connection):
    """A connection to the web port. It sends one request at a time."""

    transport: SlowTransport

    def __init__(self, model: Model) -> None:
        self.transport = SlowTransport(IPv4Address("TCP", "127.0.0.1", 8082))
        self.protocol = HTTPConnection(model.site, self.transport.getPeer())
        self.protocol.makeConnection(self.transport)
        self.is_closed = self.was_slow = False

    def send_request(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1:8082"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        assert self.send_bytes("\r\n".join([*lines, "", ""]).encode() + body)

    def response(self) -> tuple[int, Any] | None:
        """Status and JSON of the response when it is complete."""
        head, end, body = self.transport.value().partition(b"\r\n\r\n")
        if not end:
            return None
        if b"\r\ntransfer-encoding: chunked" in head.lower():
            if not body.endswith(b"0\r\n\r\n"):
                return None
            rest, body = body, b""
            while rest:
                size, _, rest = rest.partition(b"\r\n")
                body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        elif len(body) < int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
            return None
        self.transport.clear()
        return int(head.split(b" ")[1]), json.loads(body)


class HttpClient(Client):
    """Sends one HTTP request after another."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.connection = HttpConnection(model)
        self.is_waiting = False

    def act(self) -> None:
        choice = self.random.random()
        if self.connection.is_closed or choice < 0.05:
            self.connection.close()
            self.connection, self.is_waiting = HttpConnection(self.model), False
        elif choice < 0.3:
            self.connection.transport.slow = self.connection.was_slow = True
            self.connection.stall()
        elif choice < 0.5:
            self.connection.drain()
        elif not self.is_waiting and self.connection.transport.is_reading:
            self.is_waiting = True
            self.send_next()
            self.read()

    def read(self) -> None:
        response = self.connection.response() if self.is_waiting else None
        self.connection.close_if_server_closed()
        if response is None:
            # A response is aborted if the client does not read for too long.
            self.is_waiting = self.is_waiting and not (self.connection.is_closed and self.connection.was_slow)
        else:
            self.is_waiting = False
            self.check_response(*response)

    def drain(self) -> None:
        self.connection.transport.slow = False
        self.connection.drain()

    def check_complete(self) -> None:
        assert not self.is_waiting, (
            f"no response, closed: {self.connection.is_closed}, {self.connection.transport.written[-200:]}"
        )

    def send_next(self) -> None:
        raise NotImplementedError

    def check_response(self, status: int, body: Any) -> None:
        raise NotImplementedError


class HistoryClient(HttpClient):
    """Reads a history with ``GET /channels/…/events``, without waiting for events."""

    def send_next(self) -> None:
        self.parameters: dict[str, Any] = {}
        self.name = self.random_channel()
        known = self.model.server.broker.channels.get(self.name.encode())
        self.known = 0 if known is None else known.head
        if self.random.random() < 0.6:
            self.parameters["since"] = self.random.choice((0, max(0, self.known - 3), self.known, 2))
            if known is not None and self.random.random() < 0.6:
                self.parameters["epoch"] = self.random.choice((known.epoch.decode(), "other"))
        if self.random.random() < 0.3:
            self.parameters["last"] = self.random.choice((0, 1, 5, 30))
        for name in ("after", "before"):
            if self.random.random() < 0.2:
                self.parameters[name] = self.model.bound(self.known)
        query = "&".join(f"{name}={value}" for name, value in self.parameters.items())
        self.connection.send_request("GET", f"/channels/{self.name}/events?{query}")

    def check_response(self, status: int, body: Any) -> None:
        if status == 503 and self.model.late:
            return
        assert status == 200, (status, body)
        request, position = dict(self.parameters), (body["offset"], body["epoch"])
        events = [(event["offset"], event["data"]) for event in body["events"]]
        lost = [body["lost"]] if "lost" in body else []
        gaps = [(gap["first"], gap["last"]) for gap in [*lost, *body.get("gaps", [])]]
        for event in body["events"]:
            self.model.check_time(event)
        if "before" in request:
            following = parse_event_id(body["next"], 1)
            assert following is not None and following[0] is not None and following[0].epoch.decode() == position[1]
            assert max([0, *(offset for offset, _ in events)]) <= following[0].offset <= position[0]
        else:
            assert body["next"] == f"{position[1]}:{position[0]}"
        epoch = request.pop("epoch", None)
        if epoch is not None:
            follows = epoch == position[1] and request["since"] <= position[0]
            assert follows or not body["recovered"]
            assert body["recovered"] is (follows and not lost) or request.keys() & {"after", "before"}
            if follows:
                request.pop("last", None)
            else:
                del request["since"]
                if "after" not in request:
                    request.setdefault("last", 0)
        check_history(self.model, self.name, request, events, gaps, position)


class PollClient(HttpClient):
    """Sends long polls for one or several channels. Each starts at the position that the one before returned."""

    def __init__(self, model: Model, channels: tuple[str, ...]) -> None:
        super().__init__(model)
        self.channels = channels
        self.next = ""

    def send_next(self) -> None:
        since = f"&last-event-id={quote(self.next)}" if self.next else ""
        if len(self.channels) == 1:
            path = f"/channels/{self.channels[0]}/events?wait=20{since}"
        else:
            path = "/events?wait=20" + "".join(f"&channel={channel}" for channel in self.channels) + since
        self.connection.send_request("GET", path)

    def check_response(self, status: int, body: Any) -> None:
        if status == 503 and self.model.late:
            return
        assert status == 200, (status, body)
        results = body.get("channels", [body])
        count = len(self.channels)
        before = parse_event_id(self.next, count) if self.next else [None] * count
        after = parse_event_id(body["next"], count)
        assert before is not None and after is not None
        for name, result, old, new in zip(self.channels, results, before, after, strict=True):
            epoch, recovered = result["epoch"], result.get("recovered")
            events = [(event["offset"], event["data"]) for event in result["events"]]
            assert result["channel"] == name and new is not None and (recovered is None) is (old is None)
            assert new.epoch.decode() == epoch
            items = [(offset, offset) for offset, _ in events]
            if "lost" in result:
                gap = result["lost"]["first"], result["lost"]["last"]
                self.model.check_gap(name, epoch, gap)
                items.insert(0, gap)
            for offset, data in events:
                self.model.check_event(name, epoch, offset, data)
            if old is not None and old.epoch == new.epoch and old.offset <= result["offset"]:
                assert recovered is ("lost" not in result)
                items.insert(0, (old.offset, old.offset))
            else:
                assert not recovered
            for (_, end), (start, _) in zip(items, items[1:], strict=False):
                assert start == end + 1, f"{name}: {start} follows {end} in a poll"
            if items:
                assert new.offset == items[-1][1], "the next poll would miss an event"
            elif old is not None:
                assert new.offset == result["offset"]
        self.next = body["next"]

    def check_waiting(self) -> None:
        if self.is_waiting and self.next:
            for name, position in zip(self.channels, parse_event_id(self.next, len(self.channels)) or (), strict=True):
                known = self.model.server.broker.channels[name.encode()]
                assert position == Position(known.epoch, known.head), (
                    f"a poll waits at {position}, but {name} is at {known.position}"
                )


class PublishClient(HttpClient):
    """Publishes one event or a batch, and repeats some requests with the same idempotency key."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.repeatable: tuple[str, bytes, dict[str, str], Any] | None = None
        self.keys = 0

    def send_next(self) -> None:
        kind = self.random.random()
        headers: dict[str, str] = {}
        if self.repeatable is not None and kind < 0.5:
            path, body, headers, self.expected = self.repeatable
            self.repeatable = None
        else:
            self.expected = None
            if self.random.random() < 0.5:
                self.keys += 1
                headers["Idempotency_Key"] = f"key-{self.keys}"
            if kind < 0.75:
                self.rows = [(self.random_channel(), self.model.payload())]
                path, body = f"/channels/{self.rows[0][0]}/events", self.rows[0][1].encode()
                headers["Content_Type"] = "text/plain"
            else:
                self.rows = [
                    (self.random_channel(), self.model.payload()) for _ in range(self.random.choice((1, 3, 8)))
                ]
                path = "/events"
                events = [{"channel": channel, "data": data} for channel, data in self.rows]
                body = json.dumps({"events": events}).encode()
                headers["Content_Type"] = "application/json"
        self.sent = path, body, headers
        self.connection.send_request("POST", path, body, **headers)

    def check_response(self, status: int, body: Any) -> None:
        path, content, headers = self.sent
        if status == 503 and self.model.late:
            return  # no result is stored, so a repetition could publish twice
        assert status in (200, 201), (status, body)
        if self.expected is not None:
            assert body == self.expected, "a different response for the same key"
            return
        results = body["results"] if path == "/events" else [body]
        for (channel, data), result in zip(self.rows, results, strict=True):
            assert result["channel"] == channel
            if "offset" in result:
                self.model.confirmed.append((data, channel, result["offset"]))
            else:
                assert result["code"] == "unavailable" and self.model.late
        if "Idempotency_Key" in headers and any("offset" in result for result in results):
            self.repeatable = path, content, headers, body
