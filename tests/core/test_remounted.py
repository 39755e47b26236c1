"""A workspace that was mounted anew under another number while its container only held its slots."""

from ds01d.core import effects as do
from ds01d.core.events import DIRECTORY_GONE, DIRECTORY_MOVED
from ds01d.model.allocation import Claim
from ds01d.model.container import ContainerSpec, Mount, Permission, Phase
from ds01d.model.facts import EngineStatus
from ds01d.model.gpu import GpuRequest
from ds01d.model.operation import OperationState
from tests.core.world import World

WORDS = "/workspace was replaced by another directory"
HOME = "/home/alice/workspace"
SPEC = ContainerSpec(
    image="python:3.12",
    gpus=GpuRequest(),
    mounts=(Mount(source=HOME, target="/workspace", device=1, inode=7),),
)


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
    c = world.with_stopped(spec=SPEC)
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
    assert op.failure.message == f"cannot start c: {HOME}, its /workspace, was replaced by another directory"
    assert "`container-cleanup c`" in op.failure.hint
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


def test_a_directory_that_is_gone_is_named_once_with_the_cure() -> None:
    world = World()
    c = world.with_stopped(spec=SPEC)
    operation = world.ask_start(c).operation
    assert operation is not None
    while not isinstance(world.order(c), do.StartContainer):
        world.done(c)
    world.failed(c, f"{HOME} is gone", kind=DIRECTORY_GONE)
    world.looks(c, EngineStatus.STOPPED)
    failure = world.state.operations.rows[operation].failure
    assert failure is not None
    assert failure.message == f"cannot start c: {HOME}, its /workspace, is gone"
    assert failure.hint == "put it back, or `container-cleanup c` and create it anew; what is in the directory stays"
