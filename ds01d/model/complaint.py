"""What is wrong with a configuration file, and where, so that a person can go there and change it."""

from collections.abc import Sequence

import msgspec


class Complaint(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that cannot be meant."""

    file: str
    #: Counted from 1; 0: the file as a whole.
    line: int
    #: Dotted, `groups.student.memory`; empty: the file as a whole.
    key: str
    message: str

    @property
    def text(self) -> str:
        """One line, as compilers write it."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


def in_brief(complaints: Sequence[Complaint]) -> str | None:
    """The first complaint and how many more there are, in a line; None: there is none."""
    if not complaints:
        return None
    more = len(complaints) - 1
    return complaints[0].text + (f", and {more} more: `journalctl -u ds01d` has all" if more else "")
