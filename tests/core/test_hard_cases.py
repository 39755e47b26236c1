"""What goes wrong only when two things come together, each found by somebody who looked for it."""

import msgspec
import pytest
from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.core import handle
from ds01d.model.allocation import Claim
from ds01d.model.container import Permission, Phase
from ds01d.model.errors import EngineDown, TooMany, WrongPhase
from ds01d.model.facts import CgroupStatus, EngineStatus, Listed, SlotSeen
from ds01d.model.ids import ContainerId, EngineId, EngineName, Key, SlotId, Uid
from ds01d.model.operation import OperationState
from ds01d.model.permission import PermissionSeen
from tests.core.world import ENGINE, Made, World, picture


def test_a_container_whose_cgroup_cannot_be_told_is_not_asked_about_without_a_pause() -> None:
    world = World()
    c = world.with_created()
    world.ask_start(c)
    while not isinstance(world.order(c), do.LookAt):
        world.answer(world.order(c))

    world.looks(c, EngineStatus.RUNNING, cgroup_path=None, init_alive=None)

    assert world.fresh(c).phase is Phase.RUNNING
    assert c.id not in world.orders
    world.wait(31)
    assert isinstance(world.order(c), do.LookAt)


def test_a_second_stop_without_a_grace_ends_the_first_ones_patience_at_once() -> None:
    world = World()
    c = world.with_running()
    world.ask_stop(c, grace_s=60.0)
    world.orders.clear()

    world.ask_stop(c, grace_s=0.0)

    order = world.order(c)
    assert isinstance(order, do.KillContainer) or (isinstance(order, do.StopContainer) and order.grace_s == 0)


def test_a_second_stop_with_a_shorter_grace_shortens_the_first_ones() -> None:
    world = World()
    c = world.with_running()
    world.ask_stop(c, grace_s=60.0)
    world.orders.clear()

    world.ask_stop(c, grace_s=5.0)

    order = world.order(c)
    assert isinstance(order, do.StopContainer)
    assert order.grace_s == 5


def test_a_second_stop_with_a_longer_grace_does_not_take_the_container_for_started_from_outside() -> None:
    world = World()
    c = world.with_running()
    world.ask_stop(c, grace_s=5.0)
    asked = world.ask_stop(c, grace_s=600.0)
    world.done(c)

    world.looks(c, EngineStatus.RUNNING)

    assert world.fresh(c).phase is Phase.STOPPING
    assert world.operation(asked).state is OperationState.PENDING


def with_blocks(world: World) -> tuple[ContainerId, SlotId]:
    """A held container whose permission on disk named another slot than the ledger: a roll-back left it so."""
    c = world.with_stopped()
    (own,) = world.slots(c)
    other = next(s.id for s in world.state.slots if s.id != own)
    seen = tuple(replace(p, slots=(other,)) for p in world.permissions())
    world.orders.clear()
    world.recall(permissions=seen)
    assert world.fresh(c).blocks == (other,)
    return c.id, other


def test_slots_blocked_by_an_old_permission_are_free_again_after_the_removal_of_its_container() -> None:
    world = World()
    c, other = with_blocks(world)

    world.ask_remove(c)
    world.oblige()

    assert world.gone(c)
    assert not world.state.containers.count("blocks", other)


def test_slots_blocked_by_an_old_permission_stay_so_while_nvml_shows_somebody_there() -> None:
    world = World()
    c, other = with_blocks(world)
    world.ask_remove(c)

    def lingers(w: World) -> bool:
        order = w.orders.get(c)
        return isinstance(order, do.LookAt) and order.slots == (other,)

    world.oblige(until=lingers)
    assert lingers(world)
    order = world.order(c)
    assert isinstance(order, do.LookAt)
    world.engine.clear()
    seen = tuple(msgspec.structs.replace(s, pids=(77,)) for s in slots_of(order))
    world.looks(c, EngineStatus.ABSENT, slots=seen)

    assert world.state.containers.count("blocks", other)
    world.wait(40)
    world.oblige()
    assert world.gone(c)


def slots_of(order: do.LookAt) -> tuple[SlotSeen, ...]:
    return tuple(SlotSeen(slot=s, used_mib=0, net_of_reserved=True) for s in order.slots)


def test_a_start_of_a_strange_container_makes_the_daemon_list_at_once() -> None:
    world = World()

    world.tell(ev.EngineHinted(engine_id=EngineId("f" * 64), action="start", at=world.now))

    assert any(isinstance(note, do.Relist) for note in world.notes)


def test_the_end_of_a_strange_container_is_no_reason_to_list() -> None:
    world = World()

    world.tell(ev.EngineHinted(engine_id=EngineId("f" * 64), action="die", at=world.now))

    assert not any(isinstance(note, do.Relist) for note in world.notes)


def test_a_remove_names_the_engine_whose_404_would_be_a_yes() -> None:
    world = World()
    c = world.with_parked()

    world.ask_remove(c)

    order = world.order(c)
    assert isinstance(order, do.RemoveContainer)
    assert order.engine == ENGINE.name


def test_nothing_is_created_before_it_is_known_which_engine_would_make_it() -> None:
    world = World()
    world.tell(ev.EngineAnswered(engine=ENGINE, restarted=False))
    world.state.sight = replace(world.state.sight, engine=None)

    refused = world.ask_create().refused

    assert isinstance(refused, EngineDown)


@pytest.mark.parametrize("order", [do.Permit, do.Withdraw])
def test_a_fault_of_ours_does_not_forget_a_write_that_is_still_under_way(order: type) -> None:
    world = World()
    if order is do.Permit:
        world.ask_create()
        c = world.named("alice")
        world.answer(world.order(c))
    else:
        c = world.with_stopped()
        world.ask_release(c)
    assert isinstance(world.order(c), order)

    world.tell(ev.Stumbled(container=c.id, message="a bug"))

    outstanding = world.fresh(c).order
    assert outstanding is not None
    assert outstanding.id == world.order(c).order


def test_a_write_whose_answer_met_a_fault_of_ours_is_given_anew() -> None:
    world = World()
    world.ask_create()
    c = world.named("alice")
    world.answer(world.order(c))
    order = world.take(c)

    world.tell(ev.Stumbled(container=c.id, message="a bug", answered=order.order))

    assert world.fresh(c).order is None or world.fresh(c).order.id != order.order  # type: ignore[union-attr]


def test_a_hold_whose_end_met_a_fault_of_ours_ends_all_the_same() -> None:
    world = World()
    c = world.with_stopped()
    (slot_id,) = world.slots(c)
    slot = world.state.slots.rows[slot_id]
    world.state.slots.store(slot_id, None)
    world.now += 3700
    faults = handle(world.state, ev.Woke(), world.now).faults
    assert [container for container, _ in faults] == [c.id]
    world.state.slots.store(slot_id, slot)

    world.tell(ev.Stumbled(container=c.id, message="a bug"))
    world.oblige()
    world.wait(60)
    world.oblige()

    assert world.allocation(c) is None


def test_a_start_of_a_container_that_runs_without_an_allocation_is_refused_and_not_left_waiting() -> None:
    world = World()
    c = world.with_parked()
    world.starts(c.engine_id)
    world.hint(c, "start")
    world.oblige()
    assert world.fresh(c).violation is not None

    refused = world.ask_start(c).refused

    assert isinstance(refused, WrongPhase)


def test_an_operators_word_about_an_engine_counts_no_more_once_that_engine_is_back() -> None:
    world = World()
    c = world.with_stopped()
    world.tell(ev.EngineAnswered(engine=replace(ENGINE, name=EngineName("engine-2")), restarted=False))
    world.ask_release(c, engine_gone=True)
    world.answer(world.order(c))
    world.tell(ev.EngineAnswered(engine=ENGINE, restarted=False))

    world.oblige()

    assert world.allocation(c) is None
    assert world.fresh(c).phase is Phase.STOPPED
    assert not world.fresh(c).engine_gone


def test_a_release_on_an_operators_word_is_over_once_that_engine_is_back_and_nothing_was_held() -> None:
    world = World()
    c = world.with_parked()
    world.tell(ev.EngineAnswered(engine=replace(ENGINE, name=EngineName("engine-2")), restarted=False))
    asked = world.ask_release(c, engine_gone=True)
    world.tell(ev.EngineAnswered(engine=ENGINE, restarted=False))

    world.oblige()

    assert world.operation(asked).state is OperationState.DONE
    assert not world.fresh(c).engine_gone


def test_a_container_that_ended_by_itself_before_the_engine_went_down_is_not_started_again() -> None:
    world = World()
    c = world.with_running()
    world.ends(c.engine_id, 0)
    world.now += 60
    world.tell(ev.EngineSilent(reason="its stream ended"))
    world.now += 5
    world.tell(ev.EngineAnswered(engine=ENGINE, restarted=True))
    world.oblige()

    assert world.fresh(c).phase is Phase.STOPPED


def test_what_ended_while_its_engine_was_told_to_stop_is_started_again_by_the_next() -> None:
    """An engine gives containers 15 s, and keeps open connections for another 5 s: silence comes late."""
    world = World()
    c = world.with_running()
    world.now += 100
    world.ends(c.engine_id, 143)
    world.now += 18
    world.tell(ev.EngineSilent(reason="its stream ended"))
    world.now += 5
    world.tell(ev.EngineAnswered(engine=ENGINE, restarted=True))
    world.oblige()

    assert world.fresh(c).phase is Phase.RUNNING


def test_a_look_that_the_next_engine_answers_before_it_is_known_to_be_another_tells_the_same() -> None:
    world = World()
    c = world.with_running()
    world.now += 100
    world.ends(c.engine_id, 143)
    world.now += 3
    world.tell(ev.EngineSilent(reason="its stream ended"))
    world.now += 5
    world.hint(c, "die")
    world.looks(c, EngineStatus.STOPPED, engine_since=world.now)
    world.oblige()

    assert world.fresh(c).phase is Phase.RUNNING


@pytest.mark.parametrize("another", [True, False])
def test_what_the_next_engine_ended_before_it_is_known_to_be_another_is_started_again(another: bool) -> None:
    world = World()
    came_up = world.now
    world.tell(ev.EngineAnswered(engine=replace(ENGINE, since=came_up), restarted=False))
    c = world.with_running()
    world.now += 100
    world.tell(ev.EngineSilent(reason="its stream ended"))
    since = world.now + 0.5 if another else came_up
    world.now += 1
    world.ends(c.engine_id, 0)
    world.hint(c, "die")
    world.looks(c, EngineStatus.STOPPED, engine_since=since)
    world.oblige()

    assert world.fresh(c).phase is (Phase.RUNNING if another else Phase.STOPPED)


def test_a_container_that_went_down_with_an_engine_restarted_behind_our_back_is_started_again() -> None:
    world = World()
    c = world.with_running()
    world.now += 100
    world.ends(c.engine_id, 143)
    world.now += 1
    world.recall(engine=replace(ENGINE, since=world.now))
    world.oblige()

    assert world.fresh(c).phase is Phase.RUNNING
    assert world.fresh(c).started_at == world.now or world.fresh(c).started_at > c.started_at


def test_a_start_that_went_down_with_its_engine_is_told_so() -> None:
    world = World()
    c = world.with_stopped()
    operation = world.ask_start(c).operation
    assert operation is not None
    world.uncertain(c)
    world.looks(
        c,
        EngineStatus.STOPPED,
        started_at=world.now + 1,
        finished_at=world.now + 3,
        exit_code=0,
        engine_since=world.now + 2,
    )
    failure = world.state.operations.rows[operation].failure
    assert failure is not None
    assert failure.message == "c went down with the engine, which was restarted in the middle of its start"
    assert "container-start c" in failure.hint
    assert world.fresh(c).why == "ended with the engine, which was restarted"


def test_what_its_user_asked_to_stop_is_not_started_again_by_an_engine_that_comes_back() -> None:
    world = World()
    c = world.with_running()
    world.tell(ev.EngineAnswered(engine=ENGINE, restarted=True))
    world.ask_stop(c)
    world.oblige()

    assert world.fresh(c).phase is Phase.STOPPED


def test_a_failed_create_leaves_nothing_behind() -> None:
    world = World()
    world.ask_create()
    c = world.named("alice")
    world.failed(c)
    world.oblige()

    assert world.gone(c)
    assert world.state.changed_at == {}


def test_one_user_can_have_only_so_many_operations_that_are_not_over() -> None:
    world = World()
    c = world.with_running()
    world.tell(ev.EngineSilent(reason="gone"))

    answers = [world.ask_stop(c) for _ in range(300)]

    assert isinstance(answers[-1].refused, TooMany)
    assert len(world.state.operations) < 200


def test_a_container_from_an_image_that_was_committed_from_one_of_ours_is_never_removed() -> None:
    """`docker commit` keeps labels, and whoever is made from the image carries them."""
    world = World()
    listed = Listed(
        engine_id=EngineId("d" * 64),
        name="somebodys",
        status=EngineStatus.CREATED,
        created_at=world.now - 10_000,
        label_id=ContainerId("L-1"),
        label_key=Key("gone"),
        label_uid=Uid(1001),
        label_user="alice",
        label_name="c",
    )

    world.tell(ev.Relisted(revision=world.state.revision, containers=(listed,), foreign=()))

    assert not world.orders
    assert not world.state.containers.rows


@pytest.mark.parametrize(("good_for_s", "given"), [(2.0, False), (60.0, True)])
def test_slots_are_given_by_a_picture_for_as_long_as_two_of_its_polls_take(good_for_s: float, *, given: bool) -> None:
    world = World()
    world.tell(ev.Probed(picture=picture(*world.gpus), processes=(), good_for_s=good_for_s))
    world.now += 20

    assert (world.ask_create().refused is None) is given


@pytest.mark.parametrize(("label_gid", "gid"), [(4711, 4711), (None, 65534)])
def test_an_adopted_container_never_runs_as_a_group_that_is_not_its_owners(label_gid: int | None, gid: int) -> None:
    world = World()
    engine_id = EngineId("e9")
    world.engine[engine_id] = Made(engine_id=engine_id, status=EngineStatus.RUNNING, started_at=world.now)
    listed = Listed(
        engine_id=engine_id,
        name="train._.1001",
        status=EngineStatus.RUNNING,
        label_id=ContainerId("L-9"),
        label_key=Key("k9"),
        label_uid=Uid(1001),
        label_gid=label_gid,
        label_user="alice",
        label_name="train",
    )
    seen = PermissionSeen(
        key=Key("k9"), has_grant=True, has_spec=True, container_id=engine_id, generation="L.1", slots=(SlotId("GPU-0"),)
    )

    world.recall(listed=(listed,), permissions=(seen,))

    assert world.named("alice", "train").gid == gid


@pytest.mark.parametrize("phase", [Phase.RUNNING, Phase.STOPPED])
def test_a_look_that_cannot_be_taken_is_not_tried_again_without_a_pause(phase: Phase) -> None:
    """A hand that slips answers at once, for want of descriptors for instance."""
    world = World()
    c = world.with_running() if phase is Phase.RUNNING else world.with_stopped()
    world.hint(c, "die")
    looks = 0

    while c.id in world.orders:
        world.uncertain(c, returned=True)
        looks += 1
        assert looks < 3

    world.wait(31)
    assert isinstance(world.order(c), do.LookAt)


def test_a_start_in_which_the_engine_hangs_up_again_and_again_is_given_up_in_words_that_name_the_cure() -> None:
    world = World()
    c = world.with_created()
    asked = world.ask_start(c)

    for _ in range(20):
        if isinstance(world.order(c), do.StartContainer):
            world.uncertain(c, returned=True, message="the engine hung up\nan operator can raise the limit")
        world.looks(c, EngineStatus.CREATED)
        if world.operation(asked).failure is not None:
            break
        world.wait(31)

    failure = world.failure(asked)
    assert failure.message == "cannot start c: the engine hung up"
    assert failure.hint == "an operator can raise the limit"
    assert world.fresh(c).phase is Phase.STOPPED
    assert world.allocation(c).claim is Claim.HELD  # type: ignore[union-attr]


def test_a_permission_that_vanished_from_the_disk_is_written_again() -> None:
    world = World()
    c = world.with_created()
    world.disk.clear()
    assert c.engine_id is not None
    listed = Listed(engine_id=c.engine_id, name=c.engine_name, status=EngineStatus.CREATED, cgroup=CgroupStatus.EMPTY)

    world.tell(ev.Relisted(revision=world.state.revision, containers=(listed,), foreign=(), permissions=()))
    world.oblige()

    assert c.key in world.disk
    assert world.fresh(c).permission is Permission.PRESENT
    assert world.allocation(c).claim is Claim.HELD  # type: ignore[union-attr]
