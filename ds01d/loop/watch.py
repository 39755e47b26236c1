"""Following the chronicle as it is written: bounded, and closed when its reader is too slow or gone."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self

from ds01d.loop.chronicle import Line

#: Lines that wait for a slow reader; more, and he is let go.
WAITING_MAX = 1000


class Watch:
    """An async iterator of lines. Ends when it is closed, by itself when its reader fell behind: `overrun` tells."""

    def __init__(self, gone: Callable[["Watch"], None]) -> None:
        self._gone = gone
        self._lines: deque[Line] = deque()
        self._came = asyncio.Event()
        self.overrun = False
        self._closed = False

    def put(self, line: Line) -> None:
        """Add a line; never blocks."""
        if len(self._lines) >= WAITING_MAX:
            self.overrun = True
            self.close()
        else:
            self._lines.append(line)
        self._came.set()

    def close(self) -> None:
        """Nothing more is wanted; who waits for a line is told so."""
        self._closed = True
        self._came.set()
        self._gone(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Line:
        while not self._lines:
            if self._closed:
                raise StopAsyncIteration
            self._came.clear()
            await self._came.wait()
        return self._lines.popleft()
