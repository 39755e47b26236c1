"""What always holds. The local laws judge what a transaction touched; `check` judges the whole state.

A broken law is a bug of ours: the transaction is undone, the event logged whole, the record looked at afresh.
"""

from ds01d.core.state import State
from ds01d.model.allocation import CLAIM_MOVES, Allocation, Claim
from ds01d.model.container import MOVES, Container, Phase

#: The phases in which a container may be while its allocation is so.
FITS = {
    Claim.RESERVED: frozenset({Phase.CREATING}),
    Claim.HELD: frozenset({Phase.STOPPED}),
    Claim.BOUND: frozenset({Phase.STARTING, Phase.RUNNING, Phase.STOPPING}),
    Claim.RELEASING: frozenset(Phase) - {Phase.CREATING},
}


class LawBroken(AssertionError):
    """Something that must never be."""


def local(state: State, old: object | None, new: object | None) -> None:
    """Judge one change."""
    match new if new is not None else old:
        case Container():
            _container(state, old if isinstance(old, Container) else None, new if isinstance(new, Container) else None)
        case Allocation():
            _allocation(
                state, old if isinstance(old, Allocation) else None, new if isinstance(new, Allocation) else None
            )
        case _:
            pass


def _container(state: State, old: Container | None, new: Container | None) -> None:
    if new is None:
        if old is not None and state.allocation_of(old.id) is not None:
            raise LawBroken(f"container {old.id} is gone while its allocation is not")
        return
    if old is not None and old.phase is not new.phase and new.phase not in MOVES[old.phase]:
        raise LawBroken(f"container {new.id} cannot move from {old.phase} to {new.phase}")
    if not new.stray and state.containers.count("name", (new.uid, new.name)) > 1:
        raise LawBroken(f"two containers of {new.uid} are called {new.name}")
    if state.containers.count("key", new.key) > 1:
        raise LawBroken(f"two containers have the key of {new.id}")
    if new.engine_id is not None and state.containers.count("engine_id", new.engine_id) > 1:
        raise LawBroken(f"two records mean the engine's container {new.engine_id}")
    _pair(new, state.allocation_of(new.id))


def _allocation(state: State, old: Allocation | None, new: Allocation | None) -> None:
    if new is None:
        if old is not None:
            if old.claim is not Claim.RELEASING:
                raise LawBroken(f"allocation {old.id} was freed out of {old.claim}: no proof")
            _pair(state.containers.get(old.container), None)
        return
    if old is not None and old.claim is not new.claim and new.claim not in CLAIM_MOVES[old.claim]:
        raise LawBroken(f"allocation {new.id} cannot move from {old.claim} to {new.claim}")
    if old is not None and (old.slots != new.slots or old.container != new.container):
        raise LawBroken(f"allocation {new.id} changed what it promises")
    if (new.deadline is not None) != (new.claim is Claim.HELD):
        raise LawBroken(f"allocation {new.id} is {new.claim} with the deadline {new.deadline}")
    if state.allocations.count("container", new.container) > 1:
        raise LawBroken(f"container {new.container} has two allocations")
    if not new.slots or len(set(new.slots)) != len(new.slots):
        raise LawBroken(f"allocation {new.id} names {new.slots}")
    for slot_id in new.slots:
        if state.allocations.count("slot", slot_id) > 1:
            raise LawBroken(f"slot {slot_id} stands in two allocations")
        slot = state.slots.get(slot_id)
        if slot is None:
            raise LawBroken(f"allocation {new.id} names the unknown slot {slot_id}")
        for other in state.excluded_by(slot):
            if state.allocations.count("slot", other.id):
                raise LawBroken(f"slot {slot_id} is given while {other.id} of the same card is")
    _pair(state.containers.get(new.container), new)


def _pair(container: Container | None, allocation: Allocation | None) -> None:
    """A container's phase and its allocation's claim fit together."""
    if container is None:
        if allocation is not None:
            raise LawBroken(f"allocation {allocation.id} belongs to no container")
        return
    if allocation is None:
        if container.wants_gpu and container.phase is Phase.CREATING:
            raise LawBroken(f"container {container.id} is {container.phase} and holds nothing")
        return
    if container.phase not in FITS[allocation.claim]:
        raise LawBroken(f"container {container.id} is {container.phase} and its allocation {allocation.claim}")
    if not container.wants_gpu:
        raise LawBroken(f"container {container.id} was made without a GPU and holds {allocation.slots}")


def check(state: State) -> None:
    """Judge the whole state: every record by the local laws, and every index against its records."""
    for container in state.containers:
        _container(state, container, container)
    for allocation in state.allocations:
        _allocation(state, allocation, allocation)
    for table in state.tables.values():
        for index in table.index_names:
            if table.derived(index) != table.kept(index):
                raise LawBroken(f"the index {index} of {table.name} differs from its records")
        if set(table.rows) != set(table.encoded):
            raise LawBroken(f"{table.name} has records that were never encoded")
