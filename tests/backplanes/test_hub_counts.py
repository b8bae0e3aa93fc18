"""The connections of one address to several workers, through the hub."""

from tests.backplanes.worker_hub import Machine
from twistedsock.backplanes.hub_client import WorkerBackplane
from twistedsock.backplanes.hub_counts import ConnectionCounts
from twistedsock.errors import TOO_MANY_FROM_ADDRESS
from twistedsock.limits.connections import ConnectionLimiter
from twistedsock.limits.shared_counts import SharedCounts

ADDRESS = "10.0.0.1"


class Worker:
    """A worker with a limiter. Its reports are sent as soon as time passes."""

    def __init__(self, machine: Machine, name: bytes) -> None:
        self.machine = machine
        self.limiter = ConnectionLimiter(machine.limits)
        self.backplane = WorkerBackplane(name, machine.do)
        self.backplane.counts = SharedCounts(self.limiter, machine.schedule, self.backplane.send_counts)
        self.connect()

    def connect(self) -> None:
        self.pipe = self.machine.connect(self.backplane)

    def open(self, count: int) -> int:
        """Open connections. Returns how many were accepted."""
        accepted = [self.limiter.acquire(ADDRESS) for _ in range(count)].count(None)
        self.machine.pass_time(1)
        return accepted

    def close(self, count: int) -> None:
        for _ in range(count):
            self.limiter.release(ADDRESS)
        self.machine.pass_time(1)

    @property
    def elsewhere(self) -> int:
        return self.limiter.elsewhere_of.get(b"@10.0.0.1", 0)


def start(maximum: int) -> tuple[Machine, Worker, Worker]:
    machine = Machine(max_connections_per_address=maximum)
    machine.hub.counts = ConnectionCounts(machine.limits)
    return machine, Worker(machine, b"1"), Worker(machine, b"2")


def test_a_limit_is_that_of_all_workers() -> None:
    _, one, two = start(6)
    assert (one.open(2), two.open(3)) == (2, 3)
    assert (one.elsewhere, two.elsewhere) == (3, 2)
    assert one.open(3) == 1
    assert two.limiter.acquire(ADDRESS) == TOO_MANY_FROM_ADDRESS
    one.close(2)
    assert two.open(3) == 2


def test_workers_are_told_only_of_those_near_their_limit() -> None:
    _, one, two = start(6)
    one.open(2)
    assert two.elsewhere == 0
    one.open(1)
    assert two.elsewhere == 3
    one.close(1)
    assert (one.elsewhere, two.elsewhere) == (0, 0) and not two.limiter.elsewhere_of


def test_the_limit_of_one_holds_in_each_worker() -> None:
    _, one, two = start(1)
    assert one.open(1) == 1
    assert two.open(1) == 0
    one.close(1)
    assert two.open(1) == 1 and one.open(1) == 0


def test_a_worker_that_ends_gives_its_share_back() -> None:
    machine, one, two = start(4)
    one.open(4)
    assert two.elsewhere == 4
    one.pipe.close()
    machine.settle()
    assert two.elsewhere == 0 and two.open(5) == 4


def test_workers_that_connect_later_or_again_know_all() -> None:
    machine, one, two = start(4)
    one.open(3)
    three = Worker(machine, b"3")
    assert three.elsewhere == 3
    two.open(1)
    two.pipe.close()
    assert two.elsewhere == 0
    two.connect()
    assert (one.elsewhere, two.elsewhere, three.elsewhere) == (1, 3, 4)
    machine.start_hub()
    machine.hub.counts = ConnectionCounts(machine.limits)
    assert three.elsewhere == 0
    for worker in (one, two, three):
        worker.connect()
    machine.pass_time(1)
    assert (one.elsewhere, two.elsewhere, three.elsewhere) == (1, 3, 4)


def test_nothing_is_kept_of_clients_that_have_gone() -> None:
    machine, one, _ = start(2)
    one.open(2)
    one.close(2)
    assert machine.hub.counts.connect(b"4") == {}
