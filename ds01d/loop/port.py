"""The loop as the doors see it: ask, wait, watch, and read the state for a view. How it works is not told here."""

from typing import Protocol

import msgspec

from ds01d.core.events import Request
from ds01d.core.state import State
from ds01d.loop.watch import Watch
from ds01d.model.ids import OperationId
from ds01d.model.operation import Operation


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What a request would do; nothing was changed."""

    lines: tuple[str, ...]
    #: Names of the slots that it would get.
    slots: tuple[str, ...] = ()


class Mind(Protocol):
    """The one who decides."""

    @property
    def state(self) -> State:
        """For views, read only; never kept over an await."""
        ...

    @property
    def unsaved_since(self) -> float | None:
        """Since when the disk does not take the state; epoch seconds."""
        ...

    @property
    def recovering(self) -> str | None:
        """Why only reads are answered: the saved state could not be taken up."""
        ...

    def now(self) -> float:
        """Epoch seconds of the daemon's own steady clock."""
        ...

    async def ask(self, request: Request) -> Operation | Preview | None:
        """Decide a request; answers once the decision is saved, and raises `Refused` where the answer is no.

        None: there is nothing to wait for.
        """
        ...

    async def finished(self, operation: OperationId, timeout_s: float) -> Operation:
        """Wait for an operation's end, at most so long; gives it as it is then."""
        ...

    def watch(self) -> Watch:
        """Every line of the chronicle from here on."""
        ...
