"""A terminal of this machine with a command on it, which can be looked at: its modes, and what it shows."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from typing import Self


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, command: list[str], env: dict[str, str], rows: int = 40, columns: int = 132) -> None:
        self._master, self._slave = os.openpty()
        self.resize(rows, columns)
        self.at_first = termios.tcgetattr(self._slave)
        self.output = ""
        self._looked_to = 0
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=self._slave, stdout=self._slave, stderr=self._slave, env=env
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._slave)
        if self._master >= 0:
            os.close(self._master)

    def modes(self) -> list[object]:
        """As the terminal is now."""
        return list(termios.tcgetattr(self._slave))

    def raw(self) -> bool:
        """Whether keys are passed on as they are typed."""
        return not termios.tcgetattr(self._slave)[3] & (termios.ICANON | termios.ECHO)

    def wait_raw(self) -> None:
        """Until it is raw."""
        end = time.monotonic() + 10
        while not self.raw():
            assert time.monotonic() < end, f"the terminal never became raw; it showed {self.output!r}"
            self._read(0.01)

    def type(self, text: str) -> None:
        """Type."""
        os.write(self._master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Give it another size; what runs on it hears SIGWINCH."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def signal(self, number: signal.Signals) -> None:
        """From elsewhere."""
        self.process.send_signal(number)

    def expect(self, pattern: str, timeout: float = 10) -> None:
        """Wait until it shows something behind what was last expected."""
        end = time.monotonic() + timeout
        while not (found := re.compile(pattern).search(self.output, self._looked_to)):
            assert time.monotonic() < end, f"it never showed {pattern!r}; it showed {self.output!r}"
            self._read(0.05)
        self._looked_to = found.end()

    def wait(self, timeout: float = 10) -> int:
        """Its exit code; minus n when signal n ended it."""
        end = time.monotonic() + timeout
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it goes on; it showed {self.output!r}"
            self._read(0.02)
        while self._read(0.02):
            pass
        return self.process.returncode

    def hang_up(self) -> None:
        """Take the terminal away."""
        os.close(self._master)
        self._master = -1

    def _read(self, timeout: float) -> bool:
        if self._master < 0 or not select.select([self._master], [], [], timeout)[0]:
            time.sleep(timeout if self._master < 0 else 0)
            return False
        self.output += os.read(self._master, 65536).decode(errors="replace")
        return True
