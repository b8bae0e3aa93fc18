"""Prints a day of a thermometer as JSON lines, a reading each minute until now, for a server with --state:

    python3 examples/thermometer_day.py >day.jsonl
    sockbridge state DIR import kitchen day.jsonl

The server must be stopped meanwhile. The readings are invented: write those that you have in the same way. It needs
only Python's standard library.
"""

import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

MINUTES = 24 * 60


def celsius(moment: datetime) -> float:
    """Coldest at five in the morning, and warmer for an hour at noon and at seven, when the stove is on."""
    hour = moment.hour + moment.minute / 60
    warmth = 20.5 - 2.5 * math.cos((hour - 5) / 12 * math.pi)
    for meal, degrees in ((12.5, 1.2), (19, 2.0)):
        warmth += degrees * math.exp(-(((hour - meal) / 0.6) ** 2))
    return round(warmth + 0.1 * math.sin(moment.minute * 1.7), 1)


def readings(end: datetime) -> Iterator[tuple[datetime, float]]:
    """In the order of their times, which cannot decrease in a channel."""
    for minutes in range(MINUTES - 1, -1, -1):
        moment = end - timedelta(minutes=minutes)
        yield moment, celsius(moment)


def main() -> None:
    for moment, degrees in readings(datetime.now(UTC)):
        time = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        print(json.dumps({"time": time, "from": "thermometer", "name": "message", "data": {"celsius": degrees}}))


if __name__ == "__main__":
    main()
