"""Everything the daemon knows: tables that are saved, and a sight of the world that is not.

Nothing here decides. Records change only through a `Tx`; `Sight` is replaced as a whole by observations.
"""

import heapq
from typing import Any

import msgspec

from ds01d.core.table import Table
from ds01d.model.allocation import NEVER, Allocation
from ds01d.model.container import Container
from ds01d.model.facts import Engine, ForeignContainer, GpuProcess
from ds01d.model.gpu import Gpu, Slot
from ds01d.model.ids import AllocationId, ContainerId, EngineId, GpuUuid, OperationId, SlotId
from ds01d.model.operation import Operation, OperationState
from ds01d.model.policy import Policy


class SlotUse(msgspec.Struct, frozen=True, kw_only=True):
    """What NVML shows on a slot: unknown is None, never zero."""

    processes: tuple[GpuProcess, ...] = ()
    used_mib: int | None = None
    net_of_reserved: bool = False


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """What was last seen of the world. Never saved: after a restart it is looked at anew."""

    #: When the last good picture of the GPUs was handled; epoch seconds.
    seen_at: float | None = None
    #: For so long after that (seconds) slots are given by it: two polls.
    good_for_s: float = 0.0
    #: Why the GPUs cannot be seen now.
    blind: str | None = "no look at the GPUs was finished yet"
    driver: str = ""
    #: What stands behind each slot now: minor, GPU instance, compute instance. Ids are reused by the driver.
    devices: dict[SlotId, tuple[int, int | None, int | None]] = {}
    slots: dict[SlotId, SlotUse] = {}
    #: Index, UUID, MIG UUID, `0:1`, `/dev/nvidia0` → the slots meant.
    names: dict[str, tuple[SlotId, ...]] = {}
    foreign: dict[EngineId, ForeignContainer] = {}
    #: Slots named by a running foreign container, with its id; and of each such container all that it names.
    foreign_slots: dict[SlotId, EngineId] = {}
    foreign_on: dict[EngineId, frozenset[SlotId]] = {}
    #: Containers with our label and no record, in words for the operators; and who may turn out to be one.
    unaccounted: dict[EngineId, str] = {}
    suspected: frozenset[EngineId] = frozenset()
    engine: Engine | None = None
    #: Since when the engine does not answer, and why.
    silent_since: float | None = None
    silent_why: str = ""
    #: When an engine that we knew was last heard before it was restarted; what ended earlier did not end by that.
    heard_until: float | None = None


def _slot_words(a: Allocation) -> tuple[SlotId, ...]:
    return a.slots


class State:
    """The tables, their counter and the policy. One writer: the loop, through `Tx`."""

    def __init__(self, *, lineage: str, boot_id: str = "", policy: Policy | None = None) -> None:
        #: Names this history; a new one after a fall-back to an older file, so that no id comes round again.
        self.lineage = lineage
        #: Every lineage before it: what carries one of these on its label is ours too.
        self.lineages: tuple[str, ...] = ()
        self.boot_id = boot_id
        self.counter = 0
        #: Raised by every commit; not saved as such, the store writes it beside.
        self.revision = 0
        self.policy = policy if policy is not None else Policy()
        #: What is wrong with the daemon's own settings on disk, where older ones are in force; None: nothing.
        self.settings_complaint: str | None = None
        self.sight = Sight()
        #: No start-up was held against reality yet: nothing is decided before.
        self.settled = False
        self.containers: Table[ContainerId, Container] = Table(
            "containers",
            {
                "name": lambda c: () if c.stray else ((c.uid, c.name),),
                "uid": lambda c: () if c.stray else (c.uid,),
                "key": lambda c: (c.key,),
                "engine_id": lambda c: () if c.engine_id is None else (c.engine_id,),
                "blocks": lambda c: c.blocks,
            },
        )
        self.allocations: Table[AllocationId, Allocation] = Table(
            "allocations",
            {
                "container": lambda a: (a.container,),
                "uid": lambda a: (a.uid,),
                "slot": _slot_words,
            },
        )
        self.operations: Table[OperationId, Operation] = Table(
            "operations",
            {
                "pending": lambda o: (o.container,) if o.state is OperationState.PENDING else (),
                "request": lambda o: () if o.request_id is None else ((o.uid, o.request_id),),
                "uid": lambda o: (o.uid,),
            },
        )
        self.gpus: Table[GpuUuid, Gpu] = Table("gpus")
        self.slots: Table[SlotId, Slot] = Table(
            "slots",
            {
                "gpu": lambda s: (s.gpu,),
                "name": lambda s: (s.name,),
                "whole": lambda s: ((s.gpu, s.profile is None),),
            },
        )
        #: By name, in the order in which they are saved.
        self.tables: dict[str, Table[Any, Any]] = {
            t.name: t for t in (self.containers, self.allocations, self.operations, self.gpus, self.slots)
        }
        #: The revision at which each container's record or allocation last changed.
        self.changed_at: dict[ContainerId, int] = {}
        self._deadlines: list[tuple[float, str, str]] = []

    def allocation_of(self, container: ContainerId) -> Allocation | None:
        """The allocation of a container, if it has one."""
        return self.allocations.one("container", container)

    def excluded_by(self, slot: Slot) -> tuple[Slot, ...]:
        """What cannot be given while this slot is: a card's slices and the whole card exclude each other."""
        return self.slots.of("whole", (slot.gpu, slot.profile is not None))

    def push_deadline(self, when: float, table: str, key: str) -> None:
        """Remember that a record wants to be looked after at this time; stale ones are dropped when they come up."""
        heapq.heappush(self._deadlines, (when, table, key))

    def next_deadline(self) -> float | None:
        """The earliest moment at which anything may change by itself, or None."""
        while self._deadlines:
            when, table, key = self._deadlines[0]
            if self._wants(table, key) == when:
                return when
            heapq.heappop(self._deadlines)
        return None

    def pop_due(self, now: float) -> tuple[str, str] | None:
        """The next record whose time has come, as (table, id)."""
        while True:
            when = self.next_deadline()
            if when is None or when > now:
                return None
            _, table, key = heapq.heappop(self._deadlines)
            return table, key

    def _wants(self, table: str, key: str) -> float | None:
        if table == "containers":
            container = self.containers.rows.get(ContainerId(key))
            return None if container is None else wake_of_container(container)
        if table == "allocations":
            allocation = self.allocations.rows.get(AllocationId(key))
            return None if allocation is None else wake_of_allocation(allocation)
        operation = self.operations.rows.get(OperationId(key))
        return None if operation is None else wake_of_operation(operation)


#: Seconds that an answer may be late before the order counts as uncertain without it.
OVERDUE_S = 5.0
#: Seconds for which a finished operation can be asked for.
OPERATION_KEPT_S = 24 * 3600.0


def wake_of_container(c: Container) -> float | None:
    """When a container's record wants to be looked after, whatever else happens."""
    if c.frozen:
        return None
    times = []
    if c.order is not None:
        if not c.order.uncertain:
            times.append(c.order.deadline + OVERDUE_S)
    elif c.retry_at is not None:
        times.append(c.retry_at)
    if c.cut_at is not None:
        times.append(c.cut_at)
    return min(times) if times else None


def wake_of_allocation(a: Allocation) -> float | None:
    """When a hold ends."""
    return None if a.deadline is None or a.deadline >= NEVER else a.deadline


def wake_of_operation(o: Operation) -> float | None:
    """When a finished operation is forgotten."""
    return None if o.finished_at is None else o.finished_at + OPERATION_KEPT_S
