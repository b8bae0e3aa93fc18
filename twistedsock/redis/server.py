"""The report of a server about itself: whether it can be used, and which settings are dangerous."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

OLDEST_VERSION = (6, 2)
"""XTRIM MINID and exclusive ranges are new in Redis 6.2."""

CHECKED_SETTINGS = (
    "maxmemory",
    "maxmemory-policy",
    "save",
    "appendonly",
    "client-output-buffer-limit",
    "min-replicas-to-write",
)

MIN_PUBSUB_BYTES = 16 * 1024 * 1024
"""A node that was busy for a moment can have that much to read."""


class Server(Struct, frozen=True):
    """``name`` is for people. ``fence`` names the run: it changes with each start and each promotion of a replica.
    ``process`` is the random id of the process. ``has_shard_topics`` means that it is a node of a Cluster whose
    messages go only to the clients of the server with the slot."""

    name: str
    fence: bytes
    process: bytes
    has_shard_topics: bool = False


class Unusable(Exception):
    """The server cannot be used. The message is a sentence for the operator."""


def parse_info(reply: bytes) -> dict[str, str]:
    """The fields of a reply to INFO."""
    lines = [line.partition(":") for line in reply.decode("utf-8", "replace").splitlines()]
    return {name: value for name, colon, value in lines if colon}


def examine(info: Mapping[str, str], is_cluster: bool = False) -> Server:
    """``is_cluster`` means that a node of a Cluster is expected. Raises Unusable."""
    version = info.get("redis_version", "")
    numbers = [int(part) if part.isdigit() else 0 for part in version.split(".")[:2]]
    name = (
        f"Valkey {info['valkey_version']}" if "valkey_version" in info else f"Redis {version or 'of unknown version'}"
    )
    if tuple(numbers) < OLDEST_VERSION:
        raise Unusable(f"{name} is too old: Redis 6.2 or newer, or Valkey, is required")
    if info.get("redis_mode") == "cluster" and not is_cluster:
        raise Unusable(f"{name} is a node of a Cluster: use an address such as redis+cluster://host1:6379,host2:6379")
    if info.get("redis_mode") == "standalone" and is_cluster:
        raise Unusable(f"{name} is not a node of a Cluster: use an address such as redis://host:6379/0")
    if info.get("redis_mode") == "sentinel":
        raise Unusable("this is a Sentinel: use an address such as redis+sentinel://host:26379/mymaster")
    if info.get("loading", "0") not in ("0", ""):
        raise Unusable(f"{name} is loading its data")
    fence = read_fence(info)
    return Server(name, fence, info.get("run_id", "").encode(), is_cluster and tuple(numbers) >= (7, 0))


def without_info(reply: Exception) -> Unusable:
    """What an error reply to INFO means."""
    return Unusable(
        f"the server does not answer INFO ({reply}), and so hides master_replid: without it, events that the server "
        "loses would be lost without notice; allow the user +info, or use another server"
    )


def read_fence(info: Mapping[str, str]) -> bytes:
    """The name of the run. Raises Unusable."""
    if info.get("role") != "master":
        raise Unusable("the server is a replica: use the address of its master")
    fence = info.get("master_replid", "")
    if len(fence) < 8 or not fence.isalnum() or not fence.strip("0"):
        raise Unusable(
            "the server, or a proxy before it, hides master_replid in INFO replication: without it, events that the "
            "server loses in a restart or a failover would be lost without notice; use a server that reports it"
        )
    return fence.encode()


def find_dangers(settings: Mapping[str, str], has_replicas: bool) -> list[str]:
    """The dangers of the server's settings, as sentences. Settings that are not known are not judged. ``has_replicas``
    means that a replica can become the master."""
    dangers = []
    if has_replicas and settings.get("min-replicas-to-write", "1") == "0":
        dangers.append(
            "min-replicas-to-write is 0: a master that has lost its replicas accepts events that are lost when one of "
            "them becomes the master, and clients receive RESET; min-replicas-to-write 1 makes it reject them"
        )
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy != "noeviction" and settings.get("maxmemory", "0") != "0":
        dangers.append(
            f"maxmemory-policy is {policy}: when memory is full, Redis deletes histories, and clients receive RESET; "
            "noeviction makes it reject publications instead"
        )
    if settings.get("save", "3600 1") == "" and settings.get("appendonly", "yes") == "no":
        dangers.append(
            "neither save nor appendonly is on: a restart of Redis loses all events, and clients receive RESET; "
            "appendonly yes keeps them"
        )
    elif settings.get("appendonly", "yes") == "no":
        dangers.append(
            "appendonly is off: a crash of Redis loses the events since its last snapshot, and clients receive RESET; "
            "appendonly yes loses at most the last second"
        )
    limits = settings.get("client-output-buffer-limit", "").split()
    if "pubsub" in limits[:-1]:
        hard = limits[limits.index("pubsub") + 1]
        if hard.isdigit() and 0 < int(hard) < MIN_PUBSUB_BYTES:
            dangers.append(
                f"client-output-buffer-limit pubsub is {hard} bytes: Redis disconnects a server that is busy for a "
                f"moment, and it has to read all channels again; use {MIN_PUBSUB_BYTES} bytes or more"
            )
    return dangers


def pairs(reply: Any) -> dict[str, str]:
    """A reply to CONFIG GET as text; empty if the server does not allow that command."""
    if not isinstance(reply, dict):
        return {}
    return {name.decode(): value.decode("utf-8", "replace") for name, value in reply.items()}
