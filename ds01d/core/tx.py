"""A transaction: writes through, remembers, and on a refusal plays everything back, so that nothing has changed."""

from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from ds01d.core import laws
from ds01d.core.effects import Effect, Finished
from ds01d.core.state import Sight, State, wake_of_allocation, wake_of_container, wake_of_operation
from ds01d.core.table import Table
from ds01d.model.allocation import Allocation
from ds01d.model.container import Container
from ds01d.model.ids import ContainerId
from ds01d.model.operation import Failure, Operation, OperationState
from ds01d.model.policy import Policy

K = TypeVar("K", bound=str)
V = TypeVar("V")


class Change(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One record's way over a whole transaction: what it was before, what it is now."""

    table: str
    id: str
    old: object | None
    new: object | None
    #: Of a record that is gone: how it was when it went.
    last: object | None = None


_encode = msgspec.json.Encoder().encode


class Tx:
    """One event's view of the state. `now` is epoch seconds; nothing in the core asks a clock."""

    __slots__ = ("_counter", "_lasts", "_olds", "_policy", "_sight", "effects", "now", "state")

    def __init__(self, state: State, now: float) -> None:
        self.state = state
        self.now = now
        self.effects: list[Effect] = []
        #: What was there before, by table and id, in the order of change.
        self._olds: dict[tuple[str, str], tuple[Table[Any, Any], object | None]] = {}
        self._lasts: dict[tuple[str, str], object | None] = {}
        self._counter = state.counter
        self._sight = state.sight
        self._policy = state.policy

    def put(self, table: Table[K, V], key: K, record: V | None) -> None:
        """Store a record, or delete it with None."""
        old = table.store(key, record)
        place = (table.name, key)
        if place not in self._olds:
            self._olds[place] = (table, old)
        if record is None and old is not None:
            self._lasts[place] = old

    def change(self, container: Container, **fields: object) -> Container:
        """Store a container with some fields changed, and give the new record."""
        new = replace(container, **fields)
        self.put(self.state.containers, container.id, new)
        return new

    def claim(self, allocation: Allocation, **fields: object) -> Allocation:
        """Store an allocation with some fields changed, and give the new record."""
        new = replace(allocation, **fields)
        self.put(self.state.allocations, allocation.id, new)
        return new

    def finish(self, operation: Operation, outcome: str, failure: Failure | None = None) -> None:
        """End an operation, well or not, and wake whoever waits for it."""
        ended = replace(
            operation,
            state=OperationState.DONE if failure is None else OperationState.FAILED,
            outcome=outcome,
            failure=failure,
            stage="",
            finished_at=self.now,
        )
        self.put(self.state.operations, operation.id, ended)
        self.emit(Finished(operation=operation.id))

    def see(self, sight: Sight) -> None:
        """Replace what is known of the world outside."""
        self.state.sight = sight

    def emit(self, effect: Effect) -> None:
        """Ask for something to be done once this is saved."""
        self.effects.append(effect)

    def new_id(self) -> str:
        """An id that never was and never comes again: `lineage-counter`."""
        self.state.counter += 1
        return f"{self.state.lineage}-{self.state.counter}"

    def govern(self, policy: Policy) -> None:
        """Put a policy in force."""
        self.state.policy = policy

    def touched(self) -> list[tuple[object | None, object | None]]:
        """What was changed so far, as (old, new)."""
        return [(old, table.rows.get(key)) for (_, key), (table, old) in self._olds.items()]

    def rollback(self) -> None:
        """Play everything back: nothing changed, nothing left."""
        for (_, key), (table, old) in reversed(self._olds.items()):
            table.store(key, old)
        self._olds.clear()
        self._lasts.clear()
        self.effects.clear()
        self.state.counter = self._counter
        self.state.sight = self._sight
        self.state.policy = self._policy

    def commit(self) -> tuple[Change, ...]:
        """Fold to a change list, hold it against the local laws, encode what changed and note its deadlines."""
        state = self.state
        changes = []
        for (name, key), (table, old) in self._olds.items():
            new = table.rows.get(key)
            if new is not old and new != old:
                last = self._lasts.get((name, key)) if new is None else None
                changes.append(Change(table=name, id=key, old=old, new=new, last=last))
        if not changes:
            return ()
        for change in changes:
            laws.local(state, change.old, change.new)
        state.revision += 1
        for change in changes:
            self._note(state.tables[change.table], change)
        return tuple(changes)

    def _note(self, table: Table[str, object], change: Change) -> None:
        state, new = self.state, change.new
        record = new if new is not None else change.old
        wake: float | None = None
        match record:
            case Container(id=container):
                state.changed_at[container] = state.revision
                wake = wake_of_container(record)
            case Allocation(container=container):
                if container in state.containers.rows:
                    state.changed_at[container] = state.revision
                wake = wake_of_allocation(record)
            case Operation():
                wake = wake_of_operation(record)
            case _:
                pass
        if new is None:
            table.encoded.pop(change.id, None)
            if isinstance(record, Container):
                state.changed_at.pop(ContainerId(change.id), None)
            return
        table.encoded[change.id] = _encode(new)
        if wake is not None:
            state.push_deadline(wake, change.table, change.id)
