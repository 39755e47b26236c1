"""What a permission, or a running container, reaches by a number of old: another slot than its own may bear it now."""

import pytest
from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.model.container import Permission, Phase
from ds01d.model.facts import EngineStatus
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import SlotId
from ds01d.model.probe import GpuSeen
from tests.core.world import ENGINE, World, cut, piece, whole


def swapped() -> tuple[GpuSeen, ...]:
    """Both cards after the driver was loaded anew: each has the other's number."""
    return whole(0, minor=1), whole(1, minor=0)


def refused(world: World) -> str | None:
    """What bob hears who asks for a GPU now; None: he gets one."""
    world.see()
    no = world.ask_create("bob", "b", dry_run=True).refused
    return None if no is None else no.message


def test_a_slot_is_not_given_while_a_permission_on_disk_reaches_it_by_its_old_number() -> None:
    world = World()
    alice = world.with_stopped()
    world.see(*swapped())
    assert isinstance(world.order(alice), do.Withdraw)
    assert "GPU 1 blocked until" in (refused(world) or "")
    world.oblige()
    assert refused(world) is None
    assert world.slots(alice) == ("GPU-0",)
    assert world.disk[alice.key].slots == ("GPU-0",)


def test_a_slot_is_not_given_while_somebody_runs_who_reaches_it_by_its_old_number() -> None:
    world = World(cut(0, piece(0), piece(2)))
    alice = world.with_running()
    world.see(cut(0, replace(piece(0), gi=3), replace(piece(2), gi=1)))
    for _ in range(3):
        world.oblige(until=lambda w: w.fresh(alice).order is None or isinstance(w.order(alice), do.LookAt))
        assert "GPU 0:1 blocked until" in (refused(world) or "")
        world.oblige(until=lambda w: w.fresh(alice).retry_at is not None)
        world.wait(40)
    world.ends(alice.engine_id)
    world.wait(40)
    world.oblige()
    world.wait(40)
    world.oblige()
    assert world.fresh(alice).phase is Phase.STOPPED
    assert refused(world) is None


def test_a_slot_is_not_given_while_somebody_runs_who_reaches_it_from_a_slice_that_is_gone() -> None:
    world = World(cut(0, piece(0)))
    alice = world.with_running()
    world.see(cut(0, replace(piece(2), gi=1)))
    world.oblige(until=lambda w: w.fresh(alice).retry_at is not None)
    assert "blocked until" in (refused(world) or "")


def test_a_whole_card_is_not_given_to_others_while_a_slice_of_old_opens_its_node() -> None:
    world = World(cut(0, piece(0)), whole(1))
    alice = world.with_running()
    assert world.slots(alice) == (SlotId("GPU-0/2g.20gb@0"),)
    world.see(cut(0, piece(0), minor=1), whole(1, minor=0))
    world.oblige(until=lambda w: w.fresh(alice).retry_at is not None)
    assert "GPU 1 blocked until" in (refused(world) or "")


def test_two_who_reach_each_others_slot_by_old_numbers_are_both_proved_and_go_on() -> None:
    world = World()
    alice, bob = world.with_stopped(), world.with_stopped("bob", "b")
    world.see(*swapped())
    assert world.fresh(alice).blocks == ("GPU-1",)
    assert world.fresh(bob).blocks == ("GPU-0",)
    world.oblige()
    world.wait(5)
    world.oblige()
    assert world.fresh(alice).blocks == world.fresh(bob).blocks == ()
    assert set(world.disk) == {alice.key, bob.key}
    assert world.ask_start(alice).refused is None


def test_a_slot_that_never_had_another_number_is_given_as_before() -> None:
    world = World(whole(0), whole(1), whole(2))
    alice = world.with_stopped()
    world.see(whole(0, minor=7), whole(1), whole(2))
    assert world.fresh(alice).blocks == ()
    outcome = world.ask_create("bob", "b")
    assert outcome.refused is None
    assert world.ask_create("bob", "b2", spec=replace(world.fresh(alice).spec, gpus=GpuRequest())).refused is None


def test_two_who_reach_each_others_slot_are_proved_even_if_the_first_look_could_not_see() -> None:
    world = World()
    alice, bob = world.with_stopped(), world.with_stopped("bob", "b")
    world.see(*swapped())
    world.blind = True
    for _ in range(4):
        world.oblige(until=lambda w: not any(w.fresh(c).order is not None for c in (alice, bob)))
        world.wait(10)
    assert world.fresh(alice).blocks
    world.blind = False
    for _ in range(4):
        world.oblige()
        world.wait(31)
    world.oblige()
    assert world.fresh(alice).blocks == world.fresh(bob).blocks == ()
    assert set(world.disk) == {alice.key, bob.key}


def test_what_was_heard_while_a_permission_had_to_go_is_looked_at_afterwards() -> None:
    world = World(whole(0), whole(1))
    alice = world.with_running()
    world.see(whole(0, minor=7), whole(1))
    assert isinstance(world.order(alice), do.Withdraw)
    world.ends(alice.engine_id)
    world.restart()
    assert isinstance(world.order(alice), do.Withdraw)
    world.oblige()
    assert world.fresh(alice).phase is Phase.STOPPED


def test_a_look_at_blocked_slots_that_began_before_a_permission_had_to_go_proves_nothing() -> None:
    world = World()
    alice = world.with_stopped()
    (kept,) = world.permissions()
    world.blind = True
    world.restart(permissions=(replace(kept, slots=(SlotId("GPU-0"), SlotId("GPU-1"))),))
    while world.fresh(alice).permission is not Permission.PRESENT or not isinstance(world.order(alice), do.LookAt):
        world.oblige(until=lambda w: w.fresh(alice).permission is Permission.PRESENT or not w.orders)
        world.wait(2)
    world.see(*swapped())
    world.looks(alice, EngineStatus.STOPPED)
    assert world.fresh(alice).blocks == ("GPU-1",)
    assert isinstance(world.order(alice), do.Withdraw)


def test_a_permission_with_numbers_of_old_goes_at_once_however_long_the_engine_has_been_silent() -> None:
    world = World()
    alice = world.with_stopped()
    world.silent = True
    world.hint(alice, "die")
    for _ in range(8):
        world.oblige(until=lambda w: not w.orders or w.fresh(alice).retry_at is not None)
        world.wait(10)
    world.oblige(until=lambda w: not w.orders)
    assert world.fresh(alice).retry_at is not None
    world.see(*swapped())
    assert isinstance(world.order(alice), do.Withdraw)


@pytest.mark.parametrize("slow", [False, True], ids=["seen at once", "seen late"])
def test_two_whose_cards_changed_numbers_over_a_reboot_run_again(*, slow: bool) -> None:
    world = World()
    alice, bob = world.with_running(), world.with_running("bob", "b")
    for c in (alice, bob):
        world.ends(c.engine_id, 137)
    world.disk.clear()
    world.now += 60
    came_up = replace(ENGINE, since=world.now)
    if not slow:
        world.gpus = swapped()
    world.restart(boot_id="boot-2", engine=came_up)
    world.see(*swapped())
    for _ in range(4):
        world.oblige()
        world.wait(3)
    for c in (alice, bob):
        assert world.fresh(c).phase is Phase.RUNNING
        assert world.fresh(c).blocks == ()


def test_a_card_that_comes_back_with_its_old_number_is_not_given_while_another_that_had_it_since_is_in_use() -> None:
    world = World(whole(0, minor=0))
    world.see(cut(1, piece(0), minor=0))
    alice = world.with_running()
    world.see(whole(0, minor=0))
    world.oblige(until=lambda w: w.fresh(alice).retry_at is not None)
    assert "GPU 0 blocked until" in (refused(world) or "")


def test_what_a_run_began_with_is_remembered_although_its_permission_was_written_anew() -> None:
    world = World(cut(0, piece(0)))
    alice = world.with_running()
    world.see(cut(0, replace(piece(0), gi=3)))
    world.oblige()
    assert world.fresh(alice).permission is Permission.PRESENT
    world.see(cut(0, replace(piece(0), gi=3), replace(piece(2), gi=1)))
    world.oblige(until=lambda w: w.fresh(alice).retry_at is not None)
    assert "GPU 0:1 blocked until" in (refused(world) or "")
    world.ends(alice.engine_id)
    for _ in range(3):
        world.wait(40)
        world.oblige()
    assert refused(world) is None
