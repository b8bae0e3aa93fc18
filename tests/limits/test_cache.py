"""A cache that is scanned in a circle keeps most of its values."""

from twistedsock.limits.cache import ADMITTED_ONE_IN, Cache


def misses(cache: Cache[int, str], keys: range) -> int:
    """How many of the keys were not there, when each is used once."""
    missing = 0
    for key in keys:
        if cache.get(key) is None:
            missing += 1
            cache.add(key, str(key))
    return missing


def test_holds_values_up_to_the_limit() -> None:
    cache = Cache[int, str](10)
    assert [misses(cache, range(10)) for _ in range(3)] == [10, 0, 0]
    assert cache[3] == "3"


def test_hit_rate_is_near_the_optimum_for_keys_used_in_turn() -> None:
    """At best a tenth is missing in each round; LRU would find none."""
    cache = Cache[int, str](100)
    misses(cache, range(110))
    rounds = [misses(cache, range(110)) for _ in range(50)]
    assert sum(rounds) < 50 * 15 and len(cache) == 100


def test_adapts_to_other_keys() -> None:
    cache = Cache[int, str](10)
    misses(cache, range(10))
    for _ in range(ADMITTED_ONE_IN * 10):
        misses(cache, range(100, 110))
    assert misses(cache, range(100, 110)) == 0 and len(cache) == 10
