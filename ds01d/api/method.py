"""One row of the table of methods, and what every row may be refused with."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ds01d.api.access import Access
from ds01d.api.desk import Caller, Desk
from ds01d.api.params import Params
from ds01d.model import errors as no


@dataclass(frozen=True, slots=True)
class Method:
    """One method. `run` takes exactly `params` and gives exactly `result`; the pair differs from row to row."""

    name: str
    params: type[Params]
    result: type[msgspec.Struct]
    access: Access
    #: What it may refuse with, beside `ALWAYS`.
    errors: tuple[type[no.Refused], ...]
    run: Callable[[Desk, Caller, Any], Awaitable[msgspec.Struct]]

    @property
    def doc(self) -> str:
        """What it does, in a sentence: its handler's own."""
        return (self.run.__doc__ or "").strip()


#: What any method may answer instead of doing its work.
ALWAYS: tuple[type[no.Refused], ...] = (no.Denied, no.TooMany, no.AccountsSilent, no.Bug)
