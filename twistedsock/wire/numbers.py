"""Numbers in a row as digits, faster than one by one."""

from collections.abc import Iterator, Sequence

_LAST_DIGITS = [b"%03d" % number for number in range(1000)]


def in_thousands(first: int, count: int) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """The numbers from ``first`` on as (what they begin with, what each ends with), a thousand at most at a time: most
    of a row of numbers begins alike, and the ends are always the same. All of one time have the same length."""
    end = first + count
    for most in (10, 100, 1000):
        if first < min(most, end):
            numbers = range(first, min(most, end))
            yield b"", [b"%d" % number for number in numbers]
            first = numbers.stop
    while first < end:
        thousands, last = divmod(first, 1000)
        ends = _LAST_DIGITS[last : last + end - first]
        yield b"%d" % thousands, ends
        first += len(ends)
