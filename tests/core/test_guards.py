"""Guards that only a rare history needs: each is here because an edit that took it away was caught by nothing else."""

import pytest
from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.model.allocation import Claim
from ds01d.model.container import Container, ContainerSpec, Permission, Phase
from ds01d.model.errors import NoSuchSlots
from ds01d.model.facts import CgroupStatus, EngineStatus, Listed
from ds01d.model.ids import EngineId, EngineName, Key, SlotId
from ds01d.model.operation import OperationState
from ds01d.model.permission import PermissionSeen
from ds01d.model.probe import SliceUnread
from tests.core.world import ENGINE, Made, World, cut, piece, unrecorded, whole


def releasing(world: World) -> Container:
    """A container whose permission is withdrawn and whose proof is under way."""
    c = world.with_stopped()
    world.ask_stop(c, release=True)
    world.answer(world.order(c))
    assert isinstance(world.order(c), do.LookAt)
    return world.fresh(c)


def blocking(world: World, **of_permission: object) -> Container:
    """A container of whose permission on disk the ledger knows nothing: it names a slot that is not its own."""
    c = world.with_parked()
    found = PermissionSeen(
        key=c.key,
        has_grant=True,
        has_spec=True,
        container_id=c.engine_id,
        generation="L.99",
        slots=(SlotId("GPU-1"),),
    )
    world.restart(permissions=(replace(found, **of_permission),))
    assert world.fresh(c).blocks == ("GPU-1",)
    return world.fresh(c)


# ---- proofs


def test_a_look_that_was_ordered_before_the_withdrawal_proves_nothing() -> None:
    world = World()
    c = world.with_stopped()
    world.hint(c, "die")
    assert isinstance(world.order(c), do.LookAt)
    world.ask_stop(c, release=True)
    world.answer(world.order(c))
    assert world.allocation(c) is not None
    assert isinstance(world.order(c), do.Withdraw)


def test_a_driver_that_does_not_answer_for_long_drains_no_slot() -> None:
    world = World()
    c = releasing(world)
    world.blind = True
    for _ in range(30):
        world.oblige()
        world.wait(31)
    assert world.allocation(c) is not None
    assert all(slot.drained is None for slot in world.state.slots)


def test_another_engines_answer_frees_nothing() -> None:
    world = World()
    c = releasing(world)
    world.looks(c, EngineStatus.STRANGE)
    assert world.allocation(c) is not None


def test_an_operators_word_frees_nothing_while_somebody_is_in_the_cgroup() -> None:
    world = World()
    c = world.with_stopped()
    world.tell(ev.EngineAnswered(engine=replace(ENGINE, name=EngineName("engine-2")), restarted=False))
    world.ask_release(c, engine_gone=True)
    world.answer(world.order(c))
    world.looks(c, EngineStatus.STRANGE, cgroup=CgroupStatus.OCCUPIED)
    assert world.allocation(c) is not None


def test_the_id_of_what_was_destroyed_from_outside_is_known_until_its_slots_are_free() -> None:
    world = World()
    c = world.with_stopped()
    world.hint(c, "destroy")
    world.looks(c, EngineStatus.ABSENT)
    world.answer(world.order(c))
    look = world.order(c)
    assert isinstance(look, do.LookAt)
    assert look.engine_id == c.engine_id


def test_the_id_of_what_is_gone_is_known_while_slots_of_it_are_blocked() -> None:
    world = World()
    c = world.with_stopped()
    (kept,) = world.permissions()
    world.restart(permissions=(replace(kept, slots=(SlotId("GPU-0"), SlotId("GPU-1"))),))
    world.ask_stop(c, release=True)
    world.answer(world.order(c))
    world.looks(c, EngineStatus.ABSENT)
    assert world.allocation(c) is None
    assert world.fresh(c).engine_id == c.engine_id


def test_the_id_of_what_is_gone_is_known_until_its_own_slots_are_free_too() -> None:
    world = World()
    c = world.with_stopped()
    (kept,) = world.permissions()
    world.restart(permissions=(replace(kept, slots=(SlotId("GPU-0"), SlotId("GPU-1"))),))
    world.answer(world.order(c))
    world.looks(c, EngineStatus.ABSENT)
    assert not world.fresh(c).blocks
    assert world.allocation(c) is not None
    assert world.fresh(c).engine_id == c.engine_id


def test_nothing_is_removed_while_slots_of_it_are_blocked() -> None:
    world = World()
    c = blocking(world)
    world.ask_remove(c)
    world.answer(world.order(c))
    world.looks(c, EngineStatus.STOPPED, slots=None)
    world.wait(31)
    assert not any(isinstance(o, do.RemoveContainer) for o in world.given)
    world.oblige()
    world.wait(31)
    world.oblige()
    assert world.gone(c)


def test_what_was_never_made_is_known_while_a_permission_of_it_blocks_slots() -> None:
    world = World()
    world.ask_create()
    c = world.named("alice")
    found = PermissionSeen(key=c.key, has_grant=True, has_spec=False, container_id=None, slots=(SlotId("GPU-1"),))
    world.restart(permissions=(found,))
    world.taken.add(c.engine_name)
    world.oblige(until=lambda w: w.allocation(c) is None)
    assert world.fresh(c).blocks == ("GPU-1",)


def test_a_permission_that_names_another_slot_than_its_record_is_withdrawn_before_anybody_looks() -> None:
    world = World()
    c = world.with_stopped()
    (kept,) = world.permissions()
    other = SlotId("GPU-1" if world.slots(c) == ("GPU-0",) else "GPU-0")
    world.restart(permissions=(replace(kept, slots=(other,)),))
    assert isinstance(world.order(c), do.Withdraw)


# ---- permissions


@pytest.mark.parametrize("damage", [{"has_grant": False}, {"has_spec": False}])
def test_a_permission_that_was_cut_short_is_completed_as_it_was(damage: dict[str, object]) -> None:
    world = World()
    c = world.with_running()
    (kept,) = world.permissions()
    world.restart(permissions=(replace(kept, **damage),))
    world.oblige()
    assert world.disk[c.key].generation == c.generation


def test_a_write_under_way_is_neither_there_nor_not_there() -> None:
    world = World()
    world.ask_create()
    c = world.named("alice")
    world.answer(world.order(c))
    assert isinstance(world.order(c), do.Permit)
    assert world.fresh(c).permission is Permission.UNSURE
    world.failed(c, "input/output error", kind="disk")
    world.ask_stop(c, release=True)
    world.wait(2)
    assert isinstance(world.order(c), do.Withdraw)


@pytest.mark.parametrize("order", [do.Permit, do.Withdraw])
def test_a_write_whose_hand_slipped_is_given_again(order: type) -> None:
    world = World()
    c = world.with_created()
    if order is do.Withdraw:
        world.ask_stop(c, release=True)
    else:
        world.ask_stop(c, release=True)
        world.oblige()
        world.ask_start(c)
    assert isinstance(world.order(c), order)
    world.uncertain(c, returned=True)
    world.wait(2)
    assert isinstance(world.order(c), order)


@pytest.mark.parametrize("other", [{"container_id": "e8"}, {"slots": ("GPU-1",)}])
def test_a_permission_of_our_key_and_generation_that_says_something_else_is_written_anew(
    other: dict[str, object],
) -> None:
    world = World()
    c = world.with_running()
    (kept,) = world.permissions()
    world.restart(permissions=(replace(kept, **other),))
    world.oblige()
    world.wait(2)
    world.oblige()
    assert any(isinstance(o, do.Permit) for o in world.given)
    assert world.disk[c.key].engine_id == c.engine_id


def test_a_run_that_the_ledger_forgot_does_not_take_slots_that_are_anothers_by_now() -> None:
    world = World(whole(0))
    c = world.with_parked()
    world.see()
    world.with_created("bob")
    assert c.engine_id is not None
    world.engine[c.engine_id].status = EngineStatus.RUNNING
    found = PermissionSeen(
        key=c.key,
        has_grant=True,
        has_spec=True,
        container_id=c.engine_id,
        generation="L.99",
        slots=(SlotId("GPU-0"),),
    )
    running = Listed(engine_id=c.engine_id, name=c.engine_name, status=EngineStatus.RUNNING)
    outcome = world.restart(permissions=(*world.permissions(), found), listed=(running,))
    assert not outcome.faults
    assert [a.user for a in world.state.allocations] == ["bob"]
    assert world.fresh(c).blocks == ("GPU-0",)


def test_a_card_is_not_given_while_a_slice_that_it_was_cut_into_is_blocked() -> None:
    slot = SlotId("GPU-0/2g.20gb@0")
    world = World(cut(0, piece(0)))
    found = PermissionSeen(
        key=Key("k9"), has_grant=True, has_spec=True, container_id=EngineId("e9"), generation="L.9", slots=(slot,)
    )
    world.restart(permissions=(found,))
    world.see(whole(0))
    assert world.ask_create().refused is not None


def test_a_card_that_is_cut_now_is_not_there_as_a_whole_although_its_slices_cannot_be_read() -> None:
    world = World(whole(0))
    world.see(whole(0, mig=True, unread=(SliceUnread(uuid="MIG-0", trouble="it does not say where it lies"),)))
    assert isinstance(world.ask_create().refused, NoSuchSlots)


# ---- creations and removals


def test_what_an_earlier_lineage_made_is_ours() -> None:
    world = World()
    world.engine[EngineId("e9")] = Made(engine_id=EngineId("e9"))
    world.restart(lineage="M", listed=(unrecorded(),))
    world.oblige()
    assert EngineId("e9") not in world.engine


def test_a_creation_is_not_given_up_because_the_engine_is_silent() -> None:
    world = World()
    world.ask_create()
    c = world.named("alice")
    world.uncertain(c)
    world.looks(c, EngineStatus.SILENT, cgroup=CgroupStatus.UNKNOWN)
    assert world.fresh(c).phase is Phase.CREATING


def test_a_removal_that_was_asked_for_is_not_forgotten_when_somebody_stops_the_container_once_more() -> None:
    world = World()
    c = world.with_running()
    removed = world.ask_remove(c, force=True)
    world.ask_stop(c)
    world.oblige()
    assert world.gone(c)
    assert world.operation(removed).state is OperationState.DONE


def test_what_was_found_without_a_record_is_forgotten_when_its_engine_is_no_more() -> None:
    world = World()
    e9 = EngineId("e9")
    world.engine[e9] = Made(engine_id=e9)
    world.restart(listed=(unrecorded(),))
    (c,) = world.state.containers
    world.failed(c, "it does not go")
    world.wait(2)
    world.looks(c, EngineStatus.STRANGE)
    assert world.gone(c)


@pytest.mark.parametrize("gpus", [True, False])
def test_another_engine_tells_of_no_removal(gpus: bool) -> None:
    world = World()
    c = world.with_running() if gpus else world.with_running(spec=ContainerSpec(image="i", gpus=None))
    world.hint(c, "destroy")
    world.looks(c, EngineStatus.STRANGE)
    assert world.fresh(c).phase is Phase.RUNNING


# ---- runs


def test_a_run_without_processes_is_looked_at_when_a_listing_shows_it() -> None:
    world = World()
    c = world.with_running()
    world.listing(cgroup={c.engine_id: CgroupStatus.EMPTY})
    assert isinstance(world.order(c), do.LookAt)


@pytest.mark.parametrize("gpus", [True, False])
def test_silence_is_no_end_of_a_run(gpus: bool) -> None:
    world = World()
    c = world.with_running() if gpus else world.with_running(spec=ContainerSpec(image="i", gpus=None))
    world.hint(c, "die")
    world.looks(c, EngineStatus.SILENT)
    assert world.fresh(c).phase is Phase.RUNNING
    a = world.allocation(c)
    assert a is None or a.claim is Claim.BOUND


def test_processes_of_a_container_without_a_record_are_never_ended() -> None:
    world = World()
    found = PermissionSeen(
        key=Key("k9"),
        has_grant=True,
        has_spec=True,
        container_id=EngineId("e9"),
        generation="L.9",
        slots=(SlotId("GPU-0"),),
    )
    world.restart(permissions=(found,))
    (c,) = world.state.containers
    world.answer(world.order(c))
    world.looks(c, EngineStatus.STOPPED, ghost=True, cgroup=CgroupStatus.OCCUPIED)
    world.wait(60)
    assert not any(isinstance(o, do.KillGhost) for o in world.given)
    assert world.fresh(c).blocks == ("GPU-0",)
