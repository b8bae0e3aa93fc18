"""Builds the backplanes that outlive this process, a directory or a Redis server, from the settings."""

import os
import random
import secrets
import socket
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from twistedsock.config import Settings, SettingsError
from twistedsock.pubsub.names import pattern

if TYPE_CHECKING:
    from twistedsock.redis.backplane import RedisBackplane

_ID_LETTERS = b"abcdefghjkmnpqrstuvwxyz23456789"
"""31 characters that are hard to confuse."""

_LETTER_OF_BYTE = bytes([_ID_LETTERS[byte % 31] for byte in range(256)])

_NO_LETTER = bytes(range(8 * 31, 256))
"""Bytes that are dropped, so that all letters are equally likely."""

_RANDOM_BYTES = 1024
"""Random bytes that are taken from the system at a time, because each time is a system call."""

_letters = bytearray()
"""Random letters that are not part of an id yet."""

os.register_at_fork(after_in_child=_letters.clear)

ID_LENGTH = 5
"""28 million ids, so that collisions are rare."""

_NODE_NAME_LENGTH = 6
"""900 million names: of a thousand servers, two have the same one with a probability of 0.06 %."""

PASSWORD_VARIABLE = "SOCKBRIDGE_BACKPLANE_PASSWORD"
"""The environment variable with the password of Redis."""

SENTINEL_PASSWORD_VARIABLE = "SOCKBRIDGE_BACKPLANE_SENTINEL_PASSWORD"
"""The environment variable with the password of the Sentinels."""


def draw_id(length: int = ID_LENGTH) -> bytes:
    """Return a random client id."""
    if len(_letters) < length:
        _letters.extend(os.urandom(_RANDOM_BYTES).translate(_LETTER_OF_BYTE, _NO_LETTER))
    id = bytes(_letters[-length:])
    del _letters[-length:]
    return id


def draw_epoch() -> bytes:
    """Return a random epoch for the offsets of a channel."""
    return secrets.token_hex(4).encode()


class State:
    """The directory of ``--state``, and the backplane that keeps events in it. SQLite is loaded only where it is used:
    it takes memory, and some builds of Python lack it. ``present_settings`` returns those after reloads.
    ``on_change`` is called when the directory has failed, and when it works again."""

    _log = Logger()

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        present_settings: Callable[[], Settings],
        on_change: Callable[[], object] | None = None,
    ) -> None:
        from twistedsock.backplanes.sqlite import TRIM_SECONDS, SQLiteBackplane
        from twistedsock.backplanes.sqlite_store import Store
        from twistedsock.backplanes.sqlite_thread import StoreThread

        self.trim_seconds = TRIM_SECONDS
        self._present_settings = present_settings
        self._on_change = on_change
        report_damage = partial(reactor.callFromThread, self._log_damage)
        store = Store(Path(settings.state), draw_epoch, report_damage, syncs_later=settings.state_sync == "1s")
        worker = StoreThread(store, reactor.callFromThread)
        self.backplane = SQLiteBackplane(worker, draw_epoch, settings, time.time, reactor.callLater, self._log_error)

    def trim(self) -> None:
        """Delete events that are too old, or too many. Call this every ``trim_seconds``."""
        settings = self._present_settings()
        ages = [(pattern(text), table.age_seconds) for text, table in settings.channels.items()]
        self.backplane.trim(settings.state_age, settings.state_bytes, ages)

    def _log_damage(self, sentence: str) -> None:
        self._log.warn("state: {sentence}", sentence=sentence)

    def _log_error(self, error: Exception | None) -> None:
        if error is None:
            self._log.info("state: the directory can be used again")
        else:
            self._log.error("state: {error}: publications are rejected until this works again", error=error)
        if self._on_change is not None:
            self._on_change()


def check_state(settings: Settings) -> None:
    """Raise OSError if the directory of ``--state`` cannot be opened."""
    if settings.state:
        from twistedsock.backplanes.sqlite_store import Store

        store = Store(Path(settings.state), draw_epoch, lambda sentence: None)
        try:
            store.open()
        finally:
            store.close()


def build_redis(settings: Settings, reactor: Any) -> "RedisBackplane":
    """The backplane of ``--backplane``. Raises SettingsError if hiredis is missing."""
    # Loaded only where it is used: it takes memory, and is an optional dependency.
    try:
        import_module("hiredis")
    except ImportError:
        raise SettingsError("backplane: requires hiredis: pip install 'sockbridge[redis]'") from None
    from twistedsock.redis.address import parse_address
    from twistedsock.redis.backplane import RedisBackplane
    from twistedsock.redis.cluster import ClusterShards
    from twistedsock.redis.connection import Surroundings, Timing
    from twistedsock.redis.link import LogReporter, RedisLink
    from twistedsock.redis.sentinel import Sentinels
    from twistedsock.redis.shards import OneShard, Shards
    from twistedsock.redis.wire import Names

    address, reporter, timing = parse_address(settings.backplane), LogReporter(), Timing()
    surroundings = Surroundings(reactor, random.random, timing)

    def read_password(file: str, variable: str) -> str:
        return Path(file).read_text().strip() if file else os.environ.get(variable, "")

    read = partial(read_password, settings.backplane_password_file, PASSWORD_VARIABLE)
    names, name = Names(address.database, bool(address.nodes)), draw_id(_NODE_NAME_LENGTH)
    shards: Shards
    if address.nodes:
        shards = ClusterShards(address, names, read, surroundings, reporter)
    else:
        locator = None
        if address.sentinels:
            read_other = partial(read_password, settings.backplane_sentinel_password_file, SENTINEL_PASSWORD_VARIABLE)
            locator = Sentinels(address, read_other, surroundings, reporter)
        link = RedisLink(address, read, surroundings, reporter, locator)
        shards = OneShard(link, reactor.callLater, reporter.danger)
    return RedisBackplane(
        shards, name, names, settings, reactor.callLater, reporter.danger, draw_epoch, timing, socket.gethostname()
    )
