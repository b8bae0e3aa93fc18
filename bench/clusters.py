"""Servers of several processes that share their channels, and what joins them."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from bench.contestant import TCP, WEBSOCKET
from bench.peers.nats import NatsServer
from bench.peers.process import HOST, PATIENCE, NotStarted, Plan, Server, free_ports, running
from bench.peers.redis import RedisServer
from bench.peers.sockbridge import Sockbridge
from bench.peers.socketio import SocketIoServer
from twistedsock.bench.clients import Target
from twistedsock.bench.measurement import ProcessUsage

LOOKED = 0.02
"""Seconds between two questions whether a server is ready."""

ROUTES_SECONDS = 2.0
"""Time in which servers of NATS connect to each other. They have no address to ask."""


@dataclass(frozen=True)
class Cluster:
    """Processes that run. ``targets`` are the addresses of the processes that clients connect to, ``nodes`` what these
    use, and ``joint`` what the process that joins them uses, which is a Redis or a hub. ``servers`` are for tests of
    what happens when one ends."""

    targets: Sequence[Target]
    nodes: ProcessUsage
    joint: ProcessUsage
    servers: Sequence[Server]


class Kind(ABC):
    """A server that can run as several processes. ``parts`` are single ones of what it needs."""

    name: str
    parts: Sequence[Server]

    def missing(self) -> str:
        """Missing programs, and how to install them. Empty if it can run."""
        return "; ".join(filter(None, (part.missing() for part in self.parts)))

    @abstractmethod
    def start(self, count: int, stack: ExitStack) -> Cluster:
        """Start ``count`` processes, which the stack ends."""

    @contextmanager
    def running(self, count: int) -> Iterator[Cluster]:
        """Raises NotStarted."""
        with ExitStack() as stack:
            yield self.start(count, stack)


def together(servers: Sequence[Server], wire: str, joint: Sequence[int], extra: Sequence[Server] = ()) -> Cluster:
    targets = [server.targets()[wire] for server in servers]
    nodes = [pid for server in servers for pid in server.pids()]
    return Cluster(targets, ProcessUsage(nodes), ProcessUsage(joint), [*servers, *extra])


class SockbridgeOnRedis(Kind):
    """Servers with ``--backplane``."""

    name = "sockbridge-redis"
    parts = (Sockbridge(), RedisServer())

    def start(self, count: int, stack: ExitStack) -> Cluster:
        redis = stack.enter_context(running(RedisServer()))
        host, port = redis.targets()[TCP].address
        servers = [
            stack.enter_context(running(Sockbridge("--backplane", f"redis://{host}:{port}/0"))) for _ in range(count)
        ]
        for server in servers:
            await_ready(server, True)
        return together(servers, TCP, redis.pids(), [redis])


class SockbridgeWorkers(Kind):
    """One server with ``--workers``, or without it for one process."""

    name = "sockbridge-workers"
    parts = (Sockbridge(),)

    def start(self, count: int, stack: ExitStack) -> Cluster:
        if count == 1:
            return together([stack.enter_context(running(Sockbridge()))], TCP, [])
        server = stack.enter_context(running(Sockbridge("--workers", str(count))))
        await_ready(server, True)
        hub = [pid for pid in server.pids() if b"\0hub\0" in Path(f"/proc/{pid}/cmdline").read_bytes()]
        nodes = ProcessUsage([pid for pid in server.pids() if pid not in hub])
        # They share their ports, so the kernel chooses one for each connection.
        return Cluster([server.targets()[TCP]] * count, nodes, ProcessUsage(hub), [server])


class RoutedNats(NatsServer):
    """A server of a NATS cluster. ``routes`` are the ports of all of them for each other, and the first one is its
    own."""

    def __init__(self, routes: Sequence[int]) -> None:
        super().__init__()
        self._routes = routes

    def plan(self, folder: Path) -> Plan:
        plan = super().plan(folder)
        own, *others = [f"{HOST}:{port}" for port in self._routes]
        routes = ", ".join(f'"nats://{route}"' for route in others)
        with (folder / "nats.conf").open("a") as configuration:
            configuration.write(f'cluster {{ name: bench, listen: "{own}", routes: [{routes}] }}\n')
        return plan


class NatsCluster(Kind):
    """Servers that have routes to each other; it keeps no events."""

    name = "nats"
    parts = (NatsServer(),)

    def start(self, count: int, stack: ExitStack) -> Cluster:
        ports = free_ports(count)
        order = [ports[number:] + ports[:number] for number in range(count)]
        servers = [stack.enter_context(running(RoutedNats(each))) for each in order]
        time.sleep(ROUTES_SECONDS)
        return together(servers, TCP, [])


class AdaptedSocketIo(SocketIoServer):
    """A relay with the Redis Streams adapter. ``port`` is that of Redis."""

    package = "@socket.io/redis-streams-adapter"

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        self._port = port

    def plan(self, folder: Path) -> Plan:
        plan = super().plan(folder)
        return plan._replace(command=[*plan.command, str(self._port)])


class SocketIoOnRedis(Kind):
    """Relays with the Redis Streams adapter, which keeps the newest 10,000 packets of all rooms."""

    name = "socketio-redis"
    parts = (AdaptedSocketIo(), RedisServer())

    def start(self, count: int, stack: ExitStack) -> Cluster:
        redis = stack.enter_context(running(RedisServer()))
        _, port = redis.targets()[TCP].address
        servers = [stack.enter_context(running(AdaptedSocketIo(port))) for _ in range(count)]
        return together(servers, WEBSOCKET, redis.pids(), [redis])


def kinds() -> list[Kind]:
    return [SockbridgeWorkers(), SockbridgeOnRedis(), NatsCluster(), SocketIoOnRedis()]


def is_ready(server: Server) -> bool:
    """Whether a sockbridge answers that it is."""
    host, port = server.targets()[WEBSOCKET].address
    try:
        with urlopen(f"http://{host}:{port}/readyz", timeout=PATIENCE):
            return True
    except URLError:
        return False


def await_ready(server: Server, ready: bool) -> float:
    """Wait until a sockbridge is ready, or is not any more. Returns the seconds. Raises NotStarted."""
    start = time.monotonic()
    while is_ready(server) is not ready:
        if time.monotonic() > start + PATIENCE:
            raise NotStarted(f"{server.name} is still {'not ready' if ready else 'ready'}; it said:\n{server.log()}")
        time.sleep(LOOKED)
    return time.monotonic() - start
