"""Planted faults of what finds the servers of a Cluster."""

from tests.simulation.cluster import ClusterBackplanes, ClusterFaults
from tests.simulation.faults import FaultRates
from tests.simulation.planting import Patch, planted_in
from tests.simulation.world import World
from twistedsock.redis.channels import Channels
from twistedsock.redis.publications import Publications

STEPS = 250


def make(world: World, rates: FaultRates) -> ClusterBackplanes:
    return ClusterBackplanes(world, rates, ClusterFaults(move=0.05))


@planted_in(make, STEPS)
def moved_channel_not_followed(patch: Patch) -> None:
    """A node does not follow a channel on the server that has it now."""
    patch(Channels, "follow_moved", lambda self: None)


@planted_in(make, STEPS)
def publications_of_a_move_forgotten(patch: Patch) -> None:
    """Publications that another server is to have are not sent to it."""
    patch(Publications, "_release", lambda self, channel: None)
