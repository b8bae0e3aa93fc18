"""What has gone through a connection is a value."""

from twistedsock.stats import TcpStats


def test_traffic_is_compared_by_what_it_tells() -> None:
    assert TcpStats(1, 2, 3, 0.5) == TcpStats(sent=1, received=2, unsent=3, rtt=0.5)
