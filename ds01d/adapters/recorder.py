"""The memory for people: events.jsonl and gpu-allocations.log, appended to and never read back as truth.

Whoever records is never held up and never told of trouble: lines go into a queue of bounded length and a thread writes
them. A disk that is full or gone is tried again; what no longer fits into the queue meanwhile is counted and lost, and
losing it loses no GPU. Not in here: which line a change makes (loop/chronicle.py).
"""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from ds01d.adapters.own_thread import begin
from ds01d.adapters.recorder_file import LogFile, Readers
from ds01d.adapters.recorder_format import allocation_text, event_text
from ds01d.adapters.recorder_reading import newest_events
from ds01d.logs import log
from ds01d.model.chronicle import AllocationLine, EventLine
from ds01d.model.operation import Failure

Line = EventLine | AllocationLine
L = TypeVar("L", EventLine, AllocationLine)
#: Something else to be done in the recorder's thread, best effort as well.
Chore = Callable[[], None]

_QUEUE_MAX: Final = 20_000
_BATCH_MAX: Final = 1_000
_RETRY_S: Final = 2.0
#: Seconds that a reader waits for what was recorded a moment ago.
_SETTLE_S: Final = 1.0


class _Stop:
    """The last thing in the queue."""


class Recorder:
    """Both files of one log directory."""

    def __init__(self, directory: Path, *, readers: Readers, queue_max: int = _QUEUE_MAX) -> None:
        self._events = LogFile(directory / "events.jsonl", readers)
        self._allocations = LogFile(directory / "gpu-allocations.log", readers)
        self._queue: queue.Queue[Line | Chore | _Stop] = queue.Queue(queue_max)
        self._closing = threading.Event()
        self._failing = False
        #: Lines that nobody will find: the queue was full, or they could not be written as text.
        self.lost = 0
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def record(self, line: Line) -> None:
        """Remember a line. Never blocks, never raises."""
        self._put(line)

    def do(self, chore: Chore) -> None:
        """Have something else done in the recorder's thread, in order with the lines. Never blocks, never raises."""
        self._put(chore)

    def settle(self, timeout_s: float = _SETTLE_S) -> bool:
        """Wait until all that was recorded so far is written; says whether it is. Blocks."""
        written = threading.Event()
        self._put(written.set)
        return written.wait(timeout_s)

    async def events(
        self, wanted: Callable[[EventLine], bool], *, since: float | None, until: float | None, limit: int
    ) -> tuple[EventLine, ...] | Failure:
        """The newest so many events that are wanted, the oldest of them first; `wanted` runs in another thread."""

        def read() -> tuple[EventLine, ...]:
            self.settle()
            path = self._events.path
            return newest_events(
                (path, path.with_name(f"{path.name}.1")), wanted, since=since, until=until, limit=limit
            )

        try:
            return await begin(read, "recorder-reading")
        except OSError as error:
            return Failure(
                kind="internal",
                message=f"cannot read what was recorded: {error.strerror}",
                hint="the operators find it in the daemon's log",
            )

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what is left, as far as the disk takes it in this time."""
        self._closing.set()
        with suppress(queue.Full):
            self._queue.put(_Stop(), timeout=timeout_s)
        self._thread.join(timeout_s)

    def _put(self, item: Line | Chore) -> None:
        try:
            self._queue.put_nowait(item)
        except queue.Full:
            if self.lost == 0:
                log.error("recorder.overrun", queue_max=self._queue.maxsize, do="look at the disk of /var/log/ds01")
            self.lost += 1

    def _work(self) -> None:
        while True:
            items = [self._queue.get()]
            with suppress(queue.Empty):
                while len(items) < _BATCH_MAX:
                    items.append(self._queue.get_nowait())
            lines: list[Line] = []
            for item in items:
                if isinstance(item, Line):
                    lines.append(item)
                    continue
                self._write(lines)
                lines = []
                if isinstance(item, _Stop):
                    return
                self._perform(item)
            self._write(lines)

    def _write(self, lines: list[Line]) -> None:
        """Write them all; as long as the disk does not take them, try again, and give up only when closing."""
        if not lines:
            return
        events = self._texts([line for line in lines if isinstance(line, EventLine)], event_text)
        allocations = self._texts([line for line in lines if isinstance(line, AllocationLine)], allocation_text)
        for file, texts in ((self._events, events), (self._allocations, allocations)):
            while texts:
                try:
                    file.append(texts)
                except OSError as error:
                    if not self._failing:
                        log.error("recorder.failed", file=str(file.path), error=str(error), again_in_s=_RETRY_S)
                    self._failing = True
                    if self._closing.wait(_RETRY_S):
                        self.lost += len(lines)
                        return
                    continue
                if self._failing:
                    log.warning("recorder.works_again", lost=self.lost)
                    self._failing = False
                break

    def _texts(self, lines: list[L], text: Callable[[L], bytes]) -> bytes:
        parts = []
        for line in lines:
            try:
                parts.append(text(line))
            except Exception as fault:  # noqa: BLE001  # one line that cannot be text takes no other with it
                log.error("recorder.unwritable", line=repr(line)[:500], error=str(fault))
                self.lost += 1
        return b"".join(parts)

    def _perform(self, chore: Chore) -> None:
        try:
            chore()
        except Exception as fault:  # noqa: BLE001  # best effort, and the lines after it want to be written
            log.error("recorder.chore_failed", error=str(fault))
