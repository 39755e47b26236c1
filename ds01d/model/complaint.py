"""What is wrong with a configuration file, and where, so that a person can go there and change it."""

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
