"""The table as Markdown: each claim with its goal and what came out, and below it the numbers behind."""

import textwrap
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from statistics import median
from typing import Final

import msgspec

HEADS: Final = ("what", "goal", "measured", "met")
#: Between these a file holds the table.
BEGIN: Final = "<!-- speed: begin -->"
END: Final = "<!-- speed: end -->"
_WIDTH: Final = 125
_BEHIND: Final = "The numbers behind:\n"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line: a claim, its goal, and what came out."""

    what: str
    goal: str
    measured: str
    met: bool
    numbers: tuple[str, ...] = ()


def markdown(rows: Sequence[Row], circumstances: str) -> str:
    """The rows as a table, then the numbers behind each, then how it was measured."""
    lines = [HEADS, *((row.what, row.goal, row.measured, "yes" if row.met else "**no**") for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(HEADS))]
    text = [f"| {' | '.join(cell.ljust(n) for cell, n in zip(line, widths, strict=True))} |" for line in lines]
    text.insert(1, f"|{'|'.join('-' * (n + 2) for n in widths)}|")
    text += ["", _wrapped(circumstances), "", _BEHIND]
    text += [_wrapped(f"{row.what}: {'; '.join(row.numbers)}", "* ") for row in rows if row.numbers]
    return "\n".join(text) + "\n"


def _wrapped(said: str, bullet: str = "") -> str:
    return textwrap.fill(
        said,
        _WIDTH,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )


def replace_in(file: Path, table: str) -> None:
    """Put the table where the one before it stands in a file, with the numbers behind it folded."""
    before, begin, rest = file.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"cannot put the table into {file}: the lines {BEGIN} and {END} are not in it")
    folded = table.replace(_BEHIND, "<details>\n<summary>The numbers behind</summary>\n")
    file.write_text(f"{before}{begin}\n\n{folded}\n</details>\n\n{end}{after}", "utf-8")


def spread(values: Sequence[float], unit: str, scale: float = 1.0, digits: int = 1) -> str:
    """A median with what lies around it: `12.3 ms (11.9 to 14.0, n 9)`."""
    low, mid, high = (f"{value * scale:.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{mid} {unit} ({low} to {high}, n {len(values)})"


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that so large a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
