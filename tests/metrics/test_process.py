"""What the process costs is asked of the machine."""

from pathlib import Path

from twistedsock.metrics.sys_channels import cpu_seconds, memory_bytes


def test_memory_is_told_in_bytes(tmp_path: Path) -> None:
    """Python alone takes some megabytes; where Linux does not tell what they are now, the most is told."""
    now, most = memory_bytes(), memory_bytes(str(tmp_path / "no such file"))
    assert 5_000_000 < now < 10**10 and 5_000_000 < most < 10**10


def test_time_goes_on() -> None:
    before = cpu_seconds()
    sum(range(10**6))
    assert cpu_seconds() > before > 0
