"""The printed table, and what else the machine was doing meanwhile."""

import os
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

HEADS: Final = ("what", "goal", "measured", "the numbers behind")


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line: a claim, its goal, and what came out."""

    what: str
    goal: str
    measured: str
    #: None: it has no goal of its own.
    met: bool | None
    numbers: tuple[str, ...] = ()


def print_table(rows: Iterable[Row]) -> None:
    """The rows in columns; a row with several numbers goes over several lines."""
    lines: list[Sequence[str]] = [HEADS]
    for row in rows:
        mark = {None: "", True: "  ok", False: "  MISSED"}[row.met]
        first, *rest = row.numbers or ("",)
        lines.append((row.what, row.goal, row.measured + mark, first))
        lines += [("", "", "", more) for more in rest]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS))]
    for n, line in enumerate(lines):
        print(" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
        if n == 0:
            print("-|-".join("-" * width for width in widths))


class Witness(threading.Thread):
    """Looks on while it is measured: how many processes run or want to."""

    def __init__(self) -> None:
        super().__init__(name="witness", daemon=True)
        self._over = threading.Event()
        self._seen: list[int] = []
        self._before = _load()
        self._began = time.monotonic()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.25):
            self._seen.append(_runnable())

    def words(self) -> str:
        """What else the machine was doing; ends the watch."""
        self._over.set()
        self.join()
        seen = self._seen or [_runnable()]
        return (
            f"{time.monotonic() - self._began:.0f} s on {os.cpu_count()} cores; "
            f"load before {self._before}, after {_load()}; "
            f"runnable processes meanwhile: median {median(seen):.0f}, at most {max(seen)}"
        )


def _load() -> str:
    return " ".join(Path("/proc/loadavg").read_text("ascii").split()[:3])


def _runnable() -> int:
    stat = Path("/proc/stat").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in stat if line.startswith("procs_running"))


def spread(values: Sequence[float], unit: str, scale: float = 1.0, digits: int = 1) -> str:
    """A median with what lies around it: `12.3 ms (11.9 to 14.0, 9 runs)`."""
    low, mid, high = (f"{value * scale:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{mid} {unit} ({low} to {high}, {len(values)} runs)"
