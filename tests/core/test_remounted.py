"""A workspace that was mounted anew under another number while its container only held its slots."""

from ds01d.core import effects as do
from ds01d.core.events import DIRECTORY_MOVED
from ds01d.model.allocation import Claim
from ds01d.model.container import Permission, Phase
from ds01d.model.facts import EngineStatus
from ds01d.model.operation import OperationState
from tests.core.world import World

WORDS = "cannot start: /workspace is not the directory that was checked when the container was created"


def test_its_permission_is_taken_and_given_anew_once_and_it_starts() -> None:
    world = World()
    c = world.with_stopped()
    before = world.fresh(c).generation
    world.ask_start(c)
    world.failed(c, WORDS, kind=DIRECTORY_MOVED)
    assert isinstance(world.order(c), do.Withdraw)
    world.done(c)
    permit = world.order(c)
    assert isinstance(permit, do.Permit)
    assert permit.generation != before
    world.done(c)
    assert isinstance(world.order(c), do.StartContainer)
    world.oblige()
    assert world.fresh(c).phase is Phase.RUNNING
    assert world.fresh(c).permission is Permission.PRESENT


def test_another_directory_in_its_place_is_refused_after_that_and_the_slots_are_held() -> None:
    world = World()
    c = world.with_stopped()
    operation = world.ask_start(c).operation
    assert operation is not None
    for _ in range(2):
        while not isinstance(world.order(c), do.StartContainer):
            world.done(c)
        world.failed(c, WORDS, kind=DIRECTORY_MOVED)
    world.looks(c, EngineStatus.STOPPED)
    op = world.state.operations.rows[operation]
    assert op.state is OperationState.FAILED
    assert op.failure is not None
    assert WORDS in op.failure.message
    a = world.state.allocation_of(c.id)
    assert a is not None
    assert a.claim is Claim.HELD


def test_a_later_start_may_renew_it_again() -> None:
    world = World()
    c = world.with_stopped()
    for _ in range(2):
        world.ask_start(c)
        world.failed(c, WORDS, kind=DIRECTORY_MOVED)
        assert isinstance(world.order(c), do.Withdraw)
        world.oblige()
        assert world.fresh(c).phase is Phase.RUNNING
        world.ask_stop(c)
        world.oblige()
