"""The printed table, and what else the machine was doing meanwhile."""

import os
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


def conditions() -> str:
    """What the machine is doing now: load averages, and processes that run or want to."""
    load = Path("/proc/loadavg").read_text("ascii").split()
    stat = Path("/proc/stat").read_text("ascii").splitlines()
    running = next(line.split()[1] for line in stat if line.startswith("procs_running"))
    return f"load {load[0]} {load[1]} {load[2]}, {running} runnable, {os.cpu_count()} cores"


def spread(values: Sequence[float], unit: str, scale: float = 1.0, digits: int = 1) -> str:
    """A median with what lies around it: `12.3 ms (11.9 to 14.0, 9 runs)`."""
    low, mid, high = (f"{value * scale:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{mid} {unit} ({low} to {high}, {len(values)} runs)"
