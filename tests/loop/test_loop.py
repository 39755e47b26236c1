"""What the loop promises: nothing acts before it is saved, nothing waits for the disk, everybody gets an answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.state import State
from ds01d.loop.chronicle import Line
from ds01d.loop.loop import Loop
from ds01d.loop.port import Preview
from ds01d.loop.runner import Runner
from ds01d.loop.watch import WAITING_MAX
from ds01d.model.chronicle import EventLine
from ds01d.model.container import ContainerSpec
from ds01d.model.errors import CannotSave, NameTaken, Pending
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import ContainerId, EngineId, Key
from ds01d.model.operation import Operation, OperationState
from ds01d.model.policy import Policy
from tests.core.world import ENGINE, FREE_HAND, T0, actor, owner, picture, whole


class HandClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.at = T0

    def now(self) -> float:
        return self.at


class HandDisk:
    """A disk whose saves end when a test says so."""

    def __init__(self) -> None:
        self.saves: list[asyncio.Future[None]] = []
        self.automatic = True

    def save(self, body: bytes, _state: State) -> "asyncio.Future[None]":
        assert body.startswith(b"{")
        saving: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.saves.append(saving)
        if self.automatic:
            saving.set_result(None)
        return saving


class HandHands:
    """Keeps the orders; answers a create, and everything else with done."""

    def __init__(self) -> None:
        self.orders: list[do.AnyOrder] = []
        #: Orders that are never answered.
        self.deaf: set[type[do.Order]] = set()
        self.fails = False

    async def perform(self, order: do.AnyOrder, _late: Callable[[ev.Answer], None]) -> ev.Answer:
        self.orders.append(order)
        if self.fails:
            raise ValueError("a hand slipped")
        if type(order) in self.deaf:
            await asyncio.get_running_loop().create_future()
        engine_id = EngineId("e" * 64) if isinstance(order, do.CreateContainer) else None
        return ev.Done(container=order.container, order=order.order, engine_id=engine_id)


class Told:
    """Who is told."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.touched: list[tuple[ContainerId, str]] = []

    def record(self, line: Line) -> None:
        self.lines.append(line)

    def changed(self, container: ContainerId, engine_name: str) -> None:
        self.touched.append((container, engine_name))

    def cut_sessions(self, engine_id: EngineId) -> None:
        raise AssertionError(engine_id)

    def relist(self) -> None:
        raise AssertionError


class Bench:
    """A loop and everything around it."""

    def __init__(self) -> None:
        self.clock, self.disk, self.hands, self.told = HandClock(), HandDisk(), HandHands(), Told()
        self.state = State(lineage="L", policy=Policy(groups={"student": FREE_HAND}))
        self.state.settled = True
        self.runner = Runner(self.hands)
        self.loop = Loop(self.state, clock=self.clock, saver=self.disk, runner=self.runner, notes=self.told)

    async def see_gpus(self) -> None:
        self.loop.post(ev.EngineAnswered(engine=ENGINE, restarted=False))
        self.loop.post(ev.Probed(picture=picture(whole(0), whole(1)), processes=()))
        await self.settle()

    async def settle(self) -> None:
        for _ in range(30):
            await asyncio.sleep(0)

    def create(self, name: str = "c", **more: object) -> ev.CreateRequested:
        fields: dict[str, object] = {
            "actor": actor("alice"),
            "owner": owner("alice"),
            "name": name,
            "spec": ContainerSpec(image="i", gpus=GpuRequest()),
            "key": Key(f"key-{name}"),
        }
        return ev.CreateRequested(**(fields | more))  # type: ignore[arg-type]  # a builder of one request

    def sent(self) -> list[str]:
        return [type(order).__name__ for order in self.hands.orders]


@asynccontextmanager
async def a_bench() -> AsyncIterator[Bench]:
    bench = Bench()
    turning = asyncio.get_running_loop().create_task(bench.loop.run())
    await bench.see_gpus()
    try:
        yield bench
    finally:
        turning.cancel()
        with suppress(asyncio.CancelledError):
            await turning
        await bench.runner.close()


async def test_nothing_is_ordered_and_nobody_answered_before_the_decision_is_on_disk() -> None:
    async with a_bench() as b:
        b.disk.automatic = False

        asked = asyncio.ensure_future(b.loop.ask(b.create()))
        await b.settle()

        assert b.sent() == []
        assert not asked.done()
        assert not [line for line in b.told.lines if isinstance(line, EventLine) and line.event_type.startswith("cont")]

        b.disk.saves[-1].set_result(None)
        await b.settle()

        assert b.sent() == ["CreateContainer"]
        assert asked.done()


async def test_what_is_decided_while_a_save_is_under_way_waits_for_the_next_one() -> None:
    async with a_bench() as b:
        b.disk.automatic = False
        first = asyncio.ensure_future(b.loop.ask(b.create("one")))
        await b.settle()
        second = asyncio.ensure_future(b.loop.ask(b.create("two")))
        await b.settle()

        b.disk.saves[-1].set_result(None)
        await b.settle()

        assert (b.sent(), first.done(), second.done()) == (["CreateContainer"], True, False)

        b.disk.saves[-1].set_result(None)
        await b.settle()

        assert second.done()


async def test_an_operation_counts_as_ended_only_when_its_end_is_on_disk() -> None:
    async with a_bench() as b:
        operation = await b.loop.ask(b.create())
        assert isinstance(operation, Operation)

        ended = await b.loop.finished(operation.id, 5.0)

        assert ended.state is OperationState.DONE
        assert b.sent() == ["CreateContainer", "Permit"]


async def test_many_requests_share_a_save() -> None:
    async with a_bench() as b:
        b.disk.automatic = False
        b.hands.deaf = {do.CreateContainer}
        before = len(b.disk.saves)

        asked = [
            asyncio.ensure_future(b.loop.ask(b.create(f"c{n}", spec=ContainerSpec(image="i", gpus=None))))
            for n in range(50)
        ]
        await b.settle()
        b.disk.automatic = True
        b.disk.saves[-1].set_result(None)
        await asyncio.gather(*asked)

        assert len(b.disk.saves) - before <= 2


async def test_while_the_disk_fails_changes_are_refused_and_the_caller_in_between_is_told_that_it_goes_on() -> None:
    async with a_bench() as b:
        b.disk.automatic = False
        caught = asyncio.ensure_future(b.loop.ask(b.create("one")))
        await b.settle()
        b.disk.saves[-1].set_exception(OSError("no space left"))
        await b.settle()

        with pytest.raises(Pending):
            await caught
        with pytest.raises(CannotSave):
            await b.loop.ask(b.create("two"))
        assert b.loop.unsaved_since is not None
        assert b.sent() == []

        b.disk.automatic = True
        b.clock.at += 2.0
        b.loop.post(ev.Blinded(reason="something to turn for"))
        await b.settle()

        assert b.loop.unsaved_since is None
        assert b.sent()[:1] == ["CreateContainer"]


async def test_a_save_that_hangs_counts_as_failing() -> None:
    async with a_bench() as b:
        b.disk.automatic = False
        caught = asyncio.ensure_future(b.loop.ask(b.create("one")))
        await b.settle()
        b.clock.at += 6.0

        with pytest.raises(CannotSave):
            await b.loop.ask(b.create("two"))

        b.disk.saves[-1].set_result(None)
        b.disk.automatic = True
        assert isinstance(await caught, Operation)


async def test_while_a_save_hangs_the_caller_in_between_is_told_that_it_goes_on() -> None:
    async with a_bench() as b:
        b.disk.automatic = False
        caught = asyncio.ensure_future(b.loop.ask(b.create("one")))
        await b.settle()
        b.clock.at += 6.0

        b.loop.post(ev.EngineSilent(reason="any event turns the loop"))
        await b.settle()

        assert caught.done()
        assert isinstance(caught.exception(), Pending)


@pytest.mark.parametrize(("trouble", "patience_s"), [(OSError("read-only"), 2.0), (None, 5.0)], ids=["fails", "hangs"])
async def test_start_up_does_not_wait_for_what_waits_for_a_broken_disk(
    trouble: OSError | None, patience_s: float
) -> None:
    async with a_bench() as b:
        b.disk.automatic = False
        caught = asyncio.ensure_future(b.loop.ask(b.create("one")))
        await b.settle()
        if trouble is not None:
            b.disk.saves[-1].set_exception(trouble)
        await b.settle()
        reviewed = asyncio.ensure_future(b.loop.reviewed(15.0))
        await asyncio.sleep(0.02)
        b.clock.at += patience_s - 0.1
        await asyncio.sleep(0.02)
        assert not reviewed.done(), "a disk that takes the second save is waited for"

        b.clock.at += 0.2

        assert await asyncio.wait_for(reviewed, 1) is False
        caught.cancel()


@pytest.mark.parametrize(("unanswered", "waits"), [(do.CreateContainer, False), (do.Permit, True), (do.LookAt, True)])
async def test_start_up_waits_for_looks_and_permissions_and_not_for_the_engine(
    unanswered: type[do.Order], waits: bool
) -> None:
    async with a_bench() as b:
        b.hands.deaf = {unanswered}
        await b.loop.ask(b.create())
        await b.settle()
        if unanswered is do.LookAt:
            b.loop.post(ev.EngineHinted(engine_id=EngineId("e" * 64), action="start", at=b.clock.at))
            await b.settle()
        assert b.sent()[-1] == unanswered.__name__

        reviewed = asyncio.ensure_future(b.loop.reviewed(15.0))
        await asyncio.sleep(0.02)
        assert reviewed.done() is not waits

        b.clock.at += 16.0
        assert await asyncio.wait_for(reviewed, 1) is not waits


async def test_an_end_that_is_not_on_disk_is_told_to_nobody() -> None:
    async with a_bench() as b:
        operation = await b.loop.ask(b.create())
        assert isinstance(operation, Operation)
        b.disk.automatic = False
        await b.settle()
        while b.state.operations.rows[operation.id].state is OperationState.PENDING:
            if not b.disk.saves[-1].done():
                b.disk.saves[-1].set_result(None)
            await b.settle()

        told = await b.loop.finished(operation.id, 0.0)

        assert told.state is OperationState.PENDING
        assert told.outcome == ""


async def test_a_refusal_comes_at_once_and_is_written_down() -> None:
    async with a_bench() as b:
        await b.loop.ask(b.create())

        with pytest.raises(NameTaken):
            await b.loop.ask(b.create(key=Key("other")))
        await b.settle()

        assert "REJECTED" in {getattr(line, "event", "") for line in b.told.lines}


async def test_a_dry_run_says_what_would_be_and_changes_nothing() -> None:
    async with a_bench() as b:
        revision = b.state.revision

        said = await b.loop.ask(b.create(dry_run=True))

        assert isinstance(said, Preview)
        assert said.lines == ("would create c on GPU 0",)
        assert b.state.revision == revision
        assert b.sent() == []


async def test_a_hand_that_slips_leaves_no_order_without_an_answer() -> None:
    async with a_bench() as b:
        b.hands.fails = True
        await b.loop.ask(b.create())
        await b.settle()

        [c] = b.state.containers
        assert c.order is None or c.order.id != b.hands.orders[0].order


async def test_an_order_that_no_longer_fits_its_record_is_dropped_unsent() -> None:
    async with a_bench() as b:
        b.disk.automatic = False
        asked = asyncio.ensure_future(b.loop.ask(b.create()))
        await b.settle()
        [c] = b.state.containers
        assert c.order is not None
        dropped = c.order.id
        b.loop.post(ev.Uncertain(container=c.id, order=dropped))
        await b.settle()

        b.disk.automatic = True
        b.disk.saves[-1].set_result(None)
        await asked
        await b.settle()

        assert b.hands.orders
        assert dropped not in {o.order for o in b.hands.orders}


async def test_a_watcher_hears_what_is_saved_and_a_slow_one_is_let_go() -> None:
    async with a_bench() as b:
        watch, slow = b.loop.watch(), b.loop.watch()
        await b.loop.ask(b.create())
        first = await anext(watch)
        assert isinstance(first, EventLine)
        assert first.event_type == "container.requested"

        for _ in range(WAITING_MAX + 1):
            slow.put(first)

        assert slow.overrun
