"""Random HTTP programs: each request publishes or reads a history, without a session."""

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.simulation.clients import NAMES, Client, draw_value, read_json
from tests.simulation.following import Following, Position
from tests.simulation.world import Violation
from twistedsock.codecs.http_api import batch_response, history_response, read_batch
from twistedsock.errors import Error, ErrorCode
from twistedsock.pubsub import values
from twistedsock.pubsub.future import on_result
from twistedsock.session.history_query import HistoryQuery
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
            epoch = self.run.record.check_confirmed(value, channel, result["offset"])
            if epoch != result["epoch"]:
                raise Violation(
                    f"{channel}: {value!r} was confirmed as {result['offset']} of {result['epoch']} instead of {epoch}",
                    channel,
                )

    def request_history(self, channel: str) -> None:
        since = self.positions.get(channel) if self.random.random() < 0.7 else None
        last = self.random.choice((None, None, 3))
        self.note(f"reads the history since={since} last={last}", channel)
        query = HistoryQuery(last, since and since[0])
        page = self.program.history(channel.encode(), query, since and since[1].encode())
        on_result(page, partial(self.read_page, self.node, channel, since, last))

    def read_page(
        self, node: "SimulatedNode", channel: str, since: Position | None, last: int | None, page: HistoryPage | Error
    ) -> None:
        self.waiting.remove(node)
        if isinstance(page, Error):
            self.check_error(channel, page.code.value.decode())
            return
        reply = read_json(b"".join(history_response(page)))
        following = Following(
            self.run.record, "", channel, reply, since, (0 if since else 2**53) if last is None else last, node
        )
        if "lost" in reply:
            following.receive_lost(reply["lost"]["first"], reply["lost"]["last"])
        for event in reply["events"]:
            following.receive_event(event["offset"], event["name"], event["data"], event["time"])
            self.received += 1
        if following.position != (reply["offset"], reply["epoch"]) and following.earliest == following.next:
            following.fail(f"a history ends at {following.position} instead of {reply['offset']}")
        self.note(f"has read up to {reply['offset']} of {reply['epoch']}", channel)
        self.positions[channel] = reply["offset"], reply["epoch"]

    def check_error(self, channel: str, code: str) -> None:
        if code != ErrorCode.UNAVAILABLE.value.decode() or not self.run.had_faults:
            raise Violation(f"{channel}: a request of {self.name} failed: {code}", channel)

    def check_end(self) -> None:
        if any(node.is_running for node in self.waiting):
            self.fail("a request has no response")
