"""The daemon as it is, on an event loop that writes down how late each tick of a millisecond came.

`python3 -m tests.bench.inside.turns FILE` runs it in place of `python3 -m ds01d`; with `--bare` nothing runs beside the
ticks, which shows what the machine itself adds. How late a tick comes is how long the loop kept everybody waiting: by a
long turn, by another thread that holds the interpreter, or because the machine was busy.
"""

import asyncio
import mmap
import struct
import sys
import time
from pathlib import Path

TICK_S = 0.001
#: Ticks that are kept; four minutes.
KEPT = 240_000
_ROW = struct.Struct("=dd")


class Ticks:
    """A file that two processes map: a row for each tick, with the moment (steady clock) and how late it came."""

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        size = (KEPT + 1) * _ROW.size
        if fresh:
            path.write_bytes(bytes(size))
        with path.open("r+b") as file:
            self._rows = mmap.mmap(file.fileno(), size)
        self._count = 0

    def write(self, moment: float, late: float) -> None:
        """Add a row; the oldest gives way."""
        _ROW.pack_into(self._rows, self._count % KEPT * _ROW.size, moment, late)
        self._count += 1

    def between(self, begin: float, end: float) -> list[float]:
        """How late the ticks of this time were; seconds."""
        rows = _ROW.iter_unpack(self._rows[: KEPT * _ROW.size])
        return [late for moment, late in rows if begin <= moment < end]


class _Ticking(asyncio.DefaultEventLoopPolicy):
    """Loops with a tick in them."""

    def __init__(self, ticks: Ticks) -> None:
        super().__init__()
        self._ticks = ticks

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """A loop as usual, which ticks from its first turn on."""
        loop = super().new_event_loop()

        def tick(due: float) -> None:
            now = time.monotonic()
            self._ticks.write(now, now - due)
            # Not from `due`: one long stall counts once, as the longest wait, and not for all ticks in it.
            loop.call_at(now + TICK_S, tick, now + TICK_S)

        loop.call_soon(tick, time.monotonic())
        return loop


def main() -> int:
    """Run the daemon, or nothing."""
    asyncio.set_event_loop_policy(_Ticking(Ticks(Path(sys.argv[-1]), fresh=True)))
    if "--bare" in sys.argv:
        asyncio.run(asyncio.sleep(3600))
        return 0
    from ds01d.app import daemon  # noqa: PLC0415  # the bare loop has none of it in its memory

    return daemon.main()


if __name__ == "__main__":
    sys.exit(main())
