"""The means of showing: a page of some width, times and sizes as people read them, and tables that line up."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86400.0
#: Longest text in a cell, whatever the terminal.
_CELL_MAX = 40
_CELL_MIN = 8
_COLOURS = {"green": 32, "yellow": 33, "red": 31, "dim": 2, "bold": 1}
_ESCAPE = re.compile("\x1b\\[[0-9]*m")
_GAP = "  "


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """For whom, and onto what, something is written."""

    #: Epoch seconds.
    now: float
    #: The reader's own name: what is his needs no name beside it.
    me: str
    #: None: no terminal, nothing is cut.
    columns: int | None = None
    colour: bool = False

    def paint(self, colour: str, text: str) -> str:
        """Text in a colour, where there are colours."""
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m" if self.colour and text else text

    def moment(self, at: float) -> str:
        """`14:30 (in 12 min)`; with the date when it is not today, on this host's clock."""
        return f"{self.clock(at)} ({self.away(at)})"

    def clock(self, at: float, *, seconds: bool = False) -> str:
        """`14:30`, or `14:30:05`; with the date when it is not today, on this host's clock."""
        then, today = _local(at), _local(self.now)
        form = "%H:%M:%S" if seconds else "%H:%M"
        return then.strftime(form if then.date() == today.date() else f"%Y-%m-%d {form}")

    def away(self, at: float) -> str:
        """`in 12 min`, `3 h ago`."""
        seconds = at - self.now
        words = _span(abs(seconds))
        return f"in {words}" if seconds >= 0 else f"{words} ago"

    def age(self, since: float) -> str:
        """How old, in one unit: `3d`, `2h`, `45m`, `10s`."""
        seconds = max(0.0, self.now - since)
        for unit, length in (("d", _DAY), ("h", _HOUR), ("m", _MINUTE)):
            if seconds >= length:
                return f"{int(seconds // length)}{unit}"
        return f"{int(seconds)}s"


def terminal(header: str) -> tuple[int | None, bool]:
    """Width and colour from `columns=120; colour=1`; what cannot be read is as if there were no terminal."""
    facts = dict(re.findall(r"([a-z]+)=([0-9]{1,4})(?:;|\s|$)", header[:200]))
    columns = int(facts.get("columns", 0))
    return columns or None, facts.get("colour") == "1"


def clean(text: str) -> str:
    """Text of other people's making, without anything that a terminal would obey."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode() for c in text])


def size(mib: int | None) -> str:
    """Memory as people write it."""
    if mib is None:
        return "-"
    gib = mib / 1024
    return f"{gib:.0f}G" if gib >= 10 or gib == int(gib) else f"{gib:.1f}G"  # noqa: PLR2004  # two digits are enough


def table(page: Page, heads: Sequence[str], rows: Iterable[Sequence[str]], colours: Mapping[str, str]) -> str:
    """Columns that line up; wide cells are cut where the terminal is narrow. `colours`: a cell's word → its colour."""
    cells = [[_cut(clean(c), _CELL_MAX) if page.columns else clean(c) for c in row] for row in rows]
    kept = [i for i, _ in enumerate(heads) if any(row[i] for row in cells)]
    lines = [[heads[i] for i in kept], *[[row[i] for i in kept] for row in cells]]
    widths = [max(width(line[i]) for line in lines) for i in range(len(kept))]
    if page.columns:
        _narrow(widths, page.columns)
    text = []
    for n, line in enumerate(lines):
        padded = [_padded(page, cell, w, colours if n else {}) for cell, w in zip(line, widths, strict=True)]
        text.append(_GAP.join(padded).rstrip())
    return "\n".join(text) + "\n"


def width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    if text.isascii() and text.isprintable():
        return len(text)
    plain = _ESCAPE.sub("", text)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in plain)


def _padded(page: Page, cell: str, columns: int, colours: Mapping[str, str]) -> str:
    shown = _cut(cell, columns)
    painted = page.paint(colours[cell], shown) if cell in colours else shown
    return painted + " " * (columns - width(shown))


def _cut(text: str, columns: int) -> str:
    if width(text) <= columns:
        return text
    while text and width(text) > columns - 1:
        text = text[:-1]
    return text + "…"


def _narrow(widths: list[int], columns: int) -> None:
    """Take from the widest column until the table fits, or nothing more can be taken."""
    while sum(widths) + len(_GAP) * (len(widths) - 1) > columns and max(widths) > _CELL_MIN:
        widths[widths.index(max(widths))] -= 1


def _span(seconds: float) -> str:
    if seconds < _MINUTE:
        return f"{int(seconds)} s"
    if seconds < 2 * _HOUR:
        return f"{round(seconds / _MINUTE)} min"
    if seconds < 2 * _DAY:
        return f"{round(seconds / _HOUR)} h"
    return f"{round(seconds / _DAY)} days"


def _local(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone()
