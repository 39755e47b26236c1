"""The daemon dies at every letter of a start and a release (lifecycle.md §2), the engine in the middle of a start."""

from collections.abc import Callable

import pytest

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.core import Outcome
from ds01d.core.state import State
from ds01d.model.allocation import Allocation, Claim
from ds01d.model.container import Container, Phase
from ds01d.model.facts import EngineStatus
from ds01d.model.operation import OperationState
from tests.sim.daemon import Copy, Setup
from tests.sim.ending import work
from tests.sim.hands import Task
from tests.sim.play import Play
from tests.sim.scene import actor


class Stage:
    """One card, one user, one container, and somebody who says what happens next."""

    def __init__(self, *, users: int = 1, cards: tuple[int, ...] = (0,), odd_cgroups: bool = False) -> None:
        self.play = Play(Setup(cards=cards, users=users, each=1, odd_cgroups=odd_cgroups))
        self.said: list[str] = []
        quiet = self.play.judge.watch

        def watch(state: State, event: ev.Event, outcome: Outcome) -> None:
            self.said += [e.text for e in outcome.effects if isinstance(e, do.Alert | do.Tell)]
            quiet(state, event, outcome)

        self.play.judge.watch = watch  # type: ignore[method-assign]  # the same judge, who also takes notes
        self.once("boot", "settle")
        self.work()

    def work(self) -> None:
        work(self.play)

    def work_without(self, move: str) -> None:
        """The same, with the engine or the disk behind in one thing."""
        work(self.play, without=move)

    def once(self, *moves: str) -> None:
        """These things happen, one after the other."""
        for move in moves:
            assert self.play.do(move), f"{move} cannot happen now"

    def save(self) -> None:
        self.once("begin save", "end save")

    def crash_and_recover(self) -> None:
        self.once("crash", "boot", "settle")
        self.settle_down()

    def settle_down(self) -> None:
        """A few seconds pass, with all work done."""
        for _ in range(6):
            self.work()
            self.play.wait(1.0)
        self.work()

    def task(self, kind: type) -> Task:
        assert self.play.daemon is not None
        return next(t for t in self.play.daemon.hands.tasks.values() if isinstance(t.order, kind))

    def step(self, kind: type, times: int = 1) -> None:
        """The hand that carries out an order of this kind makes so many steps."""
        for _ in range(times):
            self.play.step(self.task(kind))

    # ---- what is

    @property
    def container(self) -> Container:
        assert self.play.daemon is not None
        return next(iter(self.play.daemon.state.containers))

    @property
    def allocation(self) -> Allocation | None:
        assert self.play.daemon is not None
        return self.play.daemon.state.allocation_of(self.container.id)

    def stands(self) -> tuple[Phase, Claim | None]:
        a = self.allocation
        return self.container.phase, a.claim if a is not None else None

    @property
    def on_disk(self) -> tuple[bool, bool]:
        key, m = self.container.key, self.play.machine
        return key in m.grants, key in m.specs

    def running(self) -> int:
        """How many processes of it run."""
        return sum(p.guarded for p in self.play.machine.procs.values())

    # ---- given

    def created(self, user: int = 0) -> None:
        self.play.create(user)
        self.work()

    def parked(self) -> None:
        self.created()
        self.ask_start()
        self.work()
        assert self.stands() == (Phase.RUNNING, Claim.BOUND)
        c = self.container
        self.play.ask(ev.StopRequested(actor=actor(c.uid), container=c.id, release=True))
        self.work()
        assert self.stands() == (Phase.STOPPED, None)

    def ask_start(self) -> None:
        c = self.container
        self.play.once_seen()
        self.play.ask(ev.StartRequested(actor=actor(c.uid), container=c.id))


# ---- a start of a parked container: every letter up to which it came


def _a(stage: Stage) -> None:
    stage.ask_start()


def _b(stage: Stage) -> None:
    _a(stage)
    stage.save()


def _c(stage: Stage) -> None:
    _b(stage)
    stage.step(do.Permit)
    assert stage.on_disk == (True, False)


def _d(stage: Stage) -> None:
    _b(stage)
    stage.step(do.Permit, 3)
    assert stage.on_disk == (True, True)


def _e(stage: Stage) -> None:
    _d(stage)
    stage.once("refresh")
    stage.save()
    assert [c.kind for c in stage.play.engine.calls] == ["start"]


def _f(stage: Stage) -> None:
    _e(stage)
    stage.once("execute", "advance")
    assert len(stage.play.machine.procs) == 1


def _g(stage: Stage) -> None:
    _f(stage)
    stage.once("advance")
    assert stage.running() == 1


def _h(stage: Stage) -> None:
    _g(stage)
    assert stage.play.engine.calls[0].result == ""


def _i(stage: Stage) -> None:
    _h(stage)
    stage.once("answer")
    stage.save()
    stage.step(do.LookAt, 4)
    assert stage.stands() == (Phase.RUNNING, Claim.BOUND)


def _j(stage: Stage) -> None:
    _i(stage)
    stage.save()


@pytest.mark.parametrize("upto", [_b, _c, _d, _e, _f, _g, _h, _i, _j], ids="BCDEFGHIJ")
def test_a_start_goes_on_after_a_crash_at_letter(upto: Callable[[Stage], None]) -> None:
    stage = Stage()
    stage.parked()
    upto(stage)
    stage.crash_and_recover()
    assert stage.stands() == (Phase.RUNNING, Claim.BOUND)
    assert stage.running() == 1
    assert stage.on_disk == (True, True)
    assert stage.play.daemon is not None
    assert all(o.state is OperationState.DONE for o in stage.play.daemon.state.operations)


def test_a_crash_at_letter_a_leaves_nothing_and_the_repeated_request_starts_anew() -> None:
    stage = Stage()
    stage.parked()
    _a(stage)
    stage.crash_and_recover()
    assert stage.stands() == (Phase.STOPPED, None)
    stage.once("picture", "again")
    stage.settle_down()
    assert stage.stands() == (Phase.RUNNING, Claim.BOUND)


def test_an_engine_that_dies_before_runc_was_called_is_asked_again() -> None:
    stage = Stage()
    stage.parked()
    _e(stage)
    stage.once("engine dies", "engine comes")
    stage.settle_down()
    assert stage.stands() == (Phase.RUNNING, Claim.BOUND)
    assert stage.running() == 1


@pytest.mark.parametrize("past_the_guard", [False, True])
def test_an_engine_that_dies_in_the_middle_of_a_start_leaves_a_ghost_that_is_ended(past_the_guard: bool) -> None:
    stage = Stage()
    stage.parked()
    _f(stage)
    stage.once("engine dies")
    ghost = next(iter(stage.play.machine.procs.values()))
    if past_the_guard:
        stage.once("advance")
        assert ghost.guarded
    stage.once("engine comes")
    stage.settle_down()
    assert not ghost.alive
    assert any("while the engine says" in words for words in stage.said)
    assert stage.stands() == (Phase.RUNNING, Claim.BOUND)
    assert stage.running() == 1


@pytest.mark.parametrize("upto", [_f, _g], ids="FG")
def test_a_ghost_is_ended_by_the_next_daemon_when_both_died(upto: Callable[[Stage], None]) -> None:
    stage = Stage()
    stage.parked()
    upto(stage)
    stage.once("crash", "engine dies")
    if upto is _f:
        stage.once("advance")
    stage.once("engine comes", "boot", "settle")
    stage.settle_down()
    assert stage.stands() in {(Phase.RUNNING, Claim.BOUND), (Phase.STOPPED, Claim.HELD)}
    running = [m for m in stage.play.engine.made.values() if m.status is EngineStatus.RUNNING]
    assert stage.running() == len(running)


# ---- a release


def _k(stage: Stage) -> None:
    stage.play.wait(61.0)
    stage.once("wake")
    assert stage.stands() == (Phase.STOPPED, Claim.RELEASING)


def _l(stage: Stage) -> None:
    _k(stage)
    stage.save()


def _m(stage: Stage) -> None:
    _l(stage)
    stage.step(do.Withdraw)
    assert stage.on_disk == (False, True)


def _n(stage: Stage) -> None:
    _m(stage)
    stage.step(do.Withdraw)
    assert stage.on_disk == (False, False)


def _o(stage: Stage) -> None:
    _n(stage)
    stage.step(do.Withdraw)
    stage.save()
    stage.step(do.LookAt, 4)


def _p(stage: Stage) -> None:
    _o(stage)
    stage.step(do.LookAt)
    assert stage.stands() == (Phase.STOPPED, None)


def _q(stage: Stage) -> None:
    _p(stage)
    stage.save()


def _held(stage: Stage) -> None:
    stage.created()
    stage.ask_start()
    stage.work()
    c = stage.container
    stage.play.ask(ev.StopRequested(actor=actor(c.uid), container=c.id))
    stage.work()
    assert stage.stands() == (Phase.STOPPED, Claim.HELD)


@pytest.mark.parametrize("upto", [_k, _l, _m, _n, _o, _p, _q], ids="KLMNOPQ")
def test_a_release_is_proved_from_the_beginning_after_a_crash_at_letter(upto: Callable[[Stage], None]) -> None:
    stage = Stage(users=2)
    _held(stage)
    upto(stage)
    stage.crash_and_recover()
    assert stage.stands() == (Phase.STOPPED, None)
    assert stage.on_disk == (False, False)
    stage.once("picture")
    stage.created(user=1)
    assert stage.play.daemon is not None
    assert [a.user for a in stage.play.daemon.state.allocations] == ["u1"]


def test_a_raw_start_before_the_grant_is_gone_keeps_the_slot() -> None:
    stage = Stage()
    _held(stage)
    _l(stage)
    stage.once("raw start", "advance", "advance")
    stage.settle_down()
    assert stage.stands() == (Phase.RUNNING, Claim.BOUND)
    assert stage.on_disk == (True, True)
    assert any("started from outside and keeps its GPU" in words for words in stage.said)


def test_a_raw_start_before_the_grant_is_gone_keeps_the_slot_of_a_container_that_is_to_be_removed() -> None:
    stage = Stage()
    _held(stage)
    c = stage.container
    stage.play.ask(ev.RemoveRequested(actor=actor(c.uid), container=c.id))
    stage.save()
    stage.once("raw start", "advance", "advance")
    stage.settle_down()
    assert stage.stands() == (Phase.RUNNING, Claim.BOUND)
    assert stage.running() == 1


def test_a_run_that_its_engine_left_behind_keeps_its_slot_wherever_its_cgroup_lies() -> None:
    stage = Stage(odd_cgroups=True)
    stage.parked()
    _j(stage)
    stage.once("engine made anew", "engine comes")
    stage.settle_down()
    stage.once("engine gone")
    stage.settle_down()
    assert stage.stands() == (Phase.STOPPED, Claim.RELEASING)
    stage.once("ends")
    stage.play.wait(60.0)
    stage.settle_down()
    assert stage.play.daemon is not None
    assert not stage.play.daemon.state.allocations.rows


@pytest.mark.parametrize("upto", [_m, _n, _o, _p, _q], ids="MNOPQ")
def test_a_raw_start_after_the_grant_is_gone_is_refused_by_the_guard(upto: Callable[[Stage], None]) -> None:
    stage = Stage()
    _held(stage)
    upto(stage)
    stage.once("raw start", "advance", "advance")
    assert stage.running() == 0
    stage.settle_down()
    assert stage.stands() == (Phase.STOPPED, None)


def test_a_raw_start_whose_process_is_there_before_the_look_and_whose_guard_comes_after_it_is_waited_for() -> None:
    stage = Stage()
    _held(stage)
    _l(stage)
    stage.once("raw start", "advance")
    stage.step(do.Withdraw, 3)
    stage.save()
    stage.once("step")
    assert stage.stands() == (Phase.STOPPED, Claim.RELEASING)
    stage.once("advance")
    assert stage.running() == 0
    stage.settle_down()
    assert stage.stands() == (Phase.STOPPED, None)


# ---- a counter that comes round again


def test_an_old_spec_in_a_late_cache_is_refused_although_the_counter_has_come_round_again() -> None:
    stage = Stage(cards=(0, 0))
    stage.parked()
    parked = stage.play.disk.main
    assert parked is not None
    stage.once("crash", "boot", "settle")
    stage.work()
    stage.ask_start()
    stage.work()
    old = stage.play.machine.specs[stage.container.key]
    c = stage.container
    stage.play.ask(ev.StopRequested(actor=actor(c.uid), container=c.id, release=True))
    stage.work()
    assert stage.stands() == (Phase.STOPPED, None)
    # An operator restores the state from before, the engine has not read the removal, and the slot is another's now.
    stage.once("crash")
    stage.play.disk.restore(parked)
    stage.play.engine.cache[c.key] = old
    (slot,) = old.slots
    stage.play.stranger(slot)
    stage.once("boot", "settle")
    stage.work_without("refresh")
    stage.ask_start()
    stage.work_without("refresh")
    stage.work()
    for _ in range(8):
        stage.play.wait(1.0)
        stage.work()
    new = stage.play.machine.specs[c.key]
    assert new.slots != old.slots
    assert new.generation != old.generation
    assert stage.stands() == (Phase.RUNNING, Claim.BOUND)


# ---- an older state is restored


def _restored(stage: Stage, older: Copy) -> None:
    stage.once("crash")
    stage.play.disk.restore(older)
    stage.once("boot", "settle")


def _record(stage: Stage, user: int) -> Container:
    assert stage.play.daemon is not None
    return next(c for c in stage.play.daemon.state.containers if c.user == f"u{user}" and not c.stray)


def _start(stage: Stage, user: int) -> bool:
    """Whether a start that this user asks for is taken on."""
    c, daemon = _record(stage, user), stage.play.daemon
    assert daemon is not None
    stage.play.once_seen()
    return daemon.tell(ev.StartRequested(actor=actor(c.uid), container=c.id)).refused is None


def test_a_slot_on_which_a_run_goes_on_that_a_restored_state_does_not_know_is_nobodys_until_that_has_ended() -> None:
    stage = Stage(users=2)
    stage.created()
    older = stage.play.disk.main
    assert older is not None
    hers = _record(stage, 0)
    stage.play.ask(ev.StopRequested(actor=actor(hers.uid), container=hers.id, release=True))
    stage.work()
    stage.once("picture")
    stage.created(user=1)
    assert _start(stage, 1)
    stage.work()
    _restored(stage, older)
    stage.settle_down()
    assert not _start(stage, 0)
    # The files that told of it are gone by now; what they told is not forgotten.
    stage.once("crash", "boot", "settle")
    stage.settle_down()
    assert not _start(stage, 0)
    assert stage.running() == 1
    stage.once("ends", "notice")
    stage.play.wait(31.0)
    stage.settle_down()
    assert _start(stage, 0)
    stage.work()
    assert stage.running() == 1


def test_a_slot_whose_permission_a_restored_state_does_not_know_is_not_given_before_it_is_proved_unused() -> None:
    stage = Stage(users=2)
    older = stage.play.disk.main
    assert older is not None
    stage.created(user=1)
    _restored(stage, older)
    stage.once("raw start", "advance", "advance")
    stage.play.create(0)
    assert stage.play.daemon is not None
    assert not stage.play.daemon.state.allocations.rows
    stage.settle_down()
    assert stage.running() == 1
    stage.once("ends", "notice")
    stage.play.wait(31.0)
    stage.settle_down()
    stage.once("picture")
    stage.created()
    assert [a.user for a in stage.play.daemon.state.allocations] == ["u0"]


def test_a_run_keeps_its_slot_although_a_restored_state_has_an_earlier_container_of_its_name() -> None:
    stage = Stage(users=2)
    stage.created()
    older, earlier = stage.play.disk.main, _record(stage, 0)
    assert older is not None
    stage.play.ask(ev.RemoveRequested(actor=actor(earlier.uid), container=earlier.id))
    stage.work()
    stage.play.asked += 1
    stage.once("picture")
    stage.created()
    assert _record(stage, 0).name == earlier.name
    assert _start(stage, 0)
    stage.work()
    _restored(stage, older)
    stage.settle_down()
    stage.once("picture")
    stage.play.create(1)
    stage.work()
    assert stage.running() == 1
    assert stage.play.daemon is not None
    assert all(a.user != "u1" for a in stage.play.daemon.state.allocations)
