"""Everything that can happen next, as a table of moves: a history is a list of (move, number) and replays exactly.

No move draws lots. Which one comes next is the player's choice: a swarm's by weights, an explorer's one after the other.
A move names its subjects, in order; the number picks one of them, and a move without subjects does nothing.
"""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import msgspec

from ds01d.core import events as ev
from ds01d.model.actor import Actor, Owner
from ds01d.model.container import Container, ContainerSpec, Phase
from ds01d.model.facts import EngineStatus
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import ContainerId, EngineId, EngineName, Key, SlotId, Uid
from ds01d.model.policy import Limits, Policy
from tests.sim.daemon import Daemon, Disk
from tests.sim.engine import Call, Engine, Made, Starting
from tests.sim.hands import Task
from tests.sim.judge import Judge
from tests.sim.machine import Card, Machine, Proc

S = TypeVar("S")

CREATED_S = 120.0
HOLD_S = 60.0


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a world."""

    #: One number a card: into how many slices it is cut; 0: not cut.
    cards: tuple[int, ...] = (0, 0)
    users: int = 2
    #: How many containers a user may have.
    each: int = 2
    keeps_running: bool = True
    early_looks: bool = False
    #: Some containers ask for several slots, or none.
    counts: tuple[int, ...] = (1,)


class Move(NamedTuple, Generic[S]):
    """One kind of thing that can happen."""

    name: str
    #: How often it is chosen, compared with the others.
    weight: float
    #: It does harm; a swarm turns some of these up and others off, and at the end they are all over.
    fault: bool
    subjects: Callable[[], Sequence[S]]
    do: Callable[[S], object]


class Play:
    """One world, and what happens to it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.machine = Machine([Card(n, slices) for n, slices in enumerate(setup.cards)])
        self.engine = Engine(self.machine, keeps_running=setup.keeps_running)
        self.disk = Disk()
        self.judge = Judge(self.machine, self.engine)
        limits = Limits(
            max_mig_instances=None,
            max_gpus_per_container=None,
            max_containers_per_user=setup.each,
            gpu_hold_after_stop=HOLD_S,
            created_timeout=CREATED_S,
        )
        self.policy = Policy(groups={"student": limits}, sigterm_grace=10.0)
        self.daemon: Daemon | None = None
        self.asked = 0
        self.foreigners = 0
        self.moves = {m.name: m for m in self._moves()}

    def do(self, name: str, n: int) -> bool:
        """Make a move; False: there was nothing to make it with."""
        move = self.moves[name]
        subjects = move.subjects()
        if not subjects:
            return False
        move.do(subjects[n % len(subjects)])
        return True

    # ---- the table

    def _moves(self) -> tuple[Move, ...]:  # type: ignore[type-arg]  # each of its own kind
        m, e = self.machine, self.engine
        yes, when = (None,), self._when
        return (
            # the daemon at work
            Move("step", 60, False, self._local, lambda t: self._hands().step(t)),
            Move("answer", 30, False, lambda: self._tasks(lambda d: d.hands.answerable()), self._answer),
            Move(
                "begin save",
                25,
                False,
                lambda: self._up(lambda d: d.unsaved and d.saving is None),
                lambda d: d.begin_save(),
            ),
            Move("end save", 25, False, lambda: self._up(lambda d: d.saving is not None), lambda d: d.end_save()),
            Move("wake", 15, False, lambda: self._up(lambda d: d.may_wake), lambda d: d.tell(ev.Woke())),
            Move(
                "ask listing",
                0.7,
                False,
                lambda: self._up(lambda d: d.listing is None and e.up and not d.silent),
                lambda d: d.ask_listing(),
            ),
            Move(
                "listing", 6, False, lambda: self._up(lambda d: d.listing is not None and e.up), lambda d: d.list_step()
            ),
            Move("picture", 2, False, lambda: self._up(lambda _: not m.blind), lambda d: d.tell(d.take_picture())),
            Move(
                "blinded",
                2,
                False,
                lambda: self._up(lambda _: m.blind),
                lambda d: d.tell(ev.Blinded(reason="no driver")),
            ),
            Move(
                "silence", 4, False, lambda: self._up(lambda d: not d.silent and not e.up), lambda d: d.notice_silence()
            ),
            Move(
                "reconnect",
                4,
                False,
                lambda: self._up(lambda d: e.up and (d.silent or d.knows != e.restarts)),
                lambda d: d.reconnect(),
            ),
            Move(
                "reconnect unaware",
                1,
                True,
                lambda: self._up(lambda d: e.up and d.silent and d.knows != e.restarts),
                lambda d: d.reconnect(aware=False),
            ),
            Move("hint", 12, False, lambda: self._hints(), self._hint),
            Move("boot", 20, False, lambda: when(self.daemon is None), lambda _: self._boot()),
            Move(
                "settle",
                20,
                False,
                lambda: [d for d in (self.daemon,) if d is not None and not d.up],
                lambda d: d.settle(),
            ),
            # the world at work
            Move("execute", 40, False, lambda: [c for c in e.calls if e.can_execute(c)], self._execute),
            Move("advance", 40, False, lambda: e.starting, self._advance),
            Move("refresh", 12, False, self._stale, self._refresh),
            Move(
                "notice",
                10,
                False,
                lambda: [x for x in e.made.values() if e.up and x.starved and not x.unread],
                self._notice,
            ),
            Move("opens", 2, False, lambda: [p for p in self._guarded() if not p.visible], _open),
            Move("ends", 2, False, self._guarded, lambda p: e.ended(p, 0)),
            Move("obeys", 8, False, self._stopping, lambda p: e.ended(p, 0)),
            Move("let go", 3, False, lambda: list(m.lingering), lambda s: m.lingering.pop(s)),
            Move("soon", 4, False, lambda: yes, lambda _: self._pass(0.1)),
            Move("later", 1, False, lambda: yes, lambda _: self._pass(2.0)),
            Move("much later", 0.4, False, lambda: yes, lambda _: self._pass(40.0)),
            Move("deadline", 1.5, False, self._next, self._pass_to),
            # people, through the daemon
            Move("create", 3, False, self._creators, self._create),
            Move(
                "start",
                6,
                False,
                lambda: self._known(Phase.STOPPED),
                lambda c: self._ask(ev.StartRequested(actor=_actor(c.uid), container=c.id)),
            ),
            Move(
                "stop",
                1.2,
                False,
                lambda: self._known(Phase.RUNNING, Phase.STARTING, Phase.STOPPING),
                lambda c: self._ask(ev.StopRequested(actor=_actor(c.uid), container=c.id)),
            ),
            Move(
                "park",
                0.7,
                False,
                lambda: self._known(Phase.RUNNING, Phase.STOPPED, Phase.STOPPING),
                lambda c: self._ask(ev.StopRequested(actor=_actor(c.uid), container=c.id, release=True)),
            ),
            Move(
                "remove",
                0.4,
                False,
                lambda: self._known(*Phase),
                lambda c: self._ask(ev.RemoveRequested(actor=_actor(c.uid), container=c.id)),
            ),
            Move(
                "force",
                0.3,
                False,
                lambda: self._known(*Phase),
                lambda c: self._ask(ev.RemoveRequested(actor=_actor(c.uid), container=c.id, force=True)),
            ),
            Move(
                "release",
                0.3,
                False,
                lambda: self._known(Phase.STOPPED, Phase.REMOVING),
                lambda c: self._ask(ev.ReleaseRequested(actor=OPERATOR, container=c.id)),
            ),
            # people, past the daemon
            Move("raw start", 1, True, lambda: self._raw(EngineStatus.CREATED, EngineStatus.STOPPED), self._raw_start),
            Move("raw kill", 0.7, True, lambda: self._raw(EngineStatus.RUNNING), e.raw_kill),
            Move("raw rm", 0.2, True, lambda: self._raw(EngineStatus.CREATED, EngineStatus.STOPPED), e.raw_remove),
            Move("unread", 0.5, True, lambda: self._raw(EngineStatus.RUNNING), _leave_unread),
            Move("stranger", 0.15, True, lambda: [s for s in sorted(m.here()) if s not in m.foreign], self._stranger),
            Move("stranger leaves", 2, True, lambda: list(m.foreign), lambda s: m.foreign.pop(s)),
            # what goes wrong
            Move("crash", 0.5, True, lambda: when(self.daemon is not None), lambda _: self._crash()),
            Move("engine dies", 0.2, True, lambda: when(e.up), lambda _: self._engine_dies()),
            Move("engine dies in a start", 3, True, self._begun, lambda _: self._engine_dies()),
            Move("engine comes", 6, False, lambda: when(not e.up), lambda _: e.come_up()),
            Move("lose hint", 1, True, lambda: self._hints(), lambda n: e.hints.pop(n)),
            Move(
                "break",
                0.5,
                True,
                lambda: self._tasks(lambda d: [t for t in d.hands.tasks.values() if t.call is not None]),
                self._break,
            ),
            Move("repeat", 0.5, True, lambda: self._tasks(lambda d: d.last), lambda a: self._hands().tell(a)),
            Move("write fails", 0.5, True, self._writes, lambda t: self._hands().write_fails(t)),
            Move("ends, lingering", 1, True, self._guarded, lambda p: e.ended(p, 9000)),
            Move("disk full", 0.15, True, lambda: when(not self.disk.full), lambda _: self._set_full(True)),
            Move("disk good", 3, False, lambda: when(self.disk.full), lambda _: self._set_full(False)),
            Move("blind", 0.15, True, lambda: when(not m.blind), lambda _: self._set_blind(True)),
            Move("sight", 3, False, lambda: when(m.blind), lambda _: self._set_blind(False)),
            Move(
                "file breaks",
                3,
                True,
                lambda: when(self.daemon is None and not self.disk.broken and self.disk.before is not None),
                lambda _: self._file_breaks(),
            ),
            Move("reboot", 0.05, True, lambda: yes, lambda _: self._reboot()),
            Move(
                "card lost", 0.05, True, lambda: [c for c in m.cards if not c.lost], lambda c: self._set_lost(c, True)
            ),
            Move("card back", 1, False, lambda: [c for c in m.cards if c.lost], lambda c: self._set_lost(c, False)),
            Move("recut", 0.08, True, self._idle_cards, _recut),
        )

    @staticmethod
    def _when(true: bool) -> Sequence[None]:
        return (None,) if true else ()

    # ---- the daemon

    def _hands(self):
        assert self.daemon is not None
        return self.daemon.hands

    def _up(self, test: Callable[[Daemon], bool]) -> Sequence[Daemon]:
        d = self.daemon
        return (d,) if d is not None and d.up and test(d) else ()

    def _tasks(self, pick: Callable[[Daemon], list[S]]) -> list[S]:
        d = self.daemon
        return pick(d) if d is not None and d.up else []

    def _local(self) -> list[Task]:
        return self._tasks(lambda d: d.hands.local())

    def _writes(self) -> list[Task]:
        return [t for t in self._local() if type(t.order).__name__ in {"Permit", "Withdraw"}]

    def _answer(self, t: Task) -> None:
        self._hands().answer(t)

    def _break(self, t: Task) -> None:
        self._hands().breaks(t)

    def _boot(self) -> None:
        self.daemon = Daemon(
            self.machine,
            self.engine,
            self.disk,
            self.policy,
            early_looks=self.setup.early_looks,
            watch=self.judge.watch,
        )

    def _crash(self) -> None:
        for call in self.engine.calls:
            call.order = None
        self.daemon = None

    def _hints(self) -> Sequence[int]:
        return range(len(self.engine.hints)) if self.daemon is not None and self.daemon.up else ()

    def _hint(self, n: int) -> None:
        engine_id, action = self.engine.hints.pop(n)
        assert self.daemon is not None
        self.daemon.tell(ev.EngineHinted(engine_id=engine_id, action=action, at=self.machine.now))

    # ---- the world

    def _execute(self, call: Call) -> None:
        self.engine.execute(call)
        self._forget_answered()

    def _forget_answered(self) -> None:
        e = self.engine
        e.calls[:] = [c for c in e.calls if c.order is not None or c.result is None]

    def _advance(self, s: Starting) -> None:
        self.engine.advance(s)
        if s.proc is not None and s.proc.guarded:
            self.judge.started(self.daemon, s.proc)
        self._forget_answered()

    def _notice(self, made: Made) -> None:
        self.engine.notice(made)
        self._forget_answered()

    def _stale(self) -> list[Key]:
        cache, specs = self.engine.cache, self.machine.specs
        return [k for k in {**cache, **specs} if cache.get(k) is not specs.get(k)] if self.engine.up else []

    def _refresh(self, key: Key) -> None:
        spec = self.machine.specs.get(key)
        if spec is None:
            self.engine.cache.pop(key, None)
        else:
            self.engine.cache[key] = spec

    def _guarded(self) -> list[Proc]:
        return [p for p in self.machine.procs.values() if p.guarded]

    def _stopping(self) -> list[Proc]:
        asked = {c.engine_id for c in self.engine.calls if c.executed and c.kind == "stop"}
        return [p for p in self.machine.procs.values() if p.guarded and p.container in asked]

    def _raw(self, *statuses: EngineStatus) -> list[Made]:
        e = self.engine
        return [x for x in e.made.values() if x.status in statuses and not e.locked(x.id)] if e.up else []

    def _raw_start(self, made: Made) -> None:
        if self.daemon is not None and self.daemon.up:
            self.judge.at_rest(self.daemon)
        self.engine.raw_start(made)

    def _pass(self, seconds: float) -> None:
        self.machine.now += seconds
        if self.daemon is not None and self.daemon.up:
            self.daemon.hands.overdue()
            self._forget_answered()

    def _next(self) -> Sequence[float]:
        d = self.daemon
        when = d.state.next_deadline() if d is not None and d.up else None
        return (when,) if when is not None and when > self.machine.now else ()

    def _pass_to(self, when: float) -> None:
        self._pass(max(0.0, when - self.machine.now))

    def _stranger(self, slot: SlotId) -> None:
        self.foreigners += 1
        self.machine.foreign[slot] = EngineId(f"f{self.foreigners}")

    def _engine_dies(self) -> None:
        broken = self.engine.die()
        d = self.daemon
        if d is None or not d.up:
            return
        for order in broken:
            task = d.hands.tasks.get(order)
            if task is not None:
                d.hands.breaks(task)

    def _begun(self) -> list[Starting]:
        return [s for s in self.engine.starting if s.proc is not None] if self.engine.up else []

    def _reboot(self) -> None:
        self._crash()
        self.engine.reboot()
        self.machine.reboot()

    def _set_full(self, full: bool) -> None:
        self.disk.full = full

    def _set_blind(self, blind: bool) -> None:
        self.machine.blind = blind

    def _file_breaks(self) -> None:
        self.disk.broken = True

    def _set_lost(self, card: Card, lost: bool) -> None:
        card.lost = lost
        if lost:
            for slot in card.slots():
                self.machine.lingering.pop(slot, None)
                self.machine.foreign.pop(slot, None)

    def _idle_cards(self) -> list[Card]:
        m = self.machine
        return [c for c in m.cards if not c.lost and not any(m.on(s) for s in c.slots()) and c.slices]

    # ---- people

    def _creators(self) -> Sequence[int]:
        d = self.daemon
        if d is None or not d.takes_requests:
            return ()
        return [u for u in range(self.setup.users) if d.state.containers.count("uid", Uid(u)) < self.setup.each]

    def _create(self, user: int) -> None:
        self.asked += 1
        count = self.setup.counts[self.asked % len(self.setup.counts)]
        name = f"c{self.asked % (self.setup.each + 1)}"
        spec = ContainerSpec(image="image", gpus=GpuRequest(count=count) if count else None)
        owner = Owner(uid=Uid(user), gid=user, name=f"u{user}", home="/")
        request = ev.CreateRequested(
            actor=_actor(Uid(user)), owner=owner, name=name, spec=spec, key=Key(f"k{self.asked}")
        )
        self._ask(request)

    def _known(self, *phases: Phase) -> list[Container]:
        d = self.daemon
        if d is None or not d.takes_requests:
            return []
        return [c for c in d.state.containers if c.phase in phases and not c.stray]

    def _ask(self, request: ev.Request) -> None:
        assert self.daemon is not None
        self.daemon.tell(request)


def _actor(uid: Uid) -> Actor:
    return Actor(uid=uid, gid=int(uid), name=f"u{uid}")


OPERATOR = Actor(uid=Uid(99), gid=99, name="operator", operator=True)


def _open(proc: Proc) -> None:
    proc.visible = True


def _leave_unread(made: Made) -> None:
    made.unread = True


def _recut(card: Card) -> None:
    card.mig = not card.mig


__all__ = ["ContainerId", "EngineName", "Play", "Setup"]
