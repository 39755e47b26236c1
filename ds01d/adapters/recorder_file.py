"""A log file that is appended to: survives logrotate, and never leaves half a line for the next one to be glued to."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ds01d.model.account import Missing

#: The gid of those who may read a file, as far as it can be told in time.
Readers = Callable[[], int | Missing]

_MODE = 0o640


def let_read(fd: int, readers: Readers) -> bool:
    """Give a file to its readers' group; False: who that is, nobody can tell now. Blocks as long as that question."""
    gid = readers()
    if isinstance(gid, int):
        with suppress(PermissionError):
            os.fchown(fd, -1, gid)
    return gid is not Missing.SILENT


class LogFile:
    """One file, opened when first needed, readable by a group as soon as it is known which one that is."""

    def __init__(self, path: Path, readers: Readers) -> None:
        self.path = path
        self._readers = readers
        self._fd: int | None = None
        self._given = False

    def append(self, text: bytes) -> None:
        """Add whole lines: all of them, or none and OSError."""
        fd = self._current()
        if not self._given:
            self._given = let_read(fd, self._readers)
        size = os.fstat(fd).st_size
        try:
            left = memoryview(text)
            while left:
                left = left[os.write(fd, left) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(fd, size)
            raise

    def close(self) -> None:
        """Let the file go."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _current(self) -> int:
        """The descriptor of the file that has our name now: logrotate may have renamed the one we have."""
        if self._fd is not None:
            ours = os.fstat(self._fd)
            with suppress(FileNotFoundError):
                there = self.path.stat()
                if (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino):
                    return self._fd
            self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, _MODE)
        self._fd = fd
        os.fchmod(fd, _MODE)
        self._given = False
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")
        return fd
