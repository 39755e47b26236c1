"""One world and its daemon: who there is to whom something can happen, and what that does. No move draws lots."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.model.actor import Actor, Owner
from ds01d.model.container import Container, ContainerSpec, Phase
from ds01d.model.facts import EngineStatus
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import EngineId, EngineName, Key, SlotId, Uid
from ds01d.model.policy import Limits, Policy
from tests.sim.daemon import Copy, Daemon, Disk, Setup
from tests.sim.engine import Call, Engine, Made, Starting
from tests.sim.hands import Hands, Task
from tests.sim.judge import Judge
from tests.sim.machine import Card, Machine, Proc

S = TypeVar("S")

CREATED_S = 120.0


class Scene:
    """One world, and what can happen to it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.machine = Machine([Card(n, slices) for n, slices in enumerate(setup.cards)])
        self.engine = Engine(self.machine, keeps_running=setup.keeps_running)
        self.disk = Disk()
        self.judge = Judge(self.machine, self.engine, self.disk)
        limits = Limits(
            max_mig_instances=None,
            max_gpus_per_container=None,
            max_containers_per_user=setup.each,
            gpu_hold_after_stop=setup.hold_s,
            created_timeout=CREATED_S,
        )
        self.policy = Policy(groups={"student": limits}, sigterm_grace=10.0)
        self.daemon: Daemon | None = None
        self.asked = 0
        self.foreigners = 0
        self.words = 0
        self.last: ev.Request | None = None

    # ---- the daemon

    @property
    def hands(self) -> Hands:
        assert self.daemon is not None
        return self.daemon.hands

    def up(self, test: Callable[[Daemon], bool]) -> Sequence[Daemon]:
        d = self.daemon
        return (d,) if d is not None and d.up and test(d) else ()

    def tasks(self, pick: Callable[[Daemon], list[S]]) -> list[S]:
        d = self.daemon
        return pick(d) if d is not None and d.up else []

    def local(self) -> list[Task]:
        return self.tasks(lambda d: d.hands.local())

    def writes(self) -> list[Task]:
        return [t for t in self.local() if type(t.order).__name__ in {"Permit", "Withdraw"}]

    def step(self, t: Task) -> None:
        self.hands.step(t)

    def answer(self, t: Task) -> None:
        self.hands.answer(t)

    def lose_answer(self, t: Task) -> None:
        self.hands.breaks(t)

    def fail_to_write(self, t: Task) -> None:
        self.hands.write_fails(t)

    def tell_again(self, answer: ev.Answer) -> None:
        """An answer comes twice."""
        self.hands.tell(answer)

    def boot(self) -> None:
        self.daemon = Daemon(
            self.machine,
            self.engine,
            self.disk,
            self.policy,
            setup=self.setup,
            watch=self.judge.watch,
        )
        self.judge.recalled(self.daemon.state)

    def crash(self) -> None:
        for call in self.engine.calls:
            call.order = None
        self.daemon = None

    def hints(self) -> Sequence[int]:
        return range(len(self.engine.hints)) if self.daemon is not None and self.daemon.up else ()

    def hear(self, n: int) -> None:
        engine_id, action = self.engine.hints.pop(n)
        assert self.daemon is not None
        self.daemon.tell(ev.EngineHinted(engine_id=engine_id, action=action, at=self.machine.now))

    def unaware(self) -> Sequence[Daemon]:
        return self.up(lambda d: self.engine.up and d.silent and d.knows != self.engine.restarts)

    def sent(self) -> list[Task]:
        return self.tasks(lambda d: [t for t in d.hands.tasks.values() if t.call is not None])

    # ---- the world

    def execute(self, call: Call) -> None:
        self.engine.execute(call)
        self.forget_answered()

    def forget_answered(self) -> None:
        e = self.engine
        e.calls[:] = [c for c in e.calls if c.order is not None or c.result is None]

    def advance(self, s: Starting) -> None:
        self.engine.advance(s)
        if s.proc is not None and s.proc.guarded:
            self.judge.started(self.daemon, s.proc)
        self.forget_answered()

    def notice(self, made: Made) -> None:
        self.engine.notice(made)
        self.forget_answered()

    def unnoticed(self) -> list[Made]:
        return [x for x in self.engine.made.values() if self.engine.up and x.starved and not x.unread]

    def stale(self) -> list[Key]:
        cache, specs = self.engine.cache, self.machine.specs
        return [k for k in {**cache, **specs} if cache.get(k) is not specs.get(k)] if self.engine.up else []

    def refresh(self, key: Key) -> None:
        spec = self.machine.specs.get(key)
        if spec is None:
            self.engine.cache.pop(key, None)
        else:
            self.engine.cache[key] = spec

    def guarded(self) -> list[Proc]:
        return [p for p in self.machine.procs.values() if p.guarded]

    def stopping(self) -> list[Proc]:
        asked = {c.engine_id for c in self.engine.calls if c.executed and c.kind == "stop"}
        return [p for p in self.machine.procs.values() if p.guarded and p.container in asked]

    def raw(self, *statuses: EngineStatus) -> list[Made]:
        e = self.engine
        return [x for x in e.made.values() if x.status in statuses and not e.locked(x.id)] if e.up else []

    def startable(self) -> list[Made]:
        """What a person may start by himself.

        Left out is whatever has devices in its permission that mean other cards since the driver was loaded anew: that
        nobody starts it before the daemon has seen the new numbers is an assumption of the design.
        """
        specs, behind = self.engine.cache, self.machine.behind
        found = self.raw(EngineStatus.CREATED, EngineStatus.STOPPED)
        return [x for x in found if (spec := specs.get(x.key)) is None or behind(spec) in {None, spec.slots}]

    def raw_start(self, made: Made) -> None:
        if self.daemon is not None and self.daemon.up:
            self.judge.at_rest(self.daemon)
        self.engine.raw_start(made)

    def wait(self, seconds: float) -> None:
        self.machine.now += seconds
        if self.daemon is not None and self.daemon.up:
            self.daemon.hands.overdue()
            self.forget_answered()

    def next_deadline(self) -> Sequence[float]:
        d = self.daemon
        when = d.state.next_deadline() if d is not None and d.up else None
        return (when,) if when is not None and when > self.machine.now else ()

    def wait_until(self, when: float) -> None:
        self.wait(max(0.0, when - self.machine.now))

    def stranger(self, slot: SlotId) -> None:
        self.foreigners += 1
        self.machine.foreign[slot] = EngineId(f"f{self.foreigners}")

    def engine_dies(self) -> None:
        broken = self.engine.die()
        d = self.daemon
        if d is None or not d.up:
            return
        for order in broken:
            task = d.hands.tasks.get(order)
            if task is not None:
                d.hands.breaks(task)

    def mortal(self) -> Sequence[None]:
        """Not in the middle of a start where that leaves a ghost which nobody could find."""
        e = self.engine
        return (None,) if e.up and not (self.setup.odd_cgroups and e.starting) else ()

    def begun(self) -> list[Starting]:
        return [s for s in self.engine.starting if s.proc is not None] if self.engine.up else []

    def engine_made_anew(self) -> None:
        """Docker is installed anew: what it had made is forgotten, what ran may run on."""
        self.engine_dies()
        self.engine.made_anew()

    def old_engines(self) -> list[EngineName]:
        """Engines that may come back.

        Left out are those to which the ledger ascribes what another made that came in the middle of a creation.
        """
        d, e = self.daemon, self.engine
        if d is None or not e.up:
            return []
        ascribed = set()
        for maker, made in (*e.shelf.items(), (e.name, e.made)):
            records = [d.state.containers.get(x.label) for x in made.values() if x.label is not None]
            ascribed |= {c.engine for c in records if c is not None and c.engine != maker}
        return [name for name in e.shelf if name not in ascribed]

    def old_engine_back(self, name: EngineName) -> None:
        """The data of an engine that was there before are in place again."""
        self.engine_dies()
        self.engine.made_as_before(name)

    def breakable(self) -> Sequence[None]:
        return (None,) if self.daemon is None and not self.disk.broken and self.disk.before is not None else ()

    def backups(self) -> Sequence[Copy]:
        """Older states to bring back; those first in which a slot is another's than now.

        Left out is a moment in which something runs whose permission was just taken and which has not opened its card:
        neither a file nor NVML tells a state that does not know it where it runs.
        """
        main = self.disk.main
        if self.daemon is not None or main is None or any(self.untold(p) for p in self.guarded()):
            return ()
        others = [c for c in self.disk.backups if any(main.holders.get(s, who) != who for s, who in c.holders.items())]
        return others or self.disk.backups[:-1]

    def untold(self, proc: Proc) -> bool:
        """Whether nothing outside of the ledger tells on which slots this process runs."""
        made, m = self.engine.made.get(proc.container), self.machine
        return not proc.visible and made is not None and made.key not in {*m.grants, *m.specs}

    def stuck(self) -> list[Task]:
        return self.tasks(lambda d: [t for t in d.hands.tasks.values() if t.stuck])

    def driver_idle(self) -> Sequence[None]:
        """Whether the driver could be loaded anew: only while nothing uses it and nobody looks."""
        m, e = self.machine, self.engine
        idle = self.daemon is None and not (m.procs or m.foreign or e.starting or e.calls)
        return (None,) if idle else ()

    def reboot(self) -> None:
        self.crash()
        self.engine.reboot()
        self.machine.reboot()

    def once_seen(self) -> None:
        """The GPUs have been looked at this moment."""
        assert self.daemon is not None
        self.daemon.tell(self.daemon.take_picture())

    def set_full(self, full: bool) -> None:
        self.disk.full = full

    def set_blind(self, blind: bool) -> None:
        self.machine.blind = blind

    def file_breaks(self) -> None:
        self.disk.broken = True

    def set_lost(self, card: Card, lost: bool) -> None:
        card.lost = lost
        if lost:
            for slot in card.slots():
                self.machine.lingering.pop(slot, None)
                self.machine.foreign.pop(slot, None)

    def idle_cards(self) -> list[Card]:
        m = self.machine
        return [c for c in m.cards if not c.lost and not any(m.on(s) for s in c.slots()) and c.slices]

    # ---- people

    def creators(self) -> Sequence[int]:
        d = self.daemon
        if d is None or not d.takes_requests:
            return ()
        return [u for u in range(self.setup.users) if d.state.containers.count("uid", Uid(u)) < self.setup.each]

    def create(self, user: int) -> None:
        self.asked += 1
        count = self.setup.counts[self.asked % len(self.setup.counts)]
        name = f"c{self.asked % (self.setup.each + 1)}"
        spec = ContainerSpec(image="image", gpus=GpuRequest(count=count) if count else None)
        owner = Owner(uid=Uid(user), gid=user, name=f"u{user}", home="/")
        request = ev.CreateRequested(
            actor=actor(Uid(user)), owner=owner, name=name, spec=spec, key=Key(f"k{self.asked}")
        )
        self.ask(request)

    def known(self, *phases: Phase) -> list[Container]:
        d = self.daemon
        if d is None or not d.takes_requests:
            return []
        return [c for c in d.state.containers if c.phase in phases and not c.stray]

    def left_behind(self) -> list[Container]:
        """Containers of an engine that is no more; an operator has seen that the present one does not know them."""
        d = self.daemon
        if d is None or not d.takes_requests:
            return []
        strange = [c for c in d.state.containers if c.engine != self.engine.name and c.phase is not Phase.CREATING]
        return [c for c in strange if c.engine_id not in self.engine.made]

    def take_for_gone(self, c: Container) -> None:
        self.ask(ev.ReleaseRequested(actor=OPERATOR, container=c.id, engine_gone=True))

    def files(self) -> list[tuple[Key, bool]]:
        """Each grant and spec on disk that nothing is being done about."""
        d, m = self.daemon, self.machine
        busy = (
            {t.order.key for t in d.hands.tasks.values() if isinstance(t.order, do.Permit | do.Withdraw)} if d else ()
        )
        return [(key, grant) for grant, kept in ((True, m.grants), (False, m.specs)) for key in kept if key not in busy]

    def wipe(self, file: tuple[Key, bool]) -> None:
        """A person takes a file of ours away."""
        key, grant = file
        (self.machine.grants if grant else self.machine.specs).pop(key)
        self.machine.wiped.add(key)

    def thaw(self) -> None:
        """An operator takes up again what was set aside."""
        assert self.daemon is not None
        for c in [c for c in self.daemon.state.containers if c.frozen]:
            self.ask(ev.ThawRequested(actor=OPERATOR, container=c.id))

    def keys(self) -> list[Key]:
        return list(self.machine.specs) if self.engine.up else []

    def asked_before(self) -> Sequence[ev.Request]:
        """The last request with a word of its own, as its caller repeats it after a lost connection."""
        d = self.daemon
        return (self.last,) if d is not None and d.takes_requests and self.last is not None else ()

    def ask_again(self, request: ev.Request) -> None:
        assert self.daemon is not None
        if isinstance(request, ev.CreateRequested):
            # The caller's word comes again; the key is the daemon's own, and a new one each time.
            self.asked += 1
            request = replace(request, key=Key(f"k{self.asked}"))
        self.daemon.tell(request)

    def ask(self, request: ev.Request) -> None:
        assert self.daemon is not None
        self.words += 1
        if not isinstance(request, ev.ThawRequested):
            request = replace(request, request_id=f"r{self.words}")
        self.last = request
        self.daemon.tell(request)


def actor(uid: Uid) -> Actor:
    return Actor(uid=uid, gid=int(uid), name=f"u{uid}")


OPERATOR = Actor(uid=Uid(99), gid=99, name="operator", operator=True)


def open_cards(proc: Proc) -> None:
    proc.visible = True


def leave_unread(made: Made) -> None:
    made.unread = True


def stick(task: Task) -> None:
    task.stuck = True


def loosen(task: Task) -> None:
    task.stuck = False


def cut_anew(card: Card) -> None:
    card.mig = not card.mig
