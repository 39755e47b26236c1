"""The daemon of the simulation: the real core, and a model of the loop that saves, then acts, and may die at any time.

An effect leaves when a save of its revision, or of a later one, has succeeded; a look changes nothing and may leave at
once. While saving fails no request is taken and no deadline fires. What dies with the daemon: the state in memory,
everything that waits for a save, every answer on its way, and its own writes. The disk keeps two files.
"""

from collections.abc import Callable

import msgspec

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core import laws
from ds01d.core.core import Outcome, handle
from ds01d.core.settling import due
from ds01d.core.snapshot import dump, load
from ds01d.core.state import State
from ds01d.model.facts import CgroupStatus, Engine, EngineStatus, ForeignContainer, GpuProcess, Listed
from ds01d.model.ids import EngineId, EngineName, GpuUuid, OperationId, SlotId, Uid
from ds01d.model.permission import PermissionSeen
from ds01d.model.policy import Policy
from ds01d.model.probe import Picture
from tests.sim.engine import Engine as SimEngine
from tests.sim.hands import Hands
from tests.sim.machine import Machine
from tests.sim.stumbling import stumble


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a world, and its habits."""

    #: One number a card: into how many slices it is cut; 0: not cut.
    cards: tuple[int, ...] = (0, 0)
    users: int = 2
    #: How many containers a user may have.
    each: int = 2
    keeps_running: bool = True
    early_looks: bool = False
    #: Some containers ask for several slots, or none.
    counts: tuple[int, ...] = (1,)
    #: How long a stopped container keeps its slots, seconds; None: for ever.
    hold_s: float | None = 60.0
    #: A cgroup that was never recorded is looked for in the wrong place.
    odd_cgroups: bool = False


class Broken(AssertionError):
    """The daemon did what it must never do."""


class Copy:
    """One saved state."""

    __slots__ = ("body", "boot_id", "holders", "lineage", "revision")

    def __init__(self, state: State) -> None:
        self.body = dump(state)
        self.lineage = state.lineage
        self.boot_id = state.boot_id
        self.revision = state.revision
        #: Who held which slot in it.
        self.holders = {slot: a.container for a in state.allocations for slot in a.slots}


#: States that are there to be restored.
BACKUPS = 12


class Disk:
    """The state file and the one before it."""

    def __init__(self) -> None:
        self.main: Copy | None = None
        self.before: Copy | None = None
        #: The main file cannot be read.
        self.broken = False
        #: What an operator may bring back: the last few states that were saved.
        self.backups: list[Copy] = []
        #: An operator has put an older state in place.
        self.restored = False
        #: Nothing can be written.
        self.full = False
        self.lineages = 0
        #: Operations whose end their callers were told; a daemon that comes after has to know it.
        self.answered: dict[OperationId, None] = {}

    def next_lineage(self) -> str:
        self.lineages += 1
        return f"L{self.lineages}"

    def keep(self, copy: Copy) -> None:
        if not self.broken:
            self.before = self.main
        self.main, self.broken, self.restored = copy, False, False
        self.backups = [*self.backups[-(BACKUPS - 1) :], copy]

    def restore(self, copy: Copy) -> None:
        """An operator brings an older state back; the daemon that loads it begins a history of its own."""
        self.main, self.broken, self.restored = copy, False, True


class Listing:
    """A listing on its way: asked for at a revision, seen at an instant, told later."""

    __slots__ = ("foreign", "permissions", "revision", "seen")

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.seen: tuple[Listed, ...] | None = None
        self.foreign: tuple[ForeignContainer, ...] = ()
        self.permissions: tuple[PermissionSeen, ...] | None = None


Watcher = Callable[[State, ev.Event, Outcome], None]


class Daemon:
    """One life of the daemon, from its start to its death."""

    def __init__(
        self, machine: Machine, engine: SimEngine, disk: Disk, policy: Policy, *, setup: Setup, watch: Watcher
    ) -> None:
        self.machine = machine
        self.engine = engine
        self.disk = disk
        self.early_looks = setup.early_looks
        self.watch = watch
        self.state = self._load(policy)
        self.up = False
        self.failing = False
        self.hands = Hands(machine, engine, lambda answer: void(self.tell(answer)), odd_cgroups=setup.odd_cgroups)
        self.queue: list[tuple[int, do.Effect]] = []
        self.saved = self.state.revision
        self.saving: Copy | None = None
        self.listing: Listing | None = None
        self.picture: ev.Probed | None = None
        #: The engine's incarnation that it knows of; a new one is a reconnect.
        self.knows = engine.restarts
        self.silent = False
        self.last: list[ev.Answer] = []
        #: A fault of ours is in the way of the next record.
        self.trips = False
        self.first_listing = engine.listing() if engine.up else ()
        self.first_engine = self._engine()
        #: Foreign use of slots that the core was told of.
        self.foreign_told: dict[SlotId, EngineId] = {}

    def _load(self, policy: Policy) -> State:
        disk = self.disk
        copy, fell_back = disk.main, disk.restored
        if disk.broken:
            copy, fell_back = disk.before, True
        if copy is None:
            return State(lineage=disk.next_lineage(), boot_id="", policy=policy)
        state = load(
            copy.body,
            lineage=disk.next_lineage() if fell_back else copy.lineage,
            written_by=copy.lineage,
            boot_id=copy.boot_id,
            revision=copy.revision,
            policy=policy,
        )
        if fell_back:
            disk.answered.clear()
        for told in disk.answered:
            kept = state.operations.get(told)
            if kept is None or kept.finished_at is None:
                raise Broken(f"the caller of {told} was told its end, and a restart has forgotten it")
        return state

    # ---- start-up

    def settle(self) -> None:
        """The second half of a start-up: the files as they are now, and the listing as it was when it began."""
        self.up = True
        if not self.machine.blind:
            self.tell(self.take_picture())
        self.tell(
            ev.RealityObserved(
                boot_id=f"boot-{self.machine.boots}",
                engine=self.first_engine,
                listed=self.first_listing,
                foreign=self.foreign(),
                permissions=self.permissions(),
            )
        )
        self.silent = self.first_engine is None
        if self.silent:
            self.tell(ev.EngineSilent(reason="connection refused"))

    def permissions(self) -> tuple[PermissionSeen, ...]:
        m = self.machine
        found = []
        for key in sorted({*m.grants, *m.specs}):
            grant, spec = m.grants.get(key), m.specs.get(key)
            first = grant or spec
            assert first is not None
            slots = dict.fromkeys((*(grant.slots if grant else ()), *(spec.slots if spec else ())))
            agree = grant is None or spec is None or grant.same(spec)
            found.append(
                PermissionSeen(
                    key=key,
                    has_grant=grant is not None,
                    has_spec=spec is not None,
                    container_id=first.engine_id,
                    generation=first.generation,
                    slots=tuple(slots),
                    trouble=None if agree else "grant and spec disagree",
                )
            )
        return tuple(found)

    # ---- events

    def tell(self, event: ev.Event) -> Outcome:
        """One event into the core, and what may leave at once leaves."""
        state = self.state
        met = stumble(state, event, self.machine.now) if self.trips else None
        if met is not None:
            event, self.trips = met, False
        before = dump(state) if isinstance(event, ev.Request) else b""
        outcome = handle(state, event, self.machine.now)
        if outcome.faults:
            raise outcome.faults[0][1]
        if outcome.refused is not None and dump(state) != before:
            raise Broken(f"{event} was refused and changed something")
        if outcome.changes:
            laws.check(state)
        for change in outcome.changes:
            if change.table == "operations" and change.new is None:
                self.disk.answered.pop(OperationId(change.id), None)
        self.watch(state, event, outcome)
        for effect in outcome.effects:
            self.queue.append((state.revision, effect))
        if isinstance(event, ev.Done | ev.Failed | ev.Uncertain | ev.Looked):
            self.last = [*self.last[-3:], event]
        self._release()
        return outcome

    def _release(self) -> None:
        queue, self.queue = self.queue, []
        for revision, effect in queue:
            if revision <= self.saved or (self.early_looks and isinstance(effect, do.LookAt)):
                self._let_go(effect)
            else:
                self.queue.append((revision, effect))

    def _let_go(self, effect: do.Effect) -> None:
        match effect:
            case do.CutSessions():
                made = self.engine.made.get(effect.engine_id)
                if made is not None:
                    made.unread = False
            case do.Finished():
                if effect.operation in self.state.operations.rows:
                    self.disk.answered[effect.operation] = None
            case do.Tell() | do.Alert() | do.Relist():
                pass
            case _:
                c = self.state.containers.get(effect.container)
                if c is not None and c.order is not None and c.order.id == effect.order:
                    self.hands.take(effect)

    @property
    def out_of_touch(self) -> bool:
        return self.silent or self.knows != self.engine.restarts

    @property
    def takes_requests(self) -> bool:
        return self.up and not self.failing

    @property
    def may_wake(self) -> bool:
        when = self.state.next_deadline()
        return self.up and not self.failing and when is not None and when <= self.machine.now

    # ---- saving

    @property
    def unsaved(self) -> bool:
        return self.state.revision > self.saved

    def begin_save(self) -> None:
        self.saving = Copy(self.state)

    def end_save(self) -> None:
        copy, self.saving = self.saving, None
        assert copy is not None
        if self.disk.full:
            self.failing = True
            return
        self.disk.keep(copy)
        self.failing = False
        self.saved = copy.revision
        self._release()

    # ---- observations

    def ask_listing(self) -> None:
        self.listing = Listing(self.state.revision)

    def list_step(self) -> None:
        listing = self.listing
        assert listing is not None
        if listing.seen is None:
            listing.seen, listing.foreign = self.engine.listing(), self.foreign()
            return
        if listing.permissions is None:
            listing.permissions = self.permissions()
            return
        self.listing = None
        self.tell(
            ev.Relisted(
                revision=listing.revision,
                containers=listing.seen,
                foreign=listing.foreign,
                permissions=listing.permissions,
            )
        )

    def notice_silence(self) -> None:
        self.silent = True
        self.listing = None
        self.tell(ev.EngineSilent(reason="connection refused"))

    def reconnect(self, *, aware: bool = True) -> None:
        """The engine answers again; whether it was the same process all the time may go unnoticed."""
        self.silent = False
        restarted = aware and self.knows != self.engine.restarts
        self.knows = self.engine.restarts
        engine = self._engine()
        assert engine is not None
        self.tell(ev.EngineAnswered(engine=engine, restarted=restarted))

    def _engine(self) -> Engine | None:
        if not self.engine.up:
            return None
        return Engine(name=EngineName(self.engine.name), version="29.0", cdi=True, cgroup_driver="systemd")

    def foreign(self) -> tuple[ForeignContainer, ...]:
        return tuple(
            ForeignContainer(
                engine_id=who,
                name=str(who),
                origin="raw-docker",
                user=None,
                status=EngineStatus.RUNNING,
                cgroup=CgroupStatus.OCCUPIED,
                gpus=(slot.partition("/")[0],),
            )
            for slot, who in self.machine.foreign.items()
        )

    def take_picture(self) -> ev.Probed:
        m = self.machine
        processes = []
        for card in m.cards:
            for i, slot in enumerate(card.slots()):
                processes += [
                    GpuProcess(
                        gpu=GpuUuid(card.uuid),
                        gi=i + 1 if card.mig else None,
                        pid=1,
                        start_time=1,
                        uid=Uid(1),
                        user=None,
                        container=who,
                        used_mib=9000,
                    )
                    for who in m.on(slot)
                ]
        shot = Picture(at=0.0, revision=1, driver="580", gpus=m.seen())
        return ev.Probed(picture=shot, processes=tuple(processes))

    # ---- at the end

    def restless(self) -> list[str]:
        """What is still under way, in words."""
        words = []
        for c in self.state.containers:
            a = self.state.allocation_of(c.id)
            name = due(c, a)
            if c.order is not None:
                words.append(f"{c.id} has {c.order.name} outstanding")
            elif name is not None:
                words.append(f"{c.id} is {c.phase} and wants {name}")
        return words

    def pending(self) -> list[OperationId]:
        return [o.id for o in self.state.operations if o.finished_at is None]


def void(_: object) -> None:
    """Throw an answer away."""
