"""Who people are, as NSS says: accounts and groups, asked in threads, with a deadline and a memory. Judges nobody.

NSS may be a file, or a server far away that hangs for minutes. A few threads ask, so that a question which hangs holds
up no other: root is found in a file while somebody else's name is not. Whoever waits has an answer within the deadline:
a fresh one, or the last one that there ever was, or *silent*; what hung beyond it is waited for no more. That a name
does not exist is an answer, that nobody answered is not, and the two are never confused.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Protocol, TypeVar, cast

import msgspec

from ds01d.adapters.accounts_nss import System, UnixGroup
from ds01d.model.account import Account, Missing
from ds01d.model.ids import Uid

T = TypeVar("T")

_DEADLINE_S = 2.0
#: An answer counts as fresh for so long.
_FRESH_S = 300.0
#: That there is no such thing is asked again sooner: accounts are made while people wait.
_FRESH_MISSING_S = 10.0
#: Answers remembered; beyond it the oldest are forgotten.
_MEMORY_MAX = 20_000
#: Threads that ask; once all of them hang, whoever comes is answered from memory.
_THREADS_MAX = 8
#: Questions waiting for a thread; more are answered from memory.
_WAITING_MAX = 1_000


class Nss(Protocol):
    """The C library's look-ups; may block for ever. LookupError: no such; OSError: no answer."""

    def user_by_uid(self, uid: Uid) -> Account:
        """As getpwuid does."""
        ...

    def user_by_name(self, name: str) -> Account:
        """As getpwnam does."""
        ...

    def users(self) -> tuple[Account, ...]:
        """getpwent, as far as the directory lets itself be listed."""
        ...

    def group_by_name(self, name: str) -> UnixGroup:
        """As getgrnam does."""
        ...

    def groups_of(self, account: Account) -> tuple[str, ...]:
        """getgrouplist, as names; a gid without a name is left out."""
        ...


class _Answer(msgspec.Struct, frozen=True):
    value: object
    at: float


class _Question:
    """Something asked of NSS and not yet answered; several may wait for it."""

    __slots__ = ("asked_at", "done", "key", "work")

    def __init__(self, key: tuple[object, ...], work: Callable[[], object]) -> None:
        self.key = key
        self.work = work
        #: Done when the memory has what came of it.
        self.done: Future[None] = Future()
        self.asked_at = time.monotonic()


class Accounts:
    """NSS with a memory. The `async` methods are for the doors, those that `find` are for threads: they block."""

    def __init__(self, nss: Nss | None = None, *, deadline_s: float = _DEADLINE_S, fresh_s: float = _FRESH_S) -> None:
        self._nss = nss if nss is not None else System()
        self._deadline_s = deadline_s
        self._fresh_s = fresh_s
        self._memory: dict[tuple[object, ...], _Answer] = {}
        self._asked: dict[tuple[object, ...], _Question] = {}
        self._lock = threading.Lock()
        self._questions: queue.SimpleQueue[_Question] = queue.SimpleQueue()
        #: Threads there are, and when those that are busy took up what they ask.
        self._threads = 0
        self._busy: dict[int, float] = {}

    async def by_uid(self, uid: Uid) -> Account | Missing:
        """The account of a uid."""
        return await self._ask(("uid", uid), lambda: self._nss.user_by_uid(uid))

    async def by_name(self, name: str) -> Account | Missing:
        """The account of a name, as NSS spells it."""
        return await self._ask(("name", name), lambda: self._nss.user_by_name(name))

    async def group_id(self, name: str) -> int | Missing:
        """The gid of a group."""
        found = await self._ask(("group", name), lambda: self._nss.group_by_name(name))
        return found if isinstance(found, Missing) else found.gid

    async def groups_of(self, account: Account) -> tuple[str, ...] | Missing:
        """Names of the groups an account is in now."""
        return await self._ask(("groups", account.name, account.gid), lambda: self._nss.groups_of(account))

    def find_name(self, name: str) -> Account | Missing:
        """The account of a name; blocks."""
        return self._find(("name", name), lambda: self._nss.user_by_name(name))

    def find_group_id(self, name: str) -> int | Missing:
        """The gid of a group; blocks."""
        found = self._find(("group", name), lambda: self._nss.group_by_name(name))
        return found if isinstance(found, Missing) else found.gid

    def find_members(self, group: str) -> frozenset[Uid] | Missing:
        """Who is in a Unix group: its list, those whose primary group it is, and whoever was seen here and is in it.

        Many directories do not let themselves be listed; the last part is for those. Blocks.
        """
        found = self._find(("group", group), lambda: self._nss.group_by_name(group))
        if isinstance(found, Missing):
            return found
        uids = set()
        for name in found.members:
            member = self.find_name(name)
            if member is Missing.SILENT:
                return Missing.SILENT
            if isinstance(member, Account):
                uids.add(member.uid)
        listed = self._find(("users", None), self._nss.users)
        if isinstance(listed, Missing):
            return listed
        for account in (*listed, *self._seen()):
            if account.gid == found.gid:
                uids.add(account.uid)
        for account in self._seen():
            groups = self._find(("groups", account.name, account.gid), lambda a=account: self._nss.groups_of(a))  # type: ignore[misc]  # mypy does not infer a lambda's default
            if not isinstance(groups, Missing) and group in groups:
                uids.add(account.uid)
        return frozenset(uids)

    def name_of(self, uid: Uid) -> str | None:
        """The name of a uid as far as it is known now; never blocks, and asks so that it is known later."""
        key = ("uid", uid)
        known = self._recall(key)
        if known is None or not self._is_fresh(known):
            self._begin(key, lambda: self._nss.user_by_uid(uid))
        return known.value.name if known is not None and isinstance(known.value, Account) else None

    async def _ask(self, key: tuple[object, ...], work: Callable[[], T]) -> T | Missing:
        known = self._recall(key)
        if known is None or not self._is_fresh(known):
            question = self._begin(key, work)
            patience_s = self._patience_s(question)
            if question is not None and patience_s > 0:
                await asyncio.wait({asyncio.wrap_future(question.done)}, timeout=patience_s)
                known = self._recall(key)
        return _answer(known)

    def _find(self, key: tuple[object, ...], work: Callable[[], T]) -> T | Missing:
        known = self._recall(key)
        if known is None or not self._is_fresh(known):
            question = self._begin(key, work)
            if question is not None:
                wait({question.done}, timeout=self._patience_s(question))
                known = self._recall(key)
        return _answer(known)

    def _patience_s(self, question: _Question | None) -> float:
        """How long an answer is still worth waiting for."""
        if question is None:
            return 0.0
        with self._lock:
            begun = max(self._busy.values(), default=0.0)
            stuck = len(self._busy) == _THREADS_MAX and time.monotonic() - begun > self._deadline_s
        return 0.0 if stuck else max(0.0, question.asked_at + self._deadline_s - time.monotonic())

    def _begin(self, key: tuple[object, ...], work: Callable[[], object]) -> _Question | None:
        """Put a question to the threads, unless it is asked already; None: there are too many."""
        with self._lock:
            question = self._asked.get(key)
            if question is None:
                if len(self._asked) >= _WAITING_MAX:
                    return None
                question = self._asked[key] = _Question(key, work)
                self._questions.put(question)
                if self._threads < min(len(self._asked), _THREADS_MAX):
                    self._threads += 1
                    # Not an executor: its threads would be waited for at exit, and these may hang in a dead server.
                    threading.Thread(target=self._work, name=f"accounts-{self._threads}", daemon=True).start()
            return question

    def _work(self) -> None:
        me = threading.get_ident()
        while True:
            question = self._questions.get()
            with self._lock:
                self._busy[me] = time.monotonic()
            answer: object
            try:
                answer = question.work()
            except LookupError:
                answer = Missing.NO_SUCH
            except Exception:  # noqa: BLE001  # whatever NSS does, the next question has to be asked
                answer = Missing.SILENT
            with self._lock:
                if answer is not Missing.SILENT:
                    self._memory.pop(question.key, None)
                    self._memory[question.key] = _Answer(answer, time.monotonic())
                    while len(self._memory) > _MEMORY_MAX:
                        del self._memory[next(iter(self._memory))]
                del self._asked[question.key]
                del self._busy[me]
            question.done.set_result(None)

    def _recall(self, key: tuple[object, ...]) -> _Answer | None:
        with self._lock:
            return self._memory.get(key)

    def _is_fresh(self, answer: _Answer) -> bool:
        keep_s = min(_FRESH_MISSING_S, self._fresh_s) if answer.value is Missing.NO_SUCH else self._fresh_s
        return time.monotonic() - answer.at < keep_s

    def _seen(self) -> tuple[Account, ...]:
        with self._lock:
            return tuple(a.value for a in self._memory.values() if isinstance(a.value, Account))


def _answer(known: _Answer | None) -> "T | Missing":
    return Missing.SILENT if known is None else cast("T | Missing", known.value)
