"""A given state for a test of the core, and a world that does what it is asked: no loop, no disk, no time of its own.

`World` holds a real `State`, hands events to the real `handle`, keeps the orders that came of them, and answers each as
a healthy engine, disk and driver would, when it is told to `oblige`. After every event the whole state is checked.
"""

from collections.abc import Callable, Iterator

import msgspec

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core import laws
from ds01d.core.core import Outcome, handle
from ds01d.core.snapshot import dump, load
from ds01d.core.state import State
from ds01d.model.actor import Actor, Owner
from ds01d.model.allocation import Allocation
from ds01d.model.container import Container, ContainerSpec
from ds01d.model.facts import CgroupStatus, Engine, EngineStatus, GpuProcess, Listed, Look, SlotSeen
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import ContainerId, EngineId, EngineName, GpuUuid, Key, OrderId, SlotId, Uid
from ds01d.model.operation import Failure, Operation
from ds01d.model.permission import PermissionSeen
from ds01d.model.policy import Limits, Policy
from ds01d.model.probe import GpuSeen, Picture, SliceSeen

T0 = 1_800_000_000.0
ENGINE = Engine(name=EngineName("engine-1"), version="29.0", cdi=True, cgroup_driver="systemd")
UIDS = {"alice": 1001, "bob": 1002, "carol": 1003, "dora": 1004, "olga": 1}
FREE_HAND = Limits(max_mig_instances=None, max_gpus_per_container=None, max_containers_per_user=None)


def actor(user: str) -> Actor:
    """A caller; olga is the operator."""
    uid = Uid(UIDS[user])
    return Actor(uid=uid, gid=int(uid), name=user, operator=user == "olga")


def owner(user: str) -> Owner:
    uid = Uid(UIDS[user])
    return Owner(uid=uid, gid=int(uid), name=user, home=f"/home/{user}")


def whole(n: int, **fields: object) -> GpuSeen:
    """A card that is not cut."""
    seen = GpuSeen(
        uuid=f"GPU-{n}",
        index=n,
        minor=n,
        name="H100",
        memory_total_mib=80_000,
        memory_used_mib=0,
        memory_v2=True,
        processes=(),
    )
    return msgspec.structs.replace(seen, **fields)


def piece(start: int, profile: str = "2g.20gb", compute: int = 2, memory_mib: int = 20_000) -> SliceSeen:
    """A slice of a card that is cut."""
    return SliceSeen(
        profile=profile,
        start=start,
        size=2,
        compute=compute,
        compute_of=7,
        gi=start + 1,
        ci=0,
        uuid=f"MIG-{start}",
        memory_total_mib=memory_mib,
        memory_used_mib=0,
    )


def cut(n: int, *slices: SliceSeen, **fields: object) -> GpuSeen:
    """A card that is cut into slices."""
    return whole(n, mig=True, slices=slices, **fields)


def picture(*gpus: GpuSeen) -> Picture:
    return Picture(at=0.0, revision=1, driver="580", gpus=gpus)


class Made(msgspec.Struct, kw_only=True):
    """A container as the obliging engine has it."""

    engine_id: EngineId
    status: EngineStatus = EngineStatus.CREATED
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int | None = None


class World:
    """One machine in a test's hands."""

    def __init__(self, *gpus: GpuSeen, policy: Policy | None = None) -> None:
        self.now = T0
        self.state = State(lineage="L", boot_id="boot-1", policy=policy or Policy(groups={"student": FREE_HAND}))
        self.gpus = gpus or (whole(0), whole(1))
        #: Orders that nobody answered yet, by container.
        self.orders: dict[ContainerId, do.AnyOrder] = {}
        #: Everything that was ordered, in order.
        self.given: list[do.AnyOrder] = []
        self.notes: list[do.Note] = []
        self.engine: dict[EngineId, Made] = {}
        self.disk: dict[Key, do.Permit] = {}
        #: What runs on without the engine's knowledge.
        self.ghosts: set[EngineId] = set()
        #: The engine does not answer.
        self.silent = False
        #: NVML does not answer.
        self.blind = False
        #: Names that belong to somebody else's container.
        self.taken: set[str] = set()
        self._made = 0
        self._due: dict[OrderId, float] = {}
        self.tell(ev.EngineAnswered(engine=ENGINE, restarted=False))
        self.recall()
        self.see()

    # ---- events

    def tell(self, event: ev.Event) -> Outcome:
        """One event into the core; its orders are kept until they are answered."""
        before = self.state.revision
        outcome = handle(self.state, event, self.now)
        for _, fault in outcome.faults:
            raise fault
        laws.check(self.state)
        if outcome.refused is not None:
            assert not outcome.changes
            assert self.state.revision == before
        for effect in outcome.effects:
            if isinstance(effect, do.Order):
                earlier = self.orders.get(effect.container)
                assert earlier is None or self._due[earlier.order] <= self.now, "a second order beside the first"
                self.orders[effect.container] = effect
                self._due[effect.order] = self.now + effect.timeout_s
                self.given.append(effect)
            else:
                self.notes.append(effect)
        return outcome

    def see(self, *gpus: GpuSeen, processes: tuple[GpuProcess, ...] = ()) -> Outcome:
        """A fresh picture of the GPUs."""
        if gpus:
            self.gpus = gpus
        return self.tell(ev.Probed(picture=picture(*self.gpus), processes=processes))

    def recall(self, **fields: object) -> Outcome:
        """A start-up: reality as it is, or as the test has it."""
        reality = ev.RealityObserved(
            boot_id=self.state.boot_id, engine=ENGINE, listed=(), foreign=(), permissions=self.permissions()
        )
        return self.tell(msgspec.structs.replace(reality, **fields))

    def restart(self, *, lineage: str | None = None, **fields: object) -> Outcome:
        """The daemon dies and comes back with what was saved; what was outstanding is lost."""
        before = self.state
        fell_back = lineage is not None and lineage != before.lineage
        self.state = load(
            dump(before),
            lineage=lineage or before.lineage,
            written_by=before.lineage,
            boot_id=before.boot_id,
            revision=before.revision,
            policy=before.policy,
        )
        assert fell_back == (self.state.lineage != before.lineage)
        self.orders.clear()
        self.given.clear()
        self.notes.clear()
        self.tell(ev.EngineAnswered(engine=ENGINE, restarted=False))
        self.see()
        return self.recall(**fields)

    def permissions(self) -> tuple[PermissionSeen, ...]:
        """What lies on disk."""
        return tuple(
            PermissionSeen(
                key=p.key,
                has_grant=True,
                has_spec=True,
                container_id=p.engine_id,
                generation=p.generation,
                slots=p.slots,
            )
            for p in self.disk.values()
        )

    def wait(self, seconds: float) -> None:
        """Let time pass: deadlines fire when they are due, and nobody answers meanwhile."""
        end = self.now + seconds
        while (due := self.state.next_deadline()) is not None and due <= end:
            self.now = max(self.now, due)
            self.tell(ev.Woke())
        self.now = end

    def listing(self, *, cgroup: dict[EngineId | None, CgroupStatus] | None = None) -> Outcome:
        """The engine's listing as it is, but for some cgroups."""
        of = cgroup or {}
        found = [
            Listed(
                engine_id=made.engine_id,
                name=made.engine_id,
                status=made.status,
                cgroup=of.get(made.engine_id, CgroupStatus.UNKNOWN),
            )
            for made in self.engine.values()
        ]
        return self.tell(ev.Relisted(revision=self.state.revision, containers=tuple(found), foreign=()))

    # ---- requests

    def ask_create(self, user: str = "alice", name: str = "c", **fields: object) -> Outcome:
        spec = ContainerSpec(image="python:3.12", gpus=GpuRequest())
        self._made += 1
        request = ev.CreateRequested(
            actor=actor(user), owner=owner(user), name=name, spec=spec, key=Key(f"k{self._made}")
        )
        return self.tell(msgspec.structs.replace(request, **fields))

    def ask_start(self, c: Container | ContainerId, user: str | None = None, **fields: object) -> Outcome:
        request = ev.StartRequested(actor=self._actor(c, user), container=_id(c))
        return self.tell(msgspec.structs.replace(request, **fields))

    def ask_stop(self, c: Container | ContainerId, user: str | None = None, **fields: object) -> Outcome:
        request = ev.StopRequested(actor=self._actor(c, user), container=_id(c))
        return self.tell(msgspec.structs.replace(request, **fields))

    def ask_remove(self, c: Container | ContainerId, user: str | None = None, **fields: object) -> Outcome:
        request = ev.RemoveRequested(actor=self._actor(c, user), container=_id(c))
        return self.tell(msgspec.structs.replace(request, **fields))

    def ask_release(self, c: Container | ContainerId, user: str = "olga", **fields: object) -> Outcome:
        request = ev.ReleaseRequested(actor=actor(user), container=_id(c))
        return self.tell(msgspec.structs.replace(request, **fields))

    def _actor(self, c: Container | ContainerId, user: str | None) -> Actor:
        return actor(user if user is not None else self.state.containers.rows[_id(c)].user)

    # ---- answers

    def order(self, c: Container | ContainerId) -> do.AnyOrder:
        """The order that is outstanding for a container."""
        return self.orders[_id(c)]

    def take(self, c: Container | ContainerId) -> do.AnyOrder:
        """The same, which the test is about to answer itself."""
        return self.orders.pop(_id(c))

    def done(self, c: Container | ContainerId, **fields: object) -> Outcome:
        order = self.take(c)
        return self.tell(msgspec.structs.replace(ev.Done(container=order.container, order=order.order), **fields))

    def failed(self, c: Container | ContainerId, message: str = "no", **fields: object) -> Outcome:
        order = self.take(c)
        answer = ev.Failed(container=order.container, order=order.order, kind="engine", message=message)
        return self.tell(msgspec.structs.replace(answer, **fields))

    def uncertain(self, c: Container | ContainerId, **fields: object) -> Outcome:
        order = self.take(c)
        answer = ev.Uncertain(container=order.container, order=order.order)
        return self.tell(msgspec.structs.replace(answer, **fields))

    def looks(self, c: Container | ContainerId, status: EngineStatus, **fields: object) -> Outcome:
        """Answer the look that is outstanding: so it is; by default as a healthy world would show it."""
        order = self.take(c)
        assert isinstance(order, do.LookAt), f"{order} is outstanding, not a look"
        running = status is EngineStatus.RUNNING
        made = self.engine.get(order.engine_id) if order.engine_id is not None else None
        look = Look(
            status=status,
            cgroup=CgroupStatus.OCCUPIED if running else CgroupStatus.EMPTY,
            engine_id=order.engine_id,
            started_at=made.started_at if made is not None else 0.0,
            finished_at=made.finished_at if made is not None else 0.0,
            init_alive=True if running else None,
            cgroup_path=f"/ds01/{order.engine_id}" if running else None,
            slots=tuple(SlotSeen(slot=s, used_mib=0, net_of_reserved=True) for s in order.slots),
        )
        answer = ev.Looked(container=order.container, order=order.order, look=msgspec.structs.replace(look, **fields))
        return self.tell(answer)

    def answer(self, order: do.AnyOrder) -> None:
        """As a healthy world answers."""
        c = order.container
        match order:
            case do.CreateContainer() if order.name in self.taken:
                self.failed(c, "the name belongs to another container", kind="name_taken")
            case do.CreateContainer():
                engine_id = EngineId(f"{c}-engine")
                self.engine.setdefault(engine_id, Made(engine_id=engine_id))
                self.done(c, engine_id=engine_id)
            case do.Permit():
                self.disk[order.key] = order
                self.done(c)
            case do.Withdraw():
                self.disk.pop(order.key, None)
                self.done(c)
            case do.StartContainer():
                self.starts(order.engine_id)
                self.done(c)
            case do.StopContainer() | do.KillContainer():
                self.ends(order.engine_id, 143)
                self.done(c)
            case do.RemoveContainer():
                self.engine.pop(order.engine_id, None)
                self.done(c)
            case do.LookAt() if self.silent:
                self.looks(c, EngineStatus.SILENT, cgroup=CgroupStatus.UNKNOWN)
            case do.LookAt():
                made = self.engine.get(order.engine_id) if order.engine_id is not None else None
                ghost = order.engine_id in self.ghosts
                fields: dict[str, object] = {"ghost": True, "cgroup": CgroupStatus.OCCUPIED} if ghost else {}
                if self.blind:
                    fields["slots"] = None
                self.looks(c, made.status if made is not None else EngineStatus.ABSENT, **fields)
            case do.KillGhost():
                self.ghosts.clear()
                self.done(c)

    def oblige(self, until: Callable[["World"], bool] | None = None) -> None:
        """Answer what is outstanding, and what comes of it, until nothing is left or the test has seen enough."""
        for _ in range(1000):
            if not self.orders or (until is not None and until(self)):
                return
            self.answer(next(iter(self.orders.values())))
        raise AssertionError(f"orders without an end: {self.given[-6:]}")

    # ---- what happens outside

    def starts(self, engine_id: EngineId | None) -> None:
        """It runs from now on, whoever started it."""
        assert engine_id is not None
        made = self.engine[engine_id]
        self.now += 0.2
        made.status, made.started_at = EngineStatus.RUNNING, self.now

    def ends(self, engine_id: EngineId | None, exit_code: int = 0) -> None:
        """It has ended, by whatever."""
        assert engine_id is not None
        made = self.engine[engine_id]
        self.now += 0.2
        made.status, made.finished_at, made.exit_code = EngineStatus.STOPPED, self.now, exit_code

    def hint(self, c: Container, action: str) -> Outcome:
        """The engine's event stream names it."""
        assert c.engine_id is not None
        return self.tell(ev.EngineHinted(engine_id=c.engine_id, action=action, at=self.now))

    # ---- given

    def with_created(self, user: str = "alice", name: str = "c", **fields: object) -> Container:
        """A container that was created and holds its slots."""
        outcome = self.ask_create(user, name, **fields)
        assert outcome.refused is None, outcome.refused
        self.oblige()
        return self.named(user, name)

    def with_running(self, user: str = "alice", name: str = "c", **fields: object) -> Container:
        """A container that runs."""
        c = self.with_created(user, name, **fields)
        assert self.ask_start(c).refused is None
        self.oblige()
        return self.fresh(c)

    def with_stopped(self, user: str = "alice", name: str = "c", **fields: object) -> Container:
        """A container that ran, and holds its slots."""
        c = self.with_running(user, name, **fields)
        self.ask_stop(c)
        self.oblige()
        return self.fresh(c)

    def with_parked(self, user: str = "alice", name: str = "c", **fields: object) -> Container:
        """A container that ran, and holds nothing any more."""
        c = self.with_running(user, name, **fields)
        self.ask_stop(c, release=True)
        self.oblige()
        return self.fresh(c)

    # ---- what is

    def named(self, user: str, name: str = "c") -> Container:
        c = self.state.containers.one("name", (UIDS[user], name))
        assert c is not None, f"{user} has no container {name}"
        return c

    def fresh(self, c: Container | ContainerId) -> Container:
        """The record as it is now."""
        return self.state.containers.rows[_id(c)]

    def gone(self, c: Container | ContainerId) -> bool:
        return self.state.containers.get(_id(c)) is None

    def allocation(self, c: Container | ContainerId) -> Allocation | None:
        return self.state.allocation_of(_id(c))

    def slots(self, c: Container | ContainerId) -> tuple[SlotId, ...]:
        a = self.allocation(c)
        return a.slots if a is not None else ()

    def operation(self, outcome: Outcome) -> Operation:
        """The operation that a request became, as it is now."""
        assert outcome.operation is not None, outcome.refused
        return self.state.operations.rows[outcome.operation]

    def failure(self, outcome: Outcome) -> Failure:
        """Why what a request became has failed."""
        failure = self.operation(outcome).failure
        assert failure is not None
        return failure

    def heard(self, *kinds: type) -> Iterator[do.Note]:
        """The notes of these kinds so far."""
        return (n for n in self.notes if isinstance(n, kinds))

    def alerts(self) -> list[str]:
        return [n.text for n in self.notes if isinstance(n, do.Alert)]

    def told(self) -> list[str]:
        return [n.text for n in self.notes if isinstance(n, do.Tell)]


def _id(c: Container | ContainerId) -> ContainerId:
    return c.id if isinstance(c, Container) else c


def process(gpu: int, *, pid: int = 4242, gi: int | None = None, container: str | None = None) -> GpuProcess:
    """A process on a card."""
    return GpuProcess(
        gpu=GpuUuid(f"GPU-{gpu}"),
        gi=gi,
        pid=pid,
        start_time=1,
        uid=Uid(1003),
        user="carol",
        container=EngineId(container) if container is not None else None,
        used_mib=100,
        command="python train.py",
    )


def unrecorded(status: EngineStatus = EngineStatus.CREATED, **fields: object) -> Listed:
    """A container of alice's that carries our labels, and that no record tells of."""
    found = Listed(
        engine_id=EngineId("e9"),
        name="train._.1001",
        status=status,
        image="python:3.12",
        created_at=T0 - 3600,
        label_id=ContainerId("L-9"),
        label_key=Key("k9"),
        label_uid=Uid(UIDS["alice"]),
        label_user="alice",
        label_name="train",
    )
    return msgspec.structs.replace(found, **fields)
