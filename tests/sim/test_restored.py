"""An operator restores an older state: what happened since goes on all the same, and nobody is harmed by it."""

from ds01d.core import events as ev
from ds01d.model.allocation import Claim
from ds01d.model.container import Container, Phase
from tests.sim.daemon import Copy
from tests.sim.scene import actor
from tests.sim.stage import Stage

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
