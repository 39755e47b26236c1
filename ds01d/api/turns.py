"""Whose request is next: whoever sends many at once gets no more of the event loop's time than whoever sends one."""

import asyncio
from collections import Counter, deque

#: Requests of one uid that are taken up in one turn of the event loop. More would cost others time, fewer would make
#: one caller's many connections slow where nobody else is there.
AT_ONCE = 8


class Turns:
    """Requests of each uid in the order in which they came, a few of them in each turn of the event loop."""

    def __init__(self) -> None:
        self._taken: Counter[int] = Counter()
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}

    async def wait(self, uid: int) -> None:
        """Return when it is this request's turn."""
        if uid not in self._waiting and self._taken[uid] < AT_ONCE:
            self._take(uid)
            return
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(uid, deque()).append(called)
        await called

    def _take(self, uid: int) -> None:
        if not self._taken:
            asyncio.get_running_loop().call_soon(self._next)
        self._taken[uid] += 1

    def _next(self) -> None:
        """The loop has turned: the first of each uid are called up."""
        self._taken.clear()
        for uid, waiting in tuple(self._waiting.items()):
            while waiting and self._taken[uid] < AT_ONCE:
                called = waiting.popleft()
                if not called.done():
                    called.set_result(None)
                    self._take(uid)
            if not waiting:
                del self._waiting[uid]
