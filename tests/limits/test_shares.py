"""Fair shares of a table: one client alone can use all of it; with several, none below its share is refused."""

import random

import pytest

from twistedsock.limits.shares import MIN_GUARANTEED_SHARE, EvictionQueue, Shares, guaranteed_share, with_reserve

A, B, C = b"@192.0.2.1", b"@192.0.2.2", b"=carol"


def test_counts_what_each_principal_holds() -> None:
    shares = Shares(100)
    shares.add(A, 3)
    shares.add(B, 5)
    shares.add(A, 1)
    shares.add(A, 0)
    assert (shares.of(A), shares.of(B), shares.of(C)) == (4, 5, 0)
    assert shares.total == 9 and len(shares) == 2 and shares.fair_share == 50
    shares.add(A, -4)
    assert len(shares) == 1 and shares.of(A) == 0 and shares.total == 5 and shares.largest() == B
    shares.add(B, -5)
    assert len(shares) == 0 and shares.fair_share == 100 and list(shares.largest_first()) == []


def test_a_principal_alone_can_use_the_whole_table() -> None:
    shares = Shares(1_000)
    for _ in range(1_000):
        assert shares.admits(A)
        shares.add(A, 1)
    assert not shares.admits(A)


def test_the_guaranteed_share_is_kept_when_another_principal_has_filled_the_table() -> None:
    shares = Shares(100_000)
    shares.add(A, 100_000)
    assert not shares.admits(A)
    for number in range(62):
        principal = b"@%d" % number
        for _ in range(guaranteed_share(100_000)):
            assert shares.admits(principal)
            shares.add(principal, 1)
    assert shares.total == 106_200
    assert not shares.admits(A)


def test_half_of_the_reserve_is_for_principals_below_the_average() -> None:
    shares = Shares(100_000)
    shares.add(A, 100_000)
    assert shares.admits(B, 6_250) and not shares.admits(B, 6_251)
    shares.add(B, 6_250)
    assert not shares.admits(B)
    assert shares.admits(C, 100) and not shares.admits(C, 101)
    shares.add(C, 6_250)
    assert shares.total == with_reserve(100_000)
    assert not any(shares.admits(principal) for principal in (A, B, C, b"@new"))


def test_a_principal_above_the_average_gets_nothing_of_the_reserve() -> None:
    shares = Shares(1_000)
    shares.add(A, 600)
    shares.add(B, 400)
    assert not shares.admits(A) and shares.admits(B)
    shares.add(B, -100)
    assert shares.admits(A, 100) and not shares.admits(A, 101)


def test_small_tables_guarantee_a_few() -> None:
    assert guaranteed_share(100) == MIN_GUARANTEED_SHARE
    shares = Shares(7)
    shares.add(A, 7)
    assert not shares.admits(A) and not shares.admits(B), "there is no reserve"


@pytest.mark.parametrize("seed", range(20))
def test_largest_first_after_any_changes(seed: int) -> None:
    chance, shares, held = random.Random(seed), Shares(1_000), dict[bytes, int]()
    for _ in range(500):
        principal = b"@%d" % chance.randrange(40)
        amount = chance.randrange(100) if chance.random() < 0.6 else -min(held.get(principal, 0), chance.randrange(200))
        shares.add(principal, amount)
        held[principal] = held.get(principal, 0) + amount
        sizes = sorted((size for size in held.values() if size), reverse=True)
        assert [shares.of(each) for each in shares.largest_first()] == sizes
        assert shares.total == sum(sizes) and len(shares) == len(sizes)
        if sizes:
            assert shares.of(shares.largest()) == sizes[0]


@pytest.mark.parametrize("seed", range(5))
def test_never_refuses_a_principal_below_its_share(seed: int) -> None:
    chance, shares = random.Random(seed), Shares(8_000)
    greedy = [b"=%d" % number for number in range(chance.randrange(1, 30))]
    modest = [b"@%d" % number for number in range(60)]
    share = guaranteed_share(8_000)
    for _ in range(15_000):
        principal = chance.choice(greedy if chance.random() < 0.9 else modest)
        if principal in greedy:
            amount = chance.choice((1, 1, 1, 50))
            if shares.admits(principal, amount):
                shares.add(principal, amount)
        elif shares.of(principal) < share:
            assert shares.admits(principal), (principal, shares.of(principal), shares.total)
            shares.add(principal, 1)
        else:
            shares.add(principal, -share)
    assert shares.total >= 8_000, "the table was full"
    assert shares.total <= with_reserve(8_000)


def test_oldest_entry_of_the_largest_principal_is_dropped_first() -> None:
    entries = EvictionQueue[str](10)
    for principal, entry, size in ((A, "a1", 2), (B, "b1", 4), (A, "a2", 3), (B, "b2", 1)):
        entries.add(principal, entry, size)
    assert not entries.is_full and entries.next_victim() == "a1" and entries.oldest_of(B) == "b1"
    entries.shares.add(B, 1)
    assert entries.is_full and entries.next_victim() == "b1"
    entries.remove(B, "b1", 4)
    entries.remove(A, "a2", 3)
    assert entries.next_victim() == "b2" or entries.shares.of(A) == entries.shares.of(B) == 2
    entries.remove(B, "b2", 2)
    entries.remove(A, "a1", 2)
    assert entries.shares.total == 0 and len(entries.shares) == 0
