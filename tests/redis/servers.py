"""Real servers: Redis of this machine, on a Unix socket in a directory."""

import contextlib
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.end_to_end.programs import free_ports, wait_until
from twistedsock.redis.address import Address, Place
from twistedsock.redis.resp import Call, Conversation, RedisError
from twistedsock.redis.wire import SLOTS

START_SECONDS = 10.0


class RedisConnection:
    """A connection to the Unix socket at ``path``."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._replies: list[Any] = []
        try:
            self._socket.settimeout(START_SECONDS)
            self._socket.connect(path)
            self._conversation = Conversation(self._socket.sendall, lambda topic, message: None, self._replies.append)
            self._conversation.send([Call((b"HELLO", 3), lambda reply: None)])
        except BaseException:
            self.close()
            raise

    def ask(self, *words: str | bytes | int) -> Any:
        """The reply to a command."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        self._conversation.send([Call(parts, self._replies.append)])
        while not self._replies:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the server has closed the connection")
            self._conversation.receive(data)
        reply = self._replies.pop()
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def close(self) -> None:
        self._socket.close()


class RedisServer:
    """A server with its files in ``directory``. ``program`` is its executable file. ``port`` is that of TCP, 0 for
    none."""

    def __init__(self, directory: Path, *options: str, program: str = "redis-server", port: int = 0) -> None:
        self.path = str(directory / "redis.sock")
        self.port = port
        self.directory = directory
        files = ("--unixsocket", self.path, "--dir", str(directory))
        self._command = [program, *files, "--port", str(port), "--save", "", "--loglevel", "warning", *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> Address:
        return Address(path=self.path)

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask("PING")
                return
            except RedisError as error:
                if str(error).startswith("NOAUTH"):  # it has a password
                    return
                if not str(error).startswith("LOADING"):
                    raise
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.kill()
                    raise
            time.sleep(0.01)

    def ask(self, *words: str | bytes | int) -> Any:
        """The reply to a command, on a connection of its own."""
        with contextlib.closing(RedisConnection(self.path)) as connection:
            return connection.ask(*words)

    @contextlib.contextmanager
    def running(self, *words: str | bytes | int) -> Iterator[None]:
        """A command that runs meanwhile, and may fail."""

        def run() -> None:
            with contextlib.suppress(RedisError):
                self.ask(*words)

        thread = threading.Thread(target=run)
        thread.start()
        yield
        thread.join()

    def kill(self) -> None:
        """End it as a crash does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        Path(self.path).unlink(missing_ok=True)

    def shut_down(self) -> None:
        """Save its data, and end it."""
        assert self._process is not None
        with contextlib.suppress(OSError):
            self.ask("SHUTDOWN", "SAVE")
        self._process.wait()
        Path(self.path).unlink(missing_ok=True)

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class SentinelServer(RedisServer):
    """A Sentinel that watches one master. ``options`` are lines of its configuration."""

    def __init__(self, directory: Path, port: int, master: int, *options: str, program: str, quorum: int = 1) -> None:
        super().__init__(directory, program=program, port=port)
        # Failovers are quick, so that the tests are.
        lines = [
            *(f"port {port}", f"unixsocket {self.path}", f"dir {directory}", "loglevel warning"),
            f"sentinel monitor mymaster 127.0.0.1 {master} {quorum}",
            *("sentinel down-after-milliseconds mymaster 1000", "sentinel failover-timeout mymaster 2000"),
            *options,
        ]
        file = directory / "sentinel.conf"
        file.write_text("\n".join(lines) + "\n")
        self._command = [program, str(file), "--sentinel"]

    def start(self) -> None:
        super().start()
        with contextlib.suppress(RedisError):  # since Redis 7.0: how often it looks, in milliseconds
            self.ask("SENTINEL", "DEBUG", "INFO-PERIOD", 200, "PUBLISH-PERIOD", 200)


class SentinelGroup:
    """Two servers, of which one is the master of the other, and Sentinels that watch them. ``options`` are those of the
    servers."""

    def __init__(self, directory: Path, program: str, *options: str, sentinels: int = 1) -> None:
        ports = free_ports(2 + sentinels)
        self.servers: list[RedisServer] = []
        self.sentinels: list[SentinelServer] = []
        for number, port in enumerate(ports):
            folder = directory / str(number)
            folder.mkdir()
            if number < 2:
                quick = ("--repl-diskless-sync-delay", "0", *options)
                self.servers.append(RedisServer(folder, *quick, program=program, port=port))
            else:
                quorum = sentinels // 2 + 1
                self.sentinels.append(SentinelServer(folder, port, ports[0], program=program, quorum=quorum))

    @property
    def address(self) -> Address:
        sentinels = tuple(Place("127.0.0.1", sentinel.port) for sentinel in self.sentinels)
        return Address(sentinels=sentinels, master="mymaster")

    def start(self) -> None:
        master, replica = self.servers
        master.start()
        replica.start()
        replica.ask("REPLICAOF", "127.0.0.1", master.port)
        wait_until(lambda: is_in_step(replica), "the replica to have the data of the master")
        for sentinel in self.sentinels:
            sentinel.start()
        wait_until(lambda: all(map(self._knows_all, self.sentinels)), "the Sentinels to find all")

    def _knows_all(self, sentinel: SentinelServer) -> bool:
        """A Sentinel finds the others through the master."""
        known = sentinel.ask("SENTINEL", "MASTER", "mymaster")
        replicas = sentinel.ask("SENTINEL", "REPLICAS", "mymaster")
        if known[b"num-other-sentinels"] != b"%d" % (len(self.sentinels) - 1):
            return False
        return [replica[b"master-link-status"] for replica in replicas] == [b"ok"]

    def ask(self, *words: str | bytes | int) -> Any:
        return self.master.ask(*words)

    def kill(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.kill()

    @property
    def master(self) -> RedisServer:
        """The server that the first Sentinel calls the master."""
        port = int(self.sentinels[0].ask("SENTINEL", "MASTER", "mymaster")[b"port"])
        return next(server for server in self.servers if server.port == port)

    @property
    def replica(self) -> RedisServer:
        master = self.master
        return next(server for server in self.servers if server is not master)


def is_in_step(replica: RedisServer) -> bool:
    """Whether a replica receives what its master does."""
    return b"master_link_status:up" in replica.ask("INFO", "replication")


def has_all_data(replica: RedisServer, master: RedisServer) -> bool:
    """Whether a replica has all that its master has written. The master confirms calls before that."""
    return _replication_offset(replica, "slave") == _replication_offset(master, "master")


def _replication_offset(server: RedisServer, role: str) -> int:
    found = re.search(rf"{role}_repl_offset:(\d+)", server.ask("INFO", "replication").decode())
    assert found is not None
    return int(found[1])


def stop_replication(master: RedisServer, replica: RedisServer) -> None:
    """Let a replica miss what its master does from now on: it connects with a password that the master rejects."""
    replica.ask("CONFIG", "SET", "masterauth", "wrong")
    master.ask("CLIENT", "KILL", "TYPE", "replica")
    wait_until(lambda: not is_in_step(replica), "the replica to lose its master")


def cluster_port() -> int:
    """A port whose number plus 10,000 is free, too: the servers of a Cluster talk to each other there."""
    while True:
        (port,) = free_ports(1)
        with contextlib.suppress(OSError, OverflowError):
            socket.create_server(("127.0.0.1", port + 10_000)).close()
            return port


class ClusterGroup:
    """A Cluster of some masters, and replicas of the first one. ``options`` are those of the servers."""

    def __init__(self, directory: Path, program: str, *options: str, masters: int = 2, replicas: int = 0) -> None:
        self.masters: list[RedisServer] = []
        self.replicas: list[RedisServer] = []
        for number in range(masters + replicas):
            folder = directory / f"node{number}"
            folder.mkdir()
            port = cluster_port()
            quick = ("--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0", *options)
            server = RedisServer(folder, "--cluster-enabled", "yes", *quick, program=program, port=port)
            (self.masters if number < masters else self.replicas).append(server)

    @property
    def address(self) -> Address:
        return Address(nodes=tuple(Place("127.0.0.1", server.port) for server in self.masters))

    @property
    def servers(self) -> list[RedisServer]:
        return [*self.masters, *self.replicas]

    def start(self) -> None:
        for server in self.servers:
            server.start()
        for number, master in enumerate(self.masters):
            master.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            slots = range(SLOTS * number // len(self.masters), SLOTS * (number + 1) // len(self.masters))
            master.ask("CLUSTER", "ADDSLOTS", *slots)
        for server in self.servers[1:]:
            server.ask("CLUSTER", "MEET", "127.0.0.1", self.masters[0].port)
        known = f"cluster_known_nodes:{len(self.servers)}".encode()
        wait_until(lambda: all(known in server.ask("CLUSTER", "INFO") for server in self.servers), "the nodes to meet")
        for replica in self.replicas:
            wait_until(lambda: self._replicates(replica), "the replica to accept its master")  # noqa: B023
        wait_until(lambda: all(map(self._is_complete, self.servers)), "the Cluster to be complete")
        wait_until(lambda: all(map(is_in_step, self.replicas)), "the replicas to have the data")

    def _replicates(self, replica: RedisServer) -> bool:
        try:
            return bool(replica.ask("CLUSTER", "REPLICATE", self.id_of(self.masters[0])))
        except RedisError:  # it does not know the master yet
            return False

    def _is_complete(self, server: RedisServer) -> bool:
        """Whether it knows the owners of all slots, and the replicas."""
        if b"cluster_state:ok" not in server.ask("CLUSTER", "INFO"):
            return False
        ranges = server.ask("CLUSTER", "SLOTS")
        return sum(last + 1 - first for first, last, *_ in ranges) == SLOTS and len(
            {owner[1] for _, _, *owners in ranges for owner in owners}
        ) == len(self.servers)

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def ask(self, *words: str | bytes | int) -> Any:
        """Ask all masters. Returns the reply of the last one."""
        return [master.ask(*words) for master in self.masters][-1]

    def id_of(self, server: RedisServer) -> bytes:
        return bytes(server.ask("CLUSTER", "MYID"))

    def owner(self, number: int) -> RedisServer:
        """The master with a slot, as most servers see it."""
        for first, last, owner, *_ in self.masters[-1].ask("CLUSTER", "SLOTS"):
            if first <= number <= last:
                return next(server for server in self.servers if server.port == owner[1])
        raise LookupError(number)

    def begin_move(self, number: int, target: RedisServer) -> None:
        """Let a slot move to another master."""
        source = self.owner(number)
        target.ask("CLUSTER", "SETSLOT", number, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", number, "MIGRATING", self.id_of(target))

    def move_keys(self, number: int, target: RedisServer) -> None:
        """Move the keys of a slot that is moving."""
        source = self.owner(number)
        for key in source.ask("CLUSTER", "GETKEYSINSLOT", number, 1000):
            source.ask("MIGRATE", "127.0.0.1", target.port, key, 0, 5000)

    def move_atomically(self, number: int, target: RedisServer) -> bool:
        """Begin to move a slot with all its keys in one step. False if the servers cannot: Valkey 9.0 can, and Redis
        8.4."""
        source = self.owner(number)
        for server, words in (
            (source, ("MIGRATESLOTS", "SLOTSRANGE", number, number, "NODE", self.id_of(target))),
            (target, ("MIGRATION", "IMPORT", number, number)),
        ):
            with contextlib.suppress(RedisError):
                server.ask("CLUSTER", *words)
                return True
        return False

    def end_move(self, number: int, target: RedisServer) -> None:
        target_id = self.id_of(target)
        for server in (target, *[master for master in self.masters if master is not target]):
            server.ask("CLUSTER", "SETSLOT", number, "NODE", target_id)
