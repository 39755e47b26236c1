"""What must hold of the world, whatever happened: judged at the instants at which it could break."""

from ds01d.core import events as ev
from ds01d.core.core import Outcome
from ds01d.core.state import State
from ds01d.model.allocation import Allocation, Claim
from ds01d.model.ids import ContainerId, EngineId, SlotId
from tests.sim.daemon import Broken, Daemon
from tests.sim.engine import Engine
from tests.sim.machine import Machine, Proc, Unsafe, touching


class Judge:
    """Holds the ledger against the machine."""

    def __init__(self, machine: Machine, engine: Engine) -> None:
        self.machine = machine
        self.engine = engine
        #: What the daemon was told of foreign use.
        self.foreign: dict[SlotId, EngineId] = {}

    def watch(self, state: State, event: ev.Event, outcome: Outcome) -> None:
        """After every event."""
        if isinstance(event, ev.Probed):
            self.foreign = dict(self.machine.foreign)
        for change in outcome.changes:
            if change.table != "allocations":
                continue
            if isinstance(change.old, Allocation) and change.new is None:
                self._freed(change.old)
            if isinstance(change.new, Allocation) and change.old is None:
                self._given(state, change.new, event)

    def _freed(self, a: Allocation) -> None:
        for slot in a.slots:
            for proc in self.machine.users(slot):
                if self.engine.label_of.get(proc.container) == a.container:
                    raise Unsafe(f"{slot} was freed while {proc.container} ran on it")

    def _given(self, state: State, a: Allocation, event: ev.Event) -> None:
        c = state.containers.get(a.container)
        own = c.engine_id if c is not None else None
        for slot in a.slots:
            for proc in self.machine.users(slot):
                if proc.container != own:
                    raise Unsafe(f"{slot} was given to {a.container} while {proc.container} ran on it")
            if isinstance(event, ev.Request):
                for used, who in self.foreign.items():
                    if touching((used,), (slot,)):
                        raise Unsafe(f"{slot} was given to {a.container} while {who} was seen on it")

    def at_rest(self, daemon: Daemon) -> None:
        """What is promised to a user holds on disk wherever nothing is under way."""
        for c in daemon.state.containers:
            a = daemon.state.allocation_of(c.id)
            if a is None or c.order is not None or c.retry_at is not None or a.lost:
                continue
            if a.claim not in {Claim.HELD, Claim.BOUND}:
                continue
            grant, spec = self.machine.grants.get(c.key), self.machine.specs.get(c.key)
            if grant is None or spec is None or not grant.same(spec) or grant.slots != a.slots:
                raise Broken(f"{c.id} holds {a.slots}, and its permission on disk says otherwise")

    def started(self, daemon: Daemon | None, proc: Proc) -> None:
        """The guard let a container in: what it uses must be accounted for."""
        if daemon is None or not daemon.up:
            return
        state = daemon.state
        label = self.engine.label_of.get(proc.container)
        for slot in proc.slots:
            if not self._accounted(state, slot, label, proc.container):
                raise Unsafe(f"{proc.container} started on {slot}, which the ledger does not give it")

    def _accounted(self, state: State, slot: SlotId, label: ContainerId | None, engine_id: EngineId) -> bool:
        holder = state.allocations.one("slot", slot)
        if holder is not None and holder.container == label:
            return True
        if holder is not None:
            keeper = state.containers.get(holder.container)
            if keeper is not None and keeper.engine_id == engine_id:
                return True
        return state.containers.count("blocks", slot) > 0
