"""The runner and the hands, modelled: each order is carried out in steps that anything may come between.

Exactly one answer an order; a write or a removal that was uncertain is told once more when it returns. A daemon that
dies takes its steps with it, but a call that the engine already has goes on.
"""

from collections.abc import Callable

from ds01d.adapters.docker_errors import permission_lags, readable, task_left_over
from ds01d.adapters.hands import LAG_S
from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.model.facts import CgroupStatus, EngineStatus, Look, SlotSeen
from ds01d.model.ids import ContainerId, EngineId, OrderId
from tests.sim.engine import NAME_TAKEN, NO_IMAGE, Call, CallKind, Engine, Made
from tests.sim.machine import Grant, Machine, Proc

Tell = Callable[[ev.Answer], None]

HUNG_UP_IN_A_START = "the engine hung up in the middle of a start; it may be out of inotify instances"
_NOT_RUNNING = frozenset({EngineStatus.ABSENT, EngineStatus.CREATED, EngineStatus.STOPPED})
_CALLS: dict[type, CallKind] = {
    do.CreateContainer: CallKind.CREATE,
    do.StartContainer: CallKind.START,
    do.StopContainer: CallKind.STOP,
    do.KillContainer: CallKind.KILL,
    do.RemoveContainer: CallKind.REMOVE,
}
#: Orders that the engine carries out.
CALLS = tuple(_CALLS)


class Task:
    """One order on its way."""

    __slots__ = (
        "answered",
        "astray",
        "call",
        "cgroup",
        "due",
        "engine_id",
        "held",
        "made",
        "order",
        "recent",
        "seen",
        "stage",
        "status",
        "stuck",
        "unheard",
    )

    def __init__(self, order: do.AnyOrder, now: float) -> None:
        self.order = order
        self.due = now + order.timeout_s
        self.stage = 0
        #: Its uncertain answer was given; only a write's return is still told.
        self.answered = False
        #: The disk does not come back to it for now.
        self.stuck = False
        #: Nobody listened when its call was made.
        self.unheard = False
        self.call: Call | None = None
        #: The permission of what it starts was written a moment ago.
        self.recent = False
        #: Looks for the cgroup where it is not: it was never recorded, and the engine keeps its cgroups elsewhere.
        self.astray = False
        self.held: list[Proc] = []
        self.engine_id: EngineId | None = None
        self.status = EngineStatus.SILENT
        self.made: tuple[float, float, int | None, bool | None] = (0.0, 0.0, None, None)
        self.cgroup = CgroupStatus.UNKNOWN
        self.seen: tuple[SlotSeen, ...] | None = None


class Hands:
    """Everything that is on its way for one daemon."""

    def __init__(self, machine: Machine, engine: Engine, tell: Tell, *, odd_cgroups: bool) -> None:
        self.odd_cgroups = odd_cgroups
        self.machine = machine
        self.engine = engine
        self.tell = tell
        self.tasks: dict[OrderId, Task] = {}
        self.ghosts: dict[ContainerId, tuple[OrderId, list[Proc]]] = {}
        #: When whose permission was written; what the daemon before wrote is at least as old as this one is.
        self.written: dict[EngineId, float] = {}
        self.began = machine.now

    def take(self, order: do.AnyOrder) -> None:
        """An order is let go."""
        task = Task(order, self.machine.now)
        kind = _CALLS.get(type(order))
        if kind is not None:
            call = Call(kind, order.order, None)
            match order:
                case do.CreateContainer():
                    call.name, call.image = order.name, order.spec.image
                    call.key, call.label, call.uid = order.key, order.container, order.uid
                case do.StartContainer() | do.StopContainer() | do.KillContainer() | do.RemoveContainer():
                    call.engine_id = order.engine_id
                    task.recent = self.machine.now - self.written.get(order.engine_id, self.began) < LAG_S
                case _:
                    raise AssertionError(order)
            task.call = call
            task.unheard = not self.engine.send(call)
        self.tasks[order.order] = task

    # ---- steps

    def local(self) -> list[Task]:
        """Tasks that can make a step without the engine's answer."""
        return [t for t in self.tasks.values() if t.call is None and self._may_step(t)]

    def _may_step(self, t: Task) -> bool:
        if t.stuck:
            return False
        if isinstance(t.order, do.LookAt) and t.stage == 1 and self.engine.up:
            return not self.engine.locked(t.engine_id)
        return True

    def step(self, t: Task) -> None:
        match t.order:
            case do.Permit():
                self._permit(t, t.order)
            case do.Withdraw():
                self._withdraw(t, t.order)
            case do.LookAt():
                self._look(t, t.order)
            case do.KillGhost():
                self._kill_ghost(t, t.order)
            case _:
                raise AssertionError(t.order)

    def _permit(self, t: Task, o: do.Permit) -> None:
        if t.stage == 0 and not set(o.slots) <= self.machine.here():
            self._fail(t, "the driver does not show it now", kind="disk")
            return
        grant = Grant(o.engine_id, o.generation, o.slots, self.machine.minors(o.slots))
        files = (self.machine.grants, self.machine.specs)
        if t.stage < len(files):
            if not grant.same(files[t.stage].get(o.key)):
                files[t.stage][o.key] = grant
            t.stage += 1
            return
        self.machine.wiped.discard(o.key)
        self.written[o.engine_id] = self.machine.now
        self._answer(t, ev.Done(container=o.container, order=o.order))

    def _withdraw(self, t: Task, o: do.Withdraw) -> None:
        files = (self.machine.grants, self.machine.specs)
        if t.stage < len(files):
            files[t.stage].pop(o.key, None)
            t.stage += 1
            return
        self._answer(t, ev.Done(container=o.container, order=o.order))

    def _look(self, t: Task, o: do.LookAt) -> None:
        stage, t.stage = t.stage, t.stage + 1
        match stage:
            case 0:
                t.engine_id = o.engine_id
                t.astray = self.odd_cgroups and o.cgroup is None
                if o.engine_id is None and self.engine.up:
                    found = self.engine.by_name(o.name)
                    if found is not None and found.label == o.container and found.key == o.key:
                        t.engine_id = found.id
                if t.engine_id is not None and not t.astray:
                    t.held = list(self.machine.cgroups.get(t.engine_id, {}).values())
            case 1:
                self._inspect(t, o)
                living = [p for p in t.held if p.alive] if t.status in _NOT_RUNNING else []
                self.ghosts.pop(o.container, None)
                if living:
                    self.ghosts[o.container] = o.order, living
                t.held = living
            case 2:
                told = not t.astray or t.made[3] is True
                occupied = told and t.engine_id is not None and t.engine_id in self.machine.cgroups
                t.cgroup = CgroupStatus.OCCUPIED if occupied else CgroupStatus.EMPTY
                if t.engine_id is None and t.status is not EngineStatus.ABSENT:
                    t.cgroup = CgroupStatus.UNKNOWN
            case 3 if o.slots:
                t.seen = None if self.machine.blind else tuple(self._slot(s) for s in o.slots)
            case _:
                self._answer(t, ev.Looked(container=o.container, order=o.order, look=self._found(t)))

    def _inspect(self, t: Task, o: do.LookAt) -> None:
        if not self.engine.up:
            t.status = EngineStatus.SILENT
        elif o.engine is not None and o.engine != self.engine.name:
            t.status = EngineStatus.STRANGE
        else:
            made = self.engine.made.get(t.engine_id) if t.engine_id is not None else None
            if made is None:
                t.status = EngineStatus.ABSENT
            else:
                t.status = made.status
                t.made = (made.started_at, made.finished_at, made.exit_code, self._init(made))

    def _init(self, made: Made) -> bool | None:
        if made.status is not EngineStatus.RUNNING:
            return None
        return made.proc is not None and made.proc.alive

    def _slot(self, slot: str) -> SlotSeen:
        found = next((s for s in self.machine.here() if s == slot), None)
        if found is None:
            return SlotSeen(slot=slot, lost=True)  # type: ignore[arg-type]  # a SlotId all the same
        on = self.machine.on(found)
        used = self.machine.lingering.get(found, 0) + (9000 if on else 0)
        return SlotSeen(slot=found, pids=tuple(range(1, len(on) + 1)), used_mib=used, net_of_reserved=True)

    def _found(self, t: Task) -> Look:
        started, finished, code, alive = t.made
        return Look(
            status=t.status,
            cgroup=t.cgroup,
            engine_id=t.engine_id,
            started_at=started,
            finished_at=finished,
            exit_code=code,
            init_alive=alive,
            cgroup_path=f"/{t.engine_id}" if alive else None,
            ghost=bool(t.held),
            slots=t.seen,
        )

    def _kill_ghost(self, t: Task, o: do.KillGhost) -> None:
        kept, procs = self.ghosts.pop(o.container, (None, []))
        if kept != o.look:
            self._fail(t, "it is held no more", again=True)
            return
        for proc in procs:
            if proc.alive:
                self.machine.kill_ghost(proc)
        self._answer(t, ev.Done(container=o.container, order=o.order))

    # ---- answers

    def answerable(self) -> list[Task]:
        """Calls whose outcome the engine knows, or that nobody took."""
        return [
            t for t in self.tasks.values() if t.call is not None and (t.call.result is not None or self._refused(t))
        ]

    def _refused(self, t: Task) -> bool:
        return t.unheard

    def answer(self, t: Task) -> None:
        call, o = t.call, t.order
        assert call is not None
        if call in self.engine.calls:
            self.engine.calls.remove(call)
        if call.result is None:
            self._fail(t, "nobody listens", kind="engine_down")
        elif (words := self._said(t.order, call.result)) == "":
            made = call.engine_id if call.kind is CallKind.CREATE else None
            self._answer(t, ev.Done(container=o.container, order=o.order, engine_id=made))
        else:
            self._fail_as_told(t, call.kind, words)

    def _said(self, order: do.AnyOrder, words: str) -> str:
        """The engine's words; that there is nothing to remove is a yes only from the engine that had it."""
        if not isinstance(order, do.RemoveContainer) or not words.startswith("No such container"):
            return words
        here = self.engine.name
        return "" if order.engine in {None, here} else f"another engine answers ({here}) than the one that made it"

    def _fail_as_told(self, t: Task, call: CallKind, words: str) -> None:
        kind, again = "engine", False
        match call:
            case CallKind.CREATE if words.startswith(NO_IMAGE):
                kind = "image_not_found"
            case CallKind.CREATE if words.startswith(NAME_TAKEN):
                kind = "name_taken"
            case CallKind.START:
                again = task_left_over(words) or (t.recent and permission_lags(words))
            case _:
                pass
        self._fail(t, readable(words), kind=kind, again=again)

    def write_fails(self, t: Task) -> None:
        self._fail(t, "input/output error", kind="disk")

    def breaks(self, t: Task) -> None:
        """The connection ends without an answer; the call goes on."""
        if t.call is not None:
            t.call.order = None
        words = HUNG_UP_IN_A_START if isinstance(t.order, do.StartContainer) else "the connection to the engine broke"
        self._answer(t, ev.Uncertain(container=t.order.container, order=t.order.order, message=words, returned=True))

    def _fail(self, t: Task, message: str, *, kind: str = "engine", again: bool = False) -> None:
        o = t.order
        self._answer(t, ev.Failed(container=o.container, order=o.order, kind=kind, message=message, again=again))

    def _answer(self, t: Task, answer: ev.Answer) -> None:
        del self.tasks[t.order.order]
        self.tell(answer)

    def overdue(self) -> None:
        """Answer *uncertain* to what is late."""
        now = self.machine.now
        for t in [t for t in self.tasks.values() if not t.answered and t.due <= now]:
            o = t.order
            if isinstance(o, do.LookAt):
                look = Look(status=EngineStatus.SILENT, cgroup=CgroupStatus.UNKNOWN, trouble="the look took too long")
                self._answer(t, ev.Looked(container=o.container, order=o.order, look=look))
            elif isinstance(o, do.Permit | do.Withdraw):
                t.answered = True
                self.tell(ev.Uncertain(container=o.container, order=o.order))
            elif t.call is not None:
                t.call.order = None
                self._answer(t, ev.Uncertain(container=o.container, order=o.order))
