"""A mind with the real core and a real state, and a world that does at once what it is told, or nothing at all."""

import asyncio

from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.core import handle
from ds01d.core.effects import Effect
from ds01d.core.state import Sight, SlotUse, State
from ds01d.core.tx import Tx
from ds01d.loop.chronicle import Line
from ds01d.loop.port import Preview
from ds01d.loop.watch import Watch
from ds01d.model.facts import CgroupStatus, Engine, EngineStatus, Look, SlotSeen
from ds01d.model.gpu import Gpu, Slot, slot_id
from ds01d.model.ids import EngineId, EngineName, GpuUuid, OperationId
from ds01d.model.operation import Failure, Operation, OperationState
from ds01d.model.policy import Limits, Policy

NOON = 1_800_000_000.0


class InstantMind:
    """Answers every order at once; with `asleep` set the world does nothing and operations stay open."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.unsaved_since: float | None = None
        self.recovering: str | None = None
        self.asleep = False
        #: What every operation ends with.
        self.failure: Failure | None = None
        #: Waiting takes until somebody says otherwise.
        self.patient = False
        self.asked: list[ev.Request] = []
        self.waited: list[float] = []
        self.watchers: set[Watch] = set()
        self._at = NOON
        self._runs: dict[EngineId, EngineStatus] = {}
        self._started: dict[EngineId, float] = {}

    def now(self) -> float:
        self._at += 0.001
        return self._at

    async def ask(self, request: ev.Request) -> Operation | Preview | None:
        self.asked.append(request)
        outcome = handle(self.state, request, self.now())
        if outcome.refused is not None:
            raise outcome.refused
        for _, fault in outcome.faults:
            raise fault
        if getattr(request, "dry_run", False):
            return Preview(lines=outcome.preview)
        self._carry_out(outcome.effects)
        if self.failure is not None and outcome.operation is not None:
            self._fail(outcome.operation, self.failure)
        return self.state.operations.get(outcome.operation) if outcome.operation is not None else None

    def _fail(self, operation: OperationId, failure: Failure) -> None:
        tx = Tx(self.state, self.now())
        found = self.state.operations.get(operation)
        assert found is not None
        tx.finish(found, "", failure)
        tx.commit()

    async def finished(self, operation: OperationId, timeout_s: float) -> Operation:
        self.waited.append(timeout_s)
        found = self.state.operations.get(operation)
        assert found is not None
        while self.patient:  # noqa: ASYNC110  # a test turns it off
            await asyncio.sleep(0.005)
        if found.state is OperationState.PENDING:
            self._at += timeout_s
        return self.state.operations.get(operation) or found

    def watch(self) -> Watch:
        watch = Watch(self.watchers.discard)
        self.watchers.add(watch)
        return watch

    def tell(self, line: Line) -> None:
        for watch in tuple(self.watchers):
            watch.put(line)

    def _carry_out(self, effects: list[Effect]) -> None:
        todo = [] if self.asleep else list(effects)
        for _ in range(1000):
            if not todo:
                return
            effect = todo.pop(0)
            if not isinstance(effect, do.Order):
                continue
            outcome = handle(self.state, self._answer(effect), self.now())
            assert not outcome.faults, outcome.faults
            todo += outcome.effects
        raise AssertionError("the world does not come to rest")

    def _answer(self, order: do.Order) -> ev.Event:
        match order:
            case do.LookAt(engine_id=engine_id):
                look = self._look(engine_id, order)
                return ev.Looked(container=order.container, order=order.order, look=look)
            case do.CreateContainer():
                engine_id = EngineId(f"{int(order.container.rpartition('-')[2]):064x}")
                self._runs[engine_id] = EngineStatus.CREATED
                return ev.Done(container=order.container, order=order.order, engine_id=engine_id)
            case do.StartContainer(engine_id=engine_id):
                self._runs[engine_id] = EngineStatus.RUNNING
                self._started[engine_id] = self.now()
            case do.StopContainer(engine_id=engine_id) | do.KillContainer(engine_id=engine_id):
                self._runs[engine_id] = EngineStatus.STOPPED
            case do.RemoveContainer(engine_id=engine_id):
                self._runs[engine_id] = EngineStatus.ABSENT
            case _:
                pass
        return ev.Done(container=order.container, order=order.order)

    def _look(self, engine_id: EngineId | None, order: do.LookAt) -> Look:
        status = self._runs.get(engine_id, EngineStatus.ABSENT) if engine_id is not None else EngineStatus.ABSENT
        running = status is EngineStatus.RUNNING
        return Look(
            status=status,
            cgroup=CgroupStatus.OCCUPIED if running else CgroupStatus.EMPTY,
            engine_id=engine_id,
            started_at=self._started.get(engine_id, 0.0) if engine_id is not None else 0.0,
            finished_at=0.0 if running else self.now(),
            exit_code=None if running else 0,
            init_alive=running,
            cgroup_path="/ds01.slice/x" if running else None,
            slots=tuple([SlotSeen(slot=s, used_mib=0, net_of_reserved=True) for s in order.slots]),
        )


def small_machine(policy: Policy | None = None) -> State:
    """One whole GPU and one card of three slices, all seen and free; students may hold two slots."""
    state = State(lineage="t", policy=policy or Policy(groups={"student": Limits(max_mig_instances=2)}))
    whole, cut = GpuUuid("GPU-0000"), GpuUuid("GPU-1111")
    slots = [Slot(id=slot_id(whole), gpu=whole, name="0", memory_mib=81920, compute=7, compute_of=7)]
    slots += [
        Slot(
            id=slot_id(cut, "2g.20gb", start),
            gpu=cut,
            name=f"1:{n}",
            memory_mib=20480,
            compute=2,
            compute_of=7,
            profile="2g.20gb",
            start=start,
        )
        for n, start in enumerate((0, 2, 4))
    ]
    tx = Tx(state, NOON)
    for index, uuid in enumerate((whole, cut)):
        gpu = Gpu(uuid=uuid, index=index, name="NVIDIA H100 80GB", memory_mib=81920, mig=uuid is cut)
        tx.put(state.gpus, uuid, gpu)
    for slot in slots:
        tx.put(state.slots, slot.id, slot)
    engine = Engine(name=EngineName("engine"), version="28.5.0", cdi=True, cgroup_driver="systemd")
    seen = {slot.id: SlotUse(used_mib=0, net_of_reserved=True) for slot in slots}
    tx.see(replace(Sight(), seen_at=NOON + 3600, good_for_s=10.0, blind=None, engine=engine, slots=seen))
    tx.commit()
    state.settled = True
    return state
