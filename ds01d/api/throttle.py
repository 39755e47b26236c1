"""Limits per uid: how many requests at once, how many a second, how many connections. A limit on everything."""

from collections.abc import Callable

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

    def running(self, uid: int) -> "Counted":
        """One request under way."""
        return Counted(self._running, uid, self._limits.concurrent_per_uid, "requests at once")

    def watching(self, uid: int) -> "Counted":
        """One event stream."""
        return Counted(self._watching, uid, self._limits.watchers_per_uid, "event streams at once")

    def carrying(self, uid: int) -> "Carried":
        """One request or answer on its way: tell its size, piece by piece; where there is no room it is refused."""
        return Carried(self._carried, uid, self._limits.carried_per_uid)

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


# Classes, and not generators with `contextmanager`: all of them together are a tenth of what a small request costs.


class Counted:
    """One more of what a uid may have only so many of, until left."""

    __slots__ = ("_counts", "_most", "_uid", "_words")

    def __init__(self, counts: dict[int, int], uid: int, most: int, words: str) -> None:
        self._counts, self._uid, self._most, self._words = counts, uid, most, words

    def __enter__(self) -> None:
        """Count it, or refuse."""
        had = self._counts.get(self._uid, 0)
        if had >= self._most:
            words = f"cannot take this: you have {self._most} {self._words} already"
            raise TooMany(words, hint="wait until one of them is over")
        self._counts[self._uid] = had + 1

    def __exit__(self, *_: object) -> None:
        """It is over."""
        _less(self._counts, self._uid)


class Carried:
    """What one request or answer holds of the bytes that a uid may have on their way, until left."""

    __slots__ = ("_all", "_mine", "_most", "_uid")

    def __init__(self, all_: dict[int, int], uid: int, most: int) -> None:
        self._all, self._uid, self._most = all_, uid, most
        self._mine = 0

    def __enter__(self) -> Callable[[int], None]:
        """Tell it the size of each piece."""
        return self._carry

    def __exit__(self, *_: object) -> None:
        """It is not on its way any more."""
        if self._mine:
            _less(self._all, self._uid, self._mine)

    def _carry(self, size: int) -> None:
        all_ = self._all.get(self._uid, 0)
        others = all_ - self._mine
        if others and self._mine + size > _SMALL_BYTES and all_ + size > self._most:
            raise TooMany(
                f"cannot carry more for you now: {self._most} bytes are the limit at once",
                hint="read the answers that wait for you, and send large requests one by one",
            )
        self._mine += size
        self._all[self._uid] = all_ + size


def _less(counts: dict[int, int], uid: int, by: int = 1) -> None:
    counts[uid] -= by
    if not counts[uid]:
        del counts[uid]
