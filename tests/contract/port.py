"""What the rest of the daemon relies on of an engine: the orders it takes, and what people and accidents do to it.

The suite asks an engine of this shape; the real one stands in a box, a fake one has to give the same answers.
"""

from collections.abc import Callable
from typing import Protocol

from ds01d.core.effects import AnyOrder
from ds01d.core.events import Answer, Event
from ds01d.model.ids import EngineId, Key


class World(Protocol):
    """An engine, the daemon's hands on it, and everybody else's."""

    def perform(self, order: AnyOrder) -> Answer:
        """Carry out one order of the core's; late answers of the disk are among the posted."""

    def perform_while(self, order: AnyOrder, accident: Callable[[], None]) -> Answer:
        """Give an order, let something happen while it is under way, and wait for its answer."""

    def posted(self) -> list[Event]:
        """Everything observed since the last call."""

    def wait(self, seconds: float) -> None:
        """Let time pass, in this world."""

    def engine_id_of(self, name: str) -> EngineId:
        """What the engine calls the container of this name."""

    # --- people with access to the engine

    def raw_start(self, engine_id: EngineId) -> str:
        """`docker start`; the engine's complaint, or nothing."""

    def raw_create(self, name: str, key: Key | None = None) -> EngineId:
        """`docker create` of somebody's own container, which may name the device of a key that is not his."""

    # --- accidents

    def forge_generation(self, key: Key) -> None:
        """The grant says another generation than the spec that the engine has at hand."""

    def hold_starts(self, key: Key, seconds: float) -> None:
        """A start of the key's container hangs so long before its first instruction."""

    def kill_engine(self) -> None:
        """SIGKILL to the engine; it comes back by itself, and this returns when it answers."""

    def processes_in(self, engine_id: EngineId) -> int:
        """How many processes live in the container's cgroup."""
