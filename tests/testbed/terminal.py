"""A terminal of the box with a command on it: types, reads, resizes, hangs up. It does not interpret what it reads."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path
from typing import Final, Self

_TTY_GROUP: Final = 5
# asm-generic/ioctls.h; the termios module names neither.
_TIOCSPTLCK: Final = 0x40045431
_TIOCGPTN: Final = 0x80045430


class Terminal:
    """A command on a terminal made in the box's own devpts, so that it has a name there and notices reach it."""

    def __init__(self, command: list[str], devpts: Path, *, uid: int, rows: int, columns: int) -> None:
        self._master = os.open(devpts / "ptmx", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        fcntl.ioctl(self._master, _TIOCSPTLCK, struct.pack("i", 0))
        number = struct.unpack("i", fcntl.ioctl(self._master, _TIOCGPTN, struct.pack("i", 0)))[0]
        #: Its name in the box.
        self.name = f"/dev/pts/{number}"
        self.resize(rows, columns)
        slave = os.open(devpts / str(number), os.O_RDWR | os.O_NOCTTY)
        # As login leaves it: the user's own, others may write to it through the group.
        os.fchown(slave, uid, _TTY_GROUP)
        os.fchmod(slave, 0o620)
        self._seen = bytearray()
        self._read_to = 0
        try:
            self._process = subprocess.Popen(
                ["setsid", "--ctty", "--wait", *command], stdin=slave, stdout=slave, stderr=slave
            )
        finally:
            os.close(slave)

    @property
    def output(self) -> str:
        """Everything it has shown so far."""
        return self._seen.decode(errors="replace")

    def send(self, text: str) -> None:
        """Types; a control character is typed as it is: character 3 is ctrl-c."""
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Gives it another size; the foreground process hears SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, pattern: str, timeout: float = 10) -> "re.Match[str]":
        """Reads until the pattern shows up behind what was last expected; `timeout` in seconds."""
        end = time.monotonic() + timeout
        while True:
            text = self._seen[self._read_to :].decode(errors="replace")
            if found := re.search(pattern, text):
                self._read_to += len(text[: found.end()].encode())
                return found
            if not self._read(end - time.monotonic()):
                raise AssertionError(f"the terminal never showed {pattern!r}\n--- it showed\n{self.output}")

    def wait(self, timeout: float = 10) -> int:
        """Reads until the command has ended; its exit code, 128 + n when signal n ended it."""
        end = time.monotonic() + timeout
        while self._process.poll() is None:
            if time.monotonic() > end:
                raise AssertionError(f"the command on the terminal goes on\n--- it showed\n{self.output}")
            self._read(0.02)
        while self._read(0.02):
            pass
        code = self._process.returncode
        return code if code >= 0 else 128 - code

    def hang_up(self) -> None:
        """Takes the terminal away, as a lost connection does: everything on it hears SIGHUP."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def close(self) -> None:
        """Hangs up and sees the way in end."""
        self.hang_up()
        try:
            self._process.wait(2)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self, timeout: float) -> bool:
        """Takes what is there within the time; False at its end, or when nothing came."""
        if self._master < 0 or not select.select([self._master], [], [], max(timeout, 0))[0]:
            return False
        try:
            chunk = os.read(self._master, 65536)
        except OSError:  # EIO: nobody has it open any more
            return False
        self._seen += chunk
        return bool(chunk)
