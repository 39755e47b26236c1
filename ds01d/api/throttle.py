"""Limits per uid: how many requests at once, how many a second, how many connections. A limit on everything."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from ds01d.model.errors import TooMany

#: A request or an answer of so many bytes is carried in any case: there are only so many connections.
_SMALL_BYTES = 2**14


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers; times in seconds, sizes in bytes."""

    body: int = 2**20
    batch: int = 20
    concurrent_per_uid: int = 32
    per_second: float = 200.0
    burst: float = 400.0
    connections: int = 512
    connections_per_uid: int = 64
    #: For root, above the number for all: an operator gets in however many connections others hold.
    connections_for_root: int = 32
    watchers_per_uid: int = 8
    #: Of one uid's requests and answers, as long as they are on their way. One is taken whatever its size.
    carried_per_uid: int = 2**20
    head_s: float = 15.0
    body_s: float = 10.0
    #: For the caller to take an answer.
    answer_s: float = 30.0
    #: Without an event, until an empty line shows that a stream lives, and whether its reader does.
    quiet_s: float = 15.0


class Throttle:
    """Counts what each uid has going on."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._clock = clock
        #: uid → (tokens left, when that was true).
        self._buckets: dict[int, tuple[float, float]] = {}
        self._running: dict[int, int] = {}
        self._watching: dict[int, int] = {}
        self._connected: dict[int, int] = {}
        self._carried: dict[int, int] = {}

    def spend(self, uid: int, price: int = 1) -> None:
        """Take the price of a request, that of one call where nothing else is said, or refuse."""
        limits, now = self._limits, self._clock()
        left, at = self._buckets.get(uid, (limits.burst, now))
        left = min(limits.burst, left + (now - at) * limits.per_second)
        if left < price:
            self._buckets[uid] = (left, now)
            raise TooMany(
                f"cannot take more requests of yours now: {limits.per_second:g} a second is the limit",
                hint="wait a second; to follow what happens, read GET /events instead of asking again and again",
            )
        self._buckets[uid] = (left - price, now)

    @contextmanager
    def running(self, uid: int) -> Iterator[None]:
        """One request under way."""
        with self._one(self._running, uid, self._limits.concurrent_per_uid, "requests at once"):
            yield

    @contextmanager
    def watching(self, uid: int) -> Iterator[None]:
        """One event stream."""
        with self._one(self._watching, uid, self._limits.watchers_per_uid, "event streams at once"):
            yield

    @contextmanager
    def carrying(self, uid: int) -> Iterator[Callable[[int], None]]:
        """One request or answer on its way: tell its size, piece by piece; where there is no room it is refused."""
        mine = 0

        def carry(size: int) -> None:
            nonlocal mine
            all_ = self._carried.get(uid, 0)
            others = all_ - mine
            if others and mine + size > _SMALL_BYTES and all_ + size > self._limits.carried_per_uid:
                raise TooMany(
                    f"cannot carry more for you now: {self._limits.carried_per_uid} bytes are the limit at once",
                    hint="read the answers that wait for you, and send large requests one by one",
                )
            mine += size
            self._carried[uid] = all_ + size

        try:
            yield carry
        finally:
            if mine:
                self._carried[uid] -= mine
                if not self._carried[uid]:
                    del self._carried[uid]

    @property
    def connection_count(self) -> int:
        """How many connections there are."""
        return sum(self._connected.values())

    def connect(self, uid: int) -> bool:
        """Count a connection in, where there is room for it."""
        limits = self._limits
        room = limits.connections + (limits.connections_for_root if uid == 0 else 0)
        if self.connection_count >= room or not self.has_own_room(uid):
            return False
        self._connected[uid] = self._connected.get(uid, 0) + 1
        return True

    def has_own_room(self, uid: int) -> bool:
        """Whether it is not this uid's own connections that leave no room for another."""
        limits = self._limits
        own = limits.connections_per_uid + (limits.connections_for_root if uid == 0 else 0)
        return self._connected.get(uid, 0) < own

    def disconnect(self, uid: int) -> None:
        """Count it out again."""
        _less(self._connected, uid)

    @contextmanager
    def _one(self, counts: dict[int, int], uid: int, most: int, words: str) -> Iterator[None]:
        if counts.get(uid, 0) >= most:
            raise TooMany(f"cannot take this: you have {most} {words} already", hint="wait until one of them is over")
        counts[uid] = counts.get(uid, 0) + 1
        try:
            yield
        finally:
            _less(counts, uid)


def _less(counts: dict[int, int], uid: int) -> None:
    counts[uid] -= 1
    if not counts[uid]:
        del counts[uid]
