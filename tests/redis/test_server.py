"""The report of a server about itself."""

import pytest

from twistedsock.redis.server import Server, Unusable, examine, find_dangers, pairs, parse_info

FENCE = "a" * 40

GOOD = {
    "redis_version": "7.0.15",
    "redis_mode": "standalone",
    "run_id": "b" * 40,
    "loading": "0",
    "role": "master",
    "master_replid": FENCE,
}


def test_reads_the_fields_of_info() -> None:
    info = parse_info(b"# Server\r\nredis_version:7.0.15\r\nos:Linux 6.1: x\r\n\r\n# Other\r\n\xff:1\r\n")
    assert info == {"redis_version": "7.0.15", "os": "Linux 6.1: x", "\ufffd": "1"}


def test_a_good_server_can_be_used() -> None:
    assert examine(GOOD) == Server("Redis 7.0.15", FENCE.encode(), b"b" * 40)
    assert examine({**GOOD, "redis_version": "7.2.4", "valkey_version": "9.1.2"}).name == "Valkey 9.1.2"
    assert examine({**GOOD, "redis_version": "6.2.0"}).name == "Redis 6.2.0"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"redis_version": "6.0.16"}, "Redis 6.0.16 is too old"),
        ({"redis_version": ""}, "Redis of unknown version is too old"),
        ({"redis_mode": "cluster"}, "Redis 7.0.15 is a node of a Cluster: use an address such as"),
        ({"redis_mode": "sentinel"}, "this is a Sentinel: use an address such as"),
        ({"loading": "1"}, "Redis 7.0.15 is loading its data"),
        ({"role": "slave"}, "the server is a replica"),
        ({"master_replid": ""}, "the server, or a proxy before it, hides master_replid"),
        ({"master_replid": "0" * 40}, "the server, or a proxy before it, hides master_replid"),
        ({"master_replid": "?"}, "the server, or a proxy before it, hides master_replid"),
    ],
)
def test_other_servers_are_refused_in_words(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(Unusable, match=f"^{reason}"):
        examine({**GOOD, **changes})


def test_a_node_of_a_cluster_can_be_used_where_one_is_expected() -> None:
    node = {**GOOD, "redis_mode": "cluster"}
    assert examine(node, is_cluster=True).has_shard_topics
    assert not examine({**node, "redis_version": "6.2.14"}, is_cluster=True).has_shard_topics
    with pytest.raises(Unusable, match="is not a node of a Cluster"):
        examine(GOOD, is_cluster=True)


SAFE = {
    "maxmemory": "1000",
    "maxmemory-policy": "noeviction",
    "save": "3600 1 300 100",
    "appendonly": "yes",
    "min-replicas-to-write": "1",
    "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
}


def test_safe_settings_are_not_reported() -> None:
    assert find_dangers(SAFE, True) == []
    assert find_dangers({}, True) == []  # a server that does not show its settings
    assert find_dangers({**SAFE, "maxmemory": "0", "maxmemory-policy": "allkeys-lru"}, True) == []
    assert find_dangers({**SAFE, "client-output-buffer-limit": "pubsub 0 0 0"}, True) == []


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"maxmemory-policy": "allkeys-lru"}, "maxmemory-policy is allkeys-lru: when memory is full"),
        ({"save": "", "appendonly": "no"}, "neither save nor appendonly is on: a restart of Redis loses all events"),
        ({"appendonly": "no"}, "appendonly is off: a crash of Redis loses the events since its last snapshot"),
        ({"min-replicas-to-write": "0"}, "min-replicas-to-write is 0: a master that has lost its replicas accepts"),
        ({"client-output-buffer-limit": "pubsub 65536 0 0"}, "client-output-buffer-limit pubsub is 65536 bytes"),
    ],
)
def test_dangerous_settings_are_reported_in_words(changes: dict[str, str], start: str) -> None:
    (danger,) = find_dangers({**SAFE, **changes}, True)
    assert danger.startswith(start)


def test_replicas_are_missed_only_where_one_can_become_the_master() -> None:
    assert find_dangers({**SAFE, "min-replicas-to-write": "0"}, False) == []


def test_reads_replies_to_config_get() -> None:
    assert pairs({b"save": b"3600 1"}) == {"save": "3600 1"}
    assert pairs(ValueError("NOPERM")) == {}
