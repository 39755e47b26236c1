"""Which process the engine is: it tells a restart from a broken connection, and spares asking for its ID again."""

import os
import time
from pathlib import Path

from ds01d.adapters.procfs import Procfs


class EngineProcess:
    """The engine by the pid file that it writes; without one nothing is known, and callers ask the engine itself."""

    def __init__(self, pid_file: Path = Path("/run/docker.pid"), procfs: Procfs | None = None) -> None:
        self._pid_file = pid_file
        self._procfs = procfs or Procfs()

    def read(self) -> tuple[int, int] | None:
        """Its pid and start time (clock ticks since boot); None: no such file, or nobody lives under that pid."""
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return None
        start_time = self._procfs.start_time(pid)
        return None if start_time is None else (pid, start_time)

    @staticmethod
    def since(process: tuple[int, int]) -> float:
        """When it came up, epoch seconds."""
        booted_at = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return booted_at + process[1] / os.sysconf("SC_CLK_TCK")
