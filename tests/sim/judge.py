"""What must hold of the world, whatever happened: judged at the instants at which it could break."""

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.core import Outcome
from ds01d.core.state import State
from ds01d.model.allocation import Allocation, Claim
from ds01d.model.container import Container, Phase
from ds01d.model.ids import ContainerId, EngineId, SlotId
from ds01d.model.operation import OperationState, Verb
from tests.sim.daemon import Broken, Daemon, Disk
from tests.sim.engine import Engine
from tests.sim.machine import Machine, Proc, Unsafe, touching


class Judge:
    """Holds the ledger against the machine."""

    def __init__(self, machine: Machine, engine: Engine, disk: Disk) -> None:
        self.machine = machine
        self.engine = engine
        self.disk = disk
        #: What the daemon was told of foreign use: by NVML, and by the engine.
        self.foreign: dict[SlotId, EngineId] = {}
        self.named: dict[SlotId, EngineId] = {}
        self.blind = False
        #: The slots that NVML showed last.
        self.there: set[SlotId] = set()
        #: Containers that somebody wanted stopped, or removed.
        self.to_stop: dict[ContainerId, None] = {}
        self.to_remove: dict[ContainerId, None] = {}

    def watch(self, state: State, event: ev.Event, outcome: Outcome) -> None:
        """After every event."""
        self._hear(event, outcome)
        for effect in outcome.effects:
            if isinstance(effect, do.Order):
                self._ordered(state, effect)
        for change in outcome.changes:
            if change.table != "allocations":
                continue
            if isinstance(change.old, Allocation) and change.new is None:
                self._freed(state, change.old)
            if isinstance(change.new, Allocation) and change.old is None:
                self._given(state, change.new, event)

    def _hear(self, event: ev.Event, outcome: Outcome) -> None:
        """What the daemon may know, and what people want of it."""
        match event:
            case ev.Probed():
                self.foreign, self.there, self.blind = dict(self.machine.foreign), self.machine.here(), False
            case ev.Blinded():
                self.blind = True
            case ev.Relisted() | ev.RealityObserved():
                told = {f.engine_id for f in event.foreign}
                self.named = {slot: who for slot, who in self.machine.foreign.items() if who in told}
            case ev.StartRequested() if outcome.refused is None:
                self.to_stop.pop(event.container, None)
            case ev.StopRequested() if outcome.refused is None:
                self.to_stop[event.container] = None
            case ev.RemoveRequested() if outcome.refused is None:
                self.to_stop[event.container] = self.to_remove[event.container] = None
            case _:
                pass

    def recalled(self, state: State) -> None:
        """This state is in force: a stop that was wanted then is wanted again, whatever was asked for since."""
        self.to_stop.update(dict.fromkeys(c.id for c in state.containers if c.phase is Phase.STOPPING))

    def _ordered(self, state: State, order: do.Order) -> None:
        """Nothing is stopped or removed that nobody wants stopped or removed."""
        c = state.containers.get(order.container)
        if c is None:
            return
        match order:
            case do.StopContainer() | do.KillContainer():
                if c.id not in self.to_stop:
                    raise Unsafe(f"{c.id} is stopped, and nobody asked for that")
            case do.RemoveContainer(engine_id=engine_id):
                if c.id not in self.to_remove and self._matters(state, c, engine_id):
                    raise Unsafe(f"{c.id} is removed, and nobody asked for that")
            case do.KillGhost():
                if c.stray:
                    raise Unsafe(f"{c.id} was not made by us, and its processes are killed")
            case _:
                pass

    def _matters(self, state: State, c: Container, engine_id: EngineId) -> bool:
        """Whether its removal takes anything away from anybody: it ran, or its owner was told that he has it."""
        made = self.engine.made.get(engine_id)
        if made is None:
            return False
        told = (o for o in state.operations if o.container == c.id and o.id in self.disk.answered)
        return made.started_at > 0 or any(o.verb is Verb.CREATE and o.state is OperationState.DONE for o in told)

    def _freed(self, state: State, a: Allocation) -> None:
        for slot in a.slots:
            # What the ledger has for gone is given to nobody before it is seen again, with its memory.
            known = state.slots.get(slot)
            there = known is not None and not known.lost and slot in self.machine.here()
            if there and slot in self.machine.lingering:
                raise Unsafe(f"{slot} was freed while the driver held memory of {a.container} there")
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
                if self.blind:
                    raise Unsafe(f"{slot} was given to {a.container} while nobody could see the GPUs")
                if slot not in self.there:
                    raise Unsafe(f"{slot} was given to {a.container}, and the machine has no such slot now")
                for used, who in (*self.foreign.items(), *self.named.items()):
                    if touching((used,), (slot,)):
                        raise Unsafe(f"{slot} was given to {a.container} while {who} was seen on it")

    def at_rest(self, daemon: Daemon) -> None:
        """What is promised to a user holds on disk wherever nothing is under way."""
        for c in daemon.state.containers:
            a = daemon.state.allocation_of(c.id)
            if a is None or c.order is not None or c.retry_at is not None or a.lost or c.frozen:
                continue
            if c.key in self.machine.wiped:
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
