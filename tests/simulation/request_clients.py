"""Random HTTP programs: each request publishes or reads a history, without a session."""

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation.clients import NAMES, Client, draw_value, read_json
from tests.simulation.following import Following, Position
from tests.simulation.histories import Bounds, HistoryCheck, draw_bounds, is_time
from tests.simulation.world import Violation
from twistedsock.codecs.http_api import batch_response, history_response
from twistedsock.codecs.http_bodies import read_batch
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub import values
from twistedsock.pubsub.future import Future, Steps, complete, map_result, on_result
from twistedsock.session.history_query import Bound, HistoryQuery, Moment
from twistedsock.session.request import HistoryPage, RequestClient

if TYPE_CHECKING:
    from tests.simulation.node import SimulatedNode
    from tests.simulation.run import Run

MAX_PAYLOAD_BYTES = 65_536


class RequestProgram(Client):
    """Sends each request to another node. ``waiting`` are the nodes whose responses have not arrived."""

    is_closed = False
    outlet = None

    def __init__(self, run: "Run", name: str) -> None:
        self.waiting: list[SimulatedNode] = []
        super().__init__(run, name)

    def open_connection(self, node: "SimulatedNode") -> None:
        self.program = RequestClient(node.context, "", b"127.0.0.1:50000")

    def close_connection(self) -> None:
        """There is none."""

    def act(self) -> None:
        self.reconnect()
        assert self.node is not None
        self.waiting.append(self.node)
        if self.random.random() < 0.6:
            self.publish(self.random.choice((1, 1, 2, 6)))
        else:
            self.request_history(self.random.choice(self.run.channels))

    def read(self) -> None:
        """Responses are read when they arrive."""

    def finish(self) -> None:
        if self.node is None:
            self.reconnect()

    def publish(self, count: int) -> None:
        rows = [
            (self.random.choice(self.run.channels), self.random.choice(NAMES), draw_value(self.world))
            for _ in range(count)
        ]
        for row in rows:
            self.run.record.send(*row)
        body = json.dumps(
            {"events": [{"channel": channel, "name": name, "data": data} for channel, name, data in rows]}
        )
        self.note(f"posts {count} events")
        publications = [
            item
            for item in read_batch(body.encode(), b"application/json", MAX_PAYLOAD_BYTES)
            if isinstance(item, values.Publication)
        ]
        on_result(self.program.publish_all(publications), partial(self.read_positions, self.node, rows))

    def read_positions(
        self, node: "SimulatedNode", rows: list[tuple[str, str, Any]], outcome: list[values.Position | Error] | Error
    ) -> None:
        self.waiting.remove(node)
        if isinstance(outcome, Error):
            self.fail(f"a batch failed: {outcome}")
        assert not isinstance(outcome, Error)
        results = read_json(batch_response(zip([row[0].encode() for row in rows], outcome, strict=True)))["results"]
        for (channel, _, value), result in zip(rows, results, strict=True):
            if "offset" not in result:
                self.check_error(channel, result["code"])
                continue
            record, offset, named = self.run.record, result["offset"], result["epoch"]
            epoch = record.check_confirmed(value, channel, offset)
            if record.epoch(channel, epoch).batch_at(offset) is not record.epoch(channel, named).batch_at(offset):
                raise Violation(
                    f"{channel}: {value!r} was confirmed as {offset} of {named} instead of {epoch}", channel
                )

    def request_history(self, channel: str) -> None:
        assert self.node is not None
        since = self.positions.get(channel) if self.random.random() < 0.5 else None
        bounds = Bounds() if since else draw_bounds(self.world, self.run.record.channels.get(channel))
        if since and self.random.random() < 0.3:
            bounds["last"] = 3
        self.note(f"reads the history since={since} {bounds}", channel)
        check = HistoryCheck(self.run.record, self.node, channel, bounds)
        query = HistoryQuery(
            bounds.get("last"),
            since[0] if since else bounds.get("since"),
            _bound(bounds.get("after")),
            _bound(bounds.get("before")),
        )
        page = self.program.history(channel.encode(), query, since and since[1].encode())
        body = map_result(page, lambda page: complete(_body(page)))
        on_result(body, partial(self.read_page, self.node, channel, since, bounds, check))

    def read_page(
        self,
        node: "SimulatedNode",
        channel: str,
        since: Position | None,
        bounds: Bounds,
        check: HistoryCheck,
        body: bytes | Error,
    ) -> None:
        self.waiting.remove(node)
        if isinstance(body, Error):
            self.check_error(channel, body.code.value.decode())
            return
        reply = read_json(body)
        lost = [{"type": "lost", **gap} for gap in reply.get("gaps", ())]
        if "lost" in reply:
            lost.append({"type": "lost", **reply["lost"]})
        items = sorted([*reply["events"], *lost], key=lambda item: item.get("offset", item.get("first")))
        self.received += len(reply["events"])
        self.note(f"has read up to {reply['offset']} of {reply['epoch']}", channel)
        if since is None:
            check.check(items)
            if not bounds:
                self.positions[channel] = reply["offset"], reply["epoch"]
            return
        first = items[0].get("offset", items[0].get("first")) if items else None
        if since[1] != reply["epoch"] and first == since[0] + 1:
            reply["since"] = since[0]  # the node knows the former epoch, which a page does not say
        following = Following(self.run.record, "", channel, reply, since, bounds.get("last", 0), _Everywhere(node))
        for item in items:
            if item["type"] == "lost":
                following.receive_lost(item["first"], item["last"])
            else:
                following.receive_event(item["offset"], item["name"], item["data"], item["time"])
        if following.position != (reply["offset"], reply["epoch"]) and following.earliest == following.next:
            following.fail(f"a history ends at {following.position} instead of {reply['offset']}")
        self.positions[channel] = reply["offset"], reply["epoch"]

    def check_error(self, channel: str, code: str) -> None:
        if code != ErrorCode.UNAVAILABLE.value.decode() or not self.run.had_faults:
            raise Violation(f"{channel}: a request of {self.name} failed: {code}", channel)

    def check_end(self) -> None:
        if any(node.is_running for node in self.waiting):
            self.fail("a request has no response")


class _Everywhere:
    """A request is also answered from what only the backplane has."""

    def __init__(self, node: "SimulatedNode") -> None:
        self.has_dropped = self.is_lost = node.is_lost


def _bound(bound: int | None) -> Bound | None:
    return Moment(bound) if bound is not None and is_time(bound) else bound


def _body(page: HistoryPage) -> Steps[bytes | Error]:
    """The body of a response, which may have to wait."""
    pieces: list[bytes] = []
    for piece in history_response(page):
        if isinstance(piece, Future):
            yield piece
        else:
            pieces.append(piece)
    return b"".join(pieces)
