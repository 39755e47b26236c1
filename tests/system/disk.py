"""A small disk of its own for the daemon's state, which a test freezes, fills and turns read-only from outside."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from tests.testbed.server import Server

_STATE: Final = "/var/lib/ds01"
_SIZE: Final = 16 << 20
#: The same numbers on every architecture; Python has names for neither.
_OPEN_TREE, _MOVE_MOUNT = 428, 429
_CLONE, _EMPTY_PATH, _NEW_NS = 1, 4, 0x20000
_HERE = -100


class Disk:
    """An ext4 file system in a file, mounted at `path` of the host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thaw: subprocess.Popen[bytes] | None = None

    def put_under(self, server: Server) -> None:
        """Let it be /var/lib/ds01 of this box."""
        server.exec("mkdir", "-p", _STATE)
        pid = server.root.parts[2]
        # A process of its own: who has entered another mount namespace does not come back.
        subprocess.run([sys.executable, "-m", __name__, str(self.path), pid, _STATE], check=True)

    def freeze(self, seconds: float) -> None:
        """Every write waits for so long; a timer of its own thaws it, whatever becomes of the test."""
        self._thaw = subprocess.Popen(
            ["sh", "-c", f"sleep {seconds}; fsfreeze -u {self.path}"], start_new_session=True, stderr=subprocess.DEVNULL
        )
        subprocess.run(["fsfreeze", "-f", self.path], check=True)

    @property
    def frozen(self) -> bool:
        """Whether its thaw is still to come."""
        return self._thaw is not None and self._thaw.poll() is None

    def thawed(self) -> None:
        """Wait until it is thawed."""
        if self._thaw is not None:
            self._thaw.wait()
            self._thaw = None

    def fill(self) -> None:
        """No byte is left."""
        with (self.path / "filler").open("ab", buffering=0) as filler:
            for size in (1 << 20, 4096, 1):
                try:
                    while True:
                        filler.write(b"x" * size)
                except OSError:
                    pass

    def empty(self) -> None:
        """There is room again."""
        (self.path / "filler").unlink()

    def read_only(self, *, on: bool) -> None:
        """As the kernel does it to a disk with errors."""
        end = time.monotonic() + 10
        while subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", self.path], check=False).returncode:
            assert time.monotonic() < end, "somebody writes all the time"
            time.sleep(0.05)


@contextmanager
def small_disk() -> Iterator[Disk]:
    """A disk, gone afterwards."""
    with TemporaryDirectory(prefix="ds01-disk-") as directory:
        image, path = Path(directory, "image"), Path(directory, "disk")
        path.mkdir()
        with image.open("wb") as file:
            file.truncate(_SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, path], check=True)
        disk = Disk(path)
        try:
            yield disk
        finally:
            disk.thawed()
            subprocess.run(["umount", "--lazy", path], check=True)


def _move(source: str, pid: str, target: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    tree = libc.syscall(_OPEN_TREE, _HERE, source.encode(), _CLONE | os.O_CLOEXEC)
    namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    if (
        tree < 0
        or libc.setns(namespace, _NEW_NS)
        or libc.syscall(_MOVE_MOUNT, tree, b"", _HERE, target.encode(), _EMPTY_PATH)
    ):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    _move(*sys.argv[1:])
