"""All planted faults, by their names."""

from tests.simulation import planted_delivery, planted_epochs, planted_hub, planted_redis
from tests.simulation.planting import PLANTED

MODULES = (planted_delivery, planted_epochs, planted_hub, planted_redis)

__all__ = ["MODULES", "PLANTED"]
