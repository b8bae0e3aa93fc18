"""All planted faults, by their names."""

from tests.simulation import (
    planted_cluster,
    planted_delivery,
    planted_epochs,
    planted_hub,
    planted_redis,
    planted_sentinel,
)
from tests.simulation.planting import PLANTED

MODULES = (planted_cluster, planted_delivery, planted_epochs, planted_hub, planted_redis, planted_sentinel)

__all__ = ["MODULES", "PLANTED"]
