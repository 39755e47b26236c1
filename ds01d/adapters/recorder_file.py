"""A log file that is appended to: survives logrotate, and never leaves half a line for the next one to be glued to."""

import grp
import os
from contextlib import suppress
from pathlib import Path

_MODE = 0o640


class LogFile:
    """One file, opened when first needed, readable by a group where there is one of that name."""

    def __init__(self, path: Path, group: str) -> None:
        self.path = path
        self._group = group
        self._fd: int | None = None

    def append(self, text: bytes) -> None:
        """Add whole lines: all of them, or none and OSError."""
        fd = self._current()
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
        with suppress(KeyError, PermissionError):
            os.fchown(fd, -1, grp.getgrnam(self._group).gr_gid)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")
        return fd
