"""What has gone through a connection is a value."""

from twistedsock.core.traffic import Traffic


def test_traffic_is_compared_by_what_it_tells() -> None:
    assert Traffic(1, 2, 3, 0.5) == Traffic(sent=1, received=2, unsent=3, rtt=0.5)
