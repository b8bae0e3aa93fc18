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


def test_it_holds_all_that_there_is_room_for() -> None:
    cache = Cache[int, str](10)
    assert [misses(cache, range(10)) for _ in range(3)] == [10, 0, 0]
    assert cache[3] == "3"


def test_keys_in_a_circle_longer_than_the_cache_are_found_about_as_often_as_they_can_be() -> None:
    """At best a tenth is missing in each round; LRU would find none."""
    cache = Cache[int, str](100)
    misses(cache, range(110))
    rounds = [misses(cache, range(110)) for _ in range(50)]
    assert sum(rounds) < 50 * 15 and len(cache) == 100


def test_it_follows_a_change_of_the_keys() -> None:
    cache = Cache[int, str](10)
    misses(cache, range(10))
    for _ in range(ADMITTED_ONE_IN * 10):
        misses(cache, range(100, 110))
    assert misses(cache, range(100, 110)) == 0 and len(cache) == 10
