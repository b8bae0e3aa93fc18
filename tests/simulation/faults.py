"""What can go wrong in a run. Each run draws its own kinds of faults and their rates, so that some runs have one kind,
and some have many at once."""

from dataclasses import dataclass
from random import Random


@dataclass
class FaultRates:
    """The probabilities of faults, and mean delays in seconds."""

    request_delay: float = 0.001
    delivery_delay: float = 0.001
    immediate: float = 0.0
    """That the backplane answers a request at once."""
    slow: float = 0.0
    """That a message takes a thousand times as long."""
    fail: float = 0.0
    """That a request fails before it reaches the store."""
    lose_answer: float = 0.0
    """That a request fails although the store has done it."""
    skip: float = 0.0
    """That a batch is not delivered to one node."""
    repeat: float = 0.0
    """That a batch is delivered twice to one node, the second time later."""
    # The following are probabilities in each step of the run.
    disconnect: float = 0.0
    """That a node loses its connection to the store for a while."""
    roll_back: float = 0.0
    """That the store loses its last second, and continues with other epochs."""
    forget: float = 0.0
    """That the store forgets a channel."""
    crash: float = 0.0
    """That a node stops, and starts again without its sessions and histories."""
    set_clock: float = 0.0
    """That the wall clock jumps by up to a minute, forwards or back."""


def draw_rates(random: Random) -> FaultRates:
    rates = FaultRates(
        request_delay=random.choice((0.0001, 0.001, 0.005, 0.05)),
        delivery_delay=random.choice((0.0001, 0.001, 0.005, 0.05)),
        immediate=random.choice((0.0, 0.0, 0.3, 1.0)),
    )
    kinds = {
        "slow": (0.002, 0.02),
        "fail": (0.01, 0.1),
        "lose_answer": (0.01, 0.1),
        "skip": (0.01, 0.1),
        "repeat": (0.01, 0.1),
        "disconnect": (0.002, 0.01),
        "set_clock": (0.002, 0.02),
        "crash": (0.001, 0.003),
        "roll_back": (0.001, 0.005, 0.05),
        "forget": (0.001, 0.003),
    }
    share = random.choice((0.0, 0.3, 0.6))
    for kind, choices in kinds.items():
        if random.random() < share:
            setattr(rates, kind, random.choice(choices))
    if rates.skip:
        rates.immediate = 0.0  # a backplane that answers at once has no connection on which a batch could get lost
    return rates
