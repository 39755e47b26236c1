"""Looks on while it is measured: the machine, how many processes want to run, and what others did before and after."""

import os
import platform
import subprocess
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

#: How long it is looked at what others do, before and after; seconds.
_LOOK_S: Final = 5.0
#: Who takes less of a core than this is not named.
_WORTH_NAMING: Final = 0.05


class Witness(threading.Thread):
    """Begins with a look at what others do."""

    def __init__(self) -> None:
        super().__init__(name="witness", daemon=True)
        self._over = threading.Event()
        self._seen: list[int] = []
        self._load = _load()
        self._others = _others()
        self._began = time.monotonic()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.25):
            self._seen.append(_runnable())

    def words(self) -> str:
        """When, what and on which machine it was measured, and what else that was doing; ends the watch."""
        self._over.set()
        self.join()
        took, load, seen = time.monotonic() - self._began, _load(), self._seen or [_runnable()]
        return (
            f"Measured on {datetime.now(UTC).date()} at commit {_commit()}, in a virtual GPU server on "
            f"{os.cpu_count()} cores ({_cpu()}), Linux {platform.release().partition('-')[0]}. It took {took:.0f} s. "
            f"Load before {self._load}, after {load}; processes that wanted to run meanwhile: median "
            f"{median(seen):.0f}, at most {max(seen)}. What others took of a core before: {self._others}; "
            f"after: {_others()}."
        )


def _load() -> str:
    return " ".join(Path("/proc/loadavg").read_text("ascii").split()[:3])


def _runnable() -> int:
    stat = Path("/proc/stat").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in stat if line.startswith("procs_running"))


def _others() -> str:
    """Which programs ran for a noteworthy part of some seconds."""
    before = _ticks()
    time.sleep(_LOOK_S)
    spent: Counter[str] = Counter()
    for (pid, name), ticks in _ticks().items():
        spent[name] += 0 if pid == os.getpid() else ticks - before.get((pid, name), 0)
    all_ticks = _LOOK_S * os.sysconf("SC_CLK_TCK")
    named = [f"{name} {n / all_ticks:.0%}" for name, n in spent.most_common() if n / all_ticks >= _WORTH_NAMING]
    return ", ".join(named) or f"nobody more than {_WORTH_NAMING:.0%}"


def _ticks() -> dict[tuple[int, str], int]:
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            head, _, tail = stat.read_text(errors="replace").rpartition(")")
        except OSError:
            continue
        fields = tail.split()
        # A kernel thread is called after what it does at the moment: `kworker/u8:3-events`.
        found[int(stat.parent.name), head.partition("(")[2].partition("/")[0]] = int(fields[11]) + int(fields[12])
    return found


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    here = Path(__file__).resolve().parent
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=here, capture_output=True, text=True, check=False
    )
    # What is measured lies in these; the table itself may change.
    changed = subprocess.run(
        ["git", "diff", "--quiet", "HEAD", "--", ":/ds01d", ":/clients", ":/native"], cwd=here, check=False
    )
    return (head.stdout.strip() or "unknown") + (" with changes" if changed.returncode else "")
