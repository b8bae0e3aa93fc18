"""HTTP clients that send one request after another: history, long polls, and publications."""

import json
from typing import Any
from urllib.parse import quote

from twisted.internet.address import IPv4Address

from tests.fakes import FakeTransport
from tests.fuzz.clients import Client
from tests.fuzz.connections import Connection
from tests.fuzz.model import Model, check_history
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
    """One request at a time."""

    transport: SlowTransport

    def __init__(self, model: Model) -> None:
        self.transport = SlowTransport(IPv4Address("TCP", "127.0.0.1", 8082))
        self.protocol = HTTPConnection(model.site, self.transport.getPeer())
        self.protocol.makeConnection(self.transport)
        self.gone = self.was_slow = False

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1:8082"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        assert self.send_bytes("\r\n".join([*lines, "", ""]).encode() + body)

    def answer(self) -> tuple[int, Any] | None:
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
        self.waits = False

    def act(self) -> None:
        what = self.random.random()
        if self.connection.gone or what < 0.05:
            self.connection.goes()
            self.connection, self.waits = HttpConnection(self.model), False
        elif what < 0.3:
            self.connection.transport.slow = self.connection.was_slow = True
            self.connection.stalls()
        elif what < 0.5:
            self.connection.drains()
        elif not self.waits and self.connection.transport.is_reading:
            self.waits = True
            self.ask()
            self.read()

    def read(self) -> None:
        answer = self.connection.answer() if self.waits else None
        self.connection.ends_if_closed()
        if answer is None:
            # A response is aborted if the client does not read for too long.
            self.waits = self.waits and not (self.connection.gone and self.connection.was_slow)
        else:
            self.waits = False
            self.hear(*answer)

    def drain(self) -> None:
        self.connection.transport.slow = False
        self.connection.drains()

    def check_complete(self) -> None:
        assert not self.waits, f"no answer, gone: {self.connection.gone}, {self.connection.transport.written[-200:]}"

    def ask(self) -> None:
        raise NotImplementedError

    def hear(self, status: int, told: Any) -> None:
        raise NotImplementedError


class HistoryClient(HttpClient):
    """``GET /channels/…/events``, without waiting."""

    def ask(self) -> None:
        self.asked: dict[str, Any] = {}
        self.name = self.channel()
        known = self.model.server.broker.channels.get(self.name.encode())
        self.known = 0 if known is None else known.head
        if self.random.random() < 0.6:
            self.asked["since"] = self.random.choice((0, max(0, self.known - 3), self.known, 2))
            if known is not None and self.random.random() < 0.6:
                self.asked["epoch"] = self.random.choice((known.epoch.decode(), "other"))
        if self.random.random() < 0.3:
            self.asked["last"] = self.random.choice((0, 1, 5, 30))
        query = "&".join(f"{name}={value}" for name, value in self.asked.items())
        self.connection.ask("GET", f"/channels/{self.name}/events?{query}")

    def hear(self, status: int, told: Any) -> None:
        if status == 503 and self.model.late:
            return
        assert status == 200, (status, told)
        asked, position = dict(self.asked), (told["offset"], told["epoch"])
        events = [(event["offset"], event["data"]) for event in told["events"]]
        lost = [told["lost"]] if "lost" in told else []
        gaps = [(gap["first"], gap["last"]) for gap in [*lost, *told.get("gaps", [])]]
        assert told["next"] == f"{position[1]}:{position[0]}"
        epoch = asked.pop("epoch", None)
        if epoch is not None:
            follows = epoch == position[1] and asked["since"] <= position[0]
            assert told["recovered"] is (follows and not lost)
            if follows:
                asked.pop("last", None)
            else:
                del asked["since"]
                asked.setdefault("last", 0)
        check_history(self.model, self.name, asked, events, gaps, position)


class PollClient(HttpClient):
    """Long polls of one or several channels, each from the end of the one before."""

    def __init__(self, model: Model, channels: tuple[str, ...]) -> None:
        super().__init__(model)
        self.channels = channels
        self.next = ""

    def ask(self) -> None:
        place = f"&last-event-id={quote(self.next)}" if self.next else ""
        if len(self.channels) == 1:
            path = f"/channels/{self.channels[0]}/events?wait=20{place}"
        else:
            path = "/events?wait=20" + "".join(f"&channel={channel}" for channel in self.channels) + place
        self.connection.ask("GET", path)

    def hear(self, status: int, told: Any) -> None:
        if status == 503 and self.model.late:
            return
        assert status == 200, (status, told)
        several = told.get("channels", [told])
        count = len(self.channels)
        before = parse_event_id(self.next, count) if self.next else [None] * count
        after = parse_event_id(told["next"], count)
        assert before is not None and after is not None
        for name, one, old, new in zip(self.channels, several, before, after, strict=True):
            epoch, recovered = one["epoch"], one.get("recovered")
            events = [(event["offset"], event["data"]) for event in one["events"]]
            assert one["channel"] == name and new is not None and (recovered is None) is (old is None)
            assert new.epoch.decode() == epoch
            items = [(offset, offset) for offset, _ in events]
            if "lost" in one:
                gap = one["lost"]["first"], one["lost"]["last"]
                self.model.check_lost(name, epoch, gap)
                items.insert(0, gap)
            for offset, data in events:
                self.model.check(name, epoch, offset, data)
            if old is not None and old.epoch == new.epoch and old.offset <= one["offset"]:
                assert recovered is ("lost" not in one)
                items.insert(0, (old.offset, old.offset))
            else:
                assert not recovered
            for (_, end), (begin, _) in zip(items, items[1:], strict=False):
                assert begin == end + 1, f"{name}: {begin} follows {end} in a poll"
            if items:
                assert new.offset == items[-1][1], "the next poll would leave something out"
            elif old is not None:
                assert new.offset == one["offset"]
        self.next = told["next"]

    def check_nothing_is_overlooked(self) -> None:
        if self.waits and self.next:
            for name, place in zip(self.channels, parse_event_id(self.next, len(self.channels)) or (), strict=True):
                known = self.model.server.broker.channels[name.encode()]
                assert place == Position(known.epoch, known.head), (
                    f"a poll waits at {place}, {name} is at {known.position}"
                )


class PublishClient(HttpClient):
    """Publishes one event, a batch, and repetitions with the same key."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.again: tuple[str, str, bytes, dict[str, str], Any] | None = None
        self.keys = 0

    def ask(self) -> None:
        kind = self.random.random()
        headers: dict[str, str] = {}
        if self.again is not None and kind < 0.5:
            _, path, body, headers, self.expected = self.again
            self.again = None
        else:
            self.expected = None
            if self.random.random() < 0.5:
                self.keys += 1
                headers["Idempotency_Key"] = f"key-{self.keys}"
            if kind < 0.75:
                self.rows = [(self.channel(), self.model.payload())]
                path, body = f"/channels/{self.rows[0][0]}/events", self.rows[0][1].encode()
                headers["Content_Type"] = "text/plain"
            else:
                self.rows = [(self.channel(), self.model.payload()) for _ in range(self.random.choice((1, 3, 8)))]
                path = "/events"
                events = [{"channel": channel, "data": data} for channel, data in self.rows]
                body = json.dumps({"events": events}).encode()
                headers["Content_Type"] = "application/json"
        self.sent = path, body, headers
        self.connection.ask("POST", path, body, **headers)

    def hear(self, status: int, told: Any) -> None:
        path, body, headers = self.sent
        if status == 503 and self.model.late:
            return  # no result is stored, so a repetition could publish twice
        assert status in (200, 201), (status, told)
        if self.expected is not None:
            assert told == self.expected, "another answer under the same key"
            return
        answers = told["results"] if path == "/events" else [told]
        for (channel, data), answer in zip(self.rows, answers, strict=True):
            assert answer["channel"] == channel
            if "offset" in answer:
                self.model.promised.append((data, channel, answer["offset"]))
            else:
                assert answer["code"] == "unavailable" and self.model.late
        if "Idempotency_Key" in headers and any("offset" in answer for answer in answers):
            self.again = "POST", path, body, headers, told
