"""What the connections of one listener have in common."""

import msgspec


class Listening(msgspec.Struct, frozen=True):
    """Each listener has factories of its own, which hold this. ``endpoint`` is its endpoint string as configured, ""
    where there is none."""

    endpoint: str = ""


NOWHERE = Listening()
"""Of connections that no listener of ours accepted."""
