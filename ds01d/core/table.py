"""A table: id → record, with the indexes that rules ask for. No rule ever scans one."""

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Generic, TypeVar

K = TypeVar("K", bound=str)
V = TypeVar("V")


class Table(Generic[K, V]):
    """Records by id. Each index maps a word to the ids of the records that answer to it, in order of their coming."""

    __slots__ = ("_buckets", "_functions", "_indexes", "_none", "_words", "encoded", "name", "rows")

    def __init__(self, name: str, indexes: Mapping[str, Callable[[V], tuple[Hashable, ...]]] | None = None) -> None:
        self.name = name
        self.rows: dict[K, V] = {}
        #: Each record as JSON, made once when it changes; a snapshot is their join.
        self.encoded: dict[K, bytes] = {}
        self._indexes = dict(indexes or {})
        self._buckets: dict[str, dict[Hashable, dict[K, None]]] = {name: {} for name in self._indexes}
        self._functions = tuple(self._indexes.values())
        #: What each record answers to now, an index after the other.
        self._words: dict[K, tuple[tuple[Hashable, ...], ...]] = {}
        self._none: tuple[tuple[Hashable, ...], ...] = tuple(() for _ in self._indexes)

    def __iter__(self) -> Iterator[V]:
        return iter(self.rows.values())

    def __len__(self) -> int:
        return len(self.rows)

    def get(self, key: K) -> V | None:
        """The record, or None where there is none."""
        return self.rows.get(key)

    def ids(self, index: str, word: Hashable) -> tuple[K, ...]:
        """The ids of the records that answer to this word."""
        return tuple(self._buckets[index].get(word, ()))

    def of(self, index: str, word: Hashable) -> tuple[V, ...]:
        """The records that answer to this word."""
        return tuple([self.rows[key] for key in self._buckets[index].get(word, ())])

    def one(self, index: str, word: Hashable) -> V | None:
        """The record that answers to this word, where the laws allow only one."""
        for key in self._buckets[index].get(word, ()):
            return self.rows[key]
        return None

    def count(self, index: str, word: Hashable) -> int:
        """How many records answer to this word."""
        return len(self._buckets[index].get(word, ()))

    def store(self, key: K, record: V | None) -> V | None:
        """Store or delete, keep the indexes true, and give back what was there before. Only `Tx` calls this."""
        old = self.rows.get(key)
        before = self._words.get(key, self._none)
        after = self._none if record is None else tuple([words(record) for words in self._functions])
        if before != after:
            for buckets, gone, come in zip(self._buckets.values(), before, after, strict=True):
                if gone != come:
                    _move(buckets, key, gone, come)
        if record is None:
            self.rows.pop(key, None)
            self._words.pop(key, None)
        else:
            self.rows[key] = record
            self._words[key] = after
        return old

    def derived(self, index: str) -> dict[Hashable, set[K]]:
        """The index made anew from the records, for the whole-state check to hold against the kept one."""
        made: dict[Hashable, set[K]] = {}
        for key, record in self.rows.items():
            for word in self._indexes[index](record):
                made.setdefault(word, set()).add(key)
        return made

    def kept(self, index: str) -> dict[Hashable, set[K]]:
        """The index as it is kept."""
        return {word: set(bucket) for word, bucket in self._buckets[index].items()}

    @property
    def index_names(self) -> tuple[str, ...]:
        """The names of its indexes."""
        return tuple(self._indexes)


def _move(
    buckets: dict[Hashable, dict[K, None]], key: K, gone: tuple[Hashable, ...], come: tuple[Hashable, ...]
) -> None:
    for word in gone:
        bucket = buckets[word]
        del bucket[key]
        if not bucket:
            del buckets[word]
    for word in come:
        buckets.setdefault(word, {})[key] = None
