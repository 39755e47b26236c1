"""The daemon dies at every letter of a start and a release (lifecycle.md §2), the engine in the middle of a start."""

from collections.abc import Callable

import pytest

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.model.allocation import Claim
from ds01d.model.container import Phase
from ds01d.model.facts import EngineStatus
from ds01d.model.operation import OperationState
from tests.sim.scene import actor
from tests.sim.stage import Stage

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


def test_a_start_that_comes_after_the_look_at_a_ghost_is_not_ended_with_it() -> None:
    stage = Stage()
    stage.created()
    stage.once("raw start", "advance", "engine dies", "advance", "engine comes", "reconnect")
    stage.save()
    stage.step(do.LookAt, 4)
    stage.save()
    assert isinstance(stage.task(do.KillGhost).order, do.KillGhost)
    stage.once("ends", "raw start", "advance")
    stage.step(do.KillGhost)
    stage.once("advance")
    stage.settle_down()
    assert stage.stands() == (Phase.RUNNING, Claim.BOUND)
    assert stage.running() == 1


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
