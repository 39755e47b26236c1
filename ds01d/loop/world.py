"""What the loop needs of the outside, as shapes; `app` gives it the adapters that have them."""

import asyncio
from typing import Protocol

from ds01d.core.state import State
from ds01d.loop.chronicle import Line
from ds01d.model.ids import ContainerId, EngineId


class Clock(Protocol):
    """Time that never jumps."""

    def now(self) -> float:
        """Epoch seconds."""
        ...


class Saver(Protocol):
    """The state file, behind a thread."""

    def save(self, body: bytes, state: State, /) -> "asyncio.Future[None]":
        """Begin to save this snapshot; ends when it is on disk, or with what went wrong. One at a time."""
        ...


class Notes(Protocol):
    """Who is told, without an answer. None of these may block or raise."""

    def record(self, line: Line) -> None:
        """Add a line to what is remembered for people."""
        ...

    def changed(self, container: ContainerId, engine_name: str) -> None:
        """A container's record or allocation is another now, or gone, and that is saved."""
        ...

    def cut_sessions(self, engine_id: EngineId) -> None:
        """Shut down every shell connection of this container."""
        ...

    def relist(self) -> None:
        """Ask the engine for a listing soon."""
        ...
