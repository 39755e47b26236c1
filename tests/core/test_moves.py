"""Every move of a container and its allocation (lifecycle.md §1), under its number."""

import pytest

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.model.allocation import Claim
from ds01d.model.container import Container, ContainerSpec, Permission, Phase
from ds01d.model.facts import CgroupStatus, EngineStatus, SlotSeen
from ds01d.model.ids import EngineId
from ds01d.model.operation import OperationState
from tests.core.world import ENGINE, Made, World, whole


def stand(world: World, c: Container) -> tuple[Phase, Claim | None]:
    a = world.allocation(c)
    return world.fresh(c).phase, a.claim if a is not None else None


def orders(world: World) -> list[type]:
    return [type(o) for o in world.given]


def test_move_1_a_create_reserves_slots_and_gives_no_permission_yet() -> None:
    world = World()
    world.ask_create()
    c = world.named("alice")
    assert stand(world, c) == (Phase.CREATING, Claim.RESERVED)
    assert orders(world) == [do.CreateContainer]


def test_move_2_a_created_container_is_held_and_its_caller_answered_after_the_permission() -> None:
    world = World()
    asked = world.ask_create()
    c = world.named("alice")
    world.done(c, engine_id="e1")
    assert stand(world, c) == (Phase.STOPPED, Claim.HELD)
    assert world.operation(asked).state is OperationState.PENDING
    world.done(c)
    assert world.operation(asked).state is OperationState.DONE


def test_move_2_a_create_without_an_answer_is_found_by_its_name() -> None:
    world = World()
    world.ask_create()
    c = world.named("alice")
    world.uncertain(c)
    look = world.order(c)
    assert isinstance(look, do.LookAt)
    assert (look.engine_id, look.name) == (None, c.engine_name)
    world.looks(c, EngineStatus.CREATED, engine_id="e1")
    assert stand(world, c) == (Phase.STOPPED, Claim.HELD)
    assert world.fresh(c).engine_id == "e1"


def test_move_3_a_create_that_failed_for_good_is_proved_before_its_slots_are_free() -> None:
    world = World()
    asked = world.ask_create()
    c = world.named("alice")
    world.failed(c, "no such image", kind="image_not_found")
    assert world.failure(asked).kind == "image_not_found"
    assert stand(world, c) == (Phase.REMOVING, Claim.RELEASING)
    world.oblige()
    assert world.gone(c)


def test_move_4_a_start_within_the_hold_finds_its_permission_there() -> None:
    world = World()
    c = world.with_created()
    world.given.clear()
    world.ask_start(c)
    assert stand(world, c) == (Phase.STARTING, Claim.BOUND)
    assert orders(world) == [do.StartContainer]


def test_move_5_a_start_of_a_parked_container_writes_a_permission_with_a_higher_generation_first() -> None:
    world = World()
    c = world.with_parked()
    before = world.fresh(c).generation
    world.given.clear()
    world.see()
    world.ask_start(c)
    assert stand(world, c) == (Phase.STARTING, Claim.BOUND)
    assert orders(world) == [do.Permit]
    assert world.fresh(c).generation not in {before, ""}
    world.done(c)
    assert orders(world) == [do.Permit, do.StartContainer]


def test_move_6_a_started_container_runs_in_the_cgroup_that_was_seen() -> None:
    world = World()
    c = world.with_running()
    assert stand(world, c) == (Phase.RUNNING, Claim.BOUND)
    assert world.fresh(c).cgroup == f"/ds01/{c.engine_id}"


def test_move_7_a_start_that_failed_for_good_leaves_the_hold_for_five_minutes_at_least() -> None:
    world = World()
    c = world.with_stopped()
    end = world.allocation(c).deadline  # type: ignore[union-attr]
    asked = world.ask_start(c)
    world.failed(c, "cannot find python", kind="engine")
    world.oblige()
    assert stand(world, c) == (Phase.STOPPED, Claim.HELD)
    assert world.allocation(c).deadline == end  # type: ignore[union-attr]
    assert "cannot find python" in world.failure(asked).message
    world.now = end - 10  # type: ignore[operator]
    world.ask_start(c)
    world.failed(c, "cannot find python", kind="engine")
    world.oblige()
    assert world.allocation(c).deadline == world.now + 300  # type: ignore[union-attr]


def test_move_7_a_start_that_meets_a_late_cache_is_tried_again() -> None:
    world = World()
    c = world.with_stopped()
    asked = world.ask_start(c)
    for _ in range(3):
        world.failed(c, "unresolvable CDI device", again=True)
        world.wait(5)
    world.oblige()
    assert world.operation(asked).state is OperationState.DONE


def test_move_8_a_raw_start_within_the_hold_is_fine() -> None:
    world = World()
    c = world.with_stopped()
    world.starts(c.engine_id)
    world.hint(c, "start")
    world.oblige()
    assert stand(world, c) == (Phase.RUNNING, Claim.BOUND)
    assert world.alerts() == []


def test_move_9_a_parked_container_that_runs_is_reported() -> None:
    world = World()
    c = world.with_parked()
    world.starts(c.engine_id)
    world.hint(c, "start")
    world.oblige()
    assert stand(world, c) == (Phase.RUNNING, None)
    assert world.fresh(c).violation is not None
    assert len(world.alerts()) == 1


def test_move_10_a_container_that_died_by_itself_holds_its_slots_from_its_end_on() -> None:
    world = World()
    c = world.with_running()
    world.ends(c.engine_id, 7)
    ended = world.now
    world.now += 20
    world.hint(c, "die")
    world.oblige()
    assert stand(world, c) == (Phase.STOPPED, Claim.HELD)
    assert world.allocation(c).deadline == ended + 3600  # type: ignore[union-attr]
    assert world.fresh(c).exit_code is None or world.fresh(c).finished_at == ended
    assert len(world.told()) == 1


def test_move_11_sessions_are_cut_when_the_grace_is_over() -> None:
    world = World()
    c = world.with_running()
    world.ask_stop(c, grace_s=20.0)
    stop = world.order(c)
    assert isinstance(stop, do.StopContainer)
    assert (stop.grace_s, stop.timeout_s) == (20.0, 50.0)
    world.wait(19)
    assert not list(world.heard(do.CutSessions))
    world.wait(5)
    assert len(list(world.heard(do.CutSessions))) == 1


def test_move_11a_a_running_container_with_an_empty_cgroup_has_its_sessions_cut_and_is_looked_at_again() -> None:
    world = World()
    c = world.with_running()
    world.hint(c, "oom")
    world.looks(c, EngineStatus.RUNNING, cgroup=CgroupStatus.EMPTY, init_alive=False)
    assert len(list(world.heard(do.CutSessions))) == 1
    world.wait(2)
    assert isinstance(world.order(c), do.LookAt)
    assert stand(world, c) == (Phase.RUNNING, Claim.BOUND)


def test_move_12_a_stop_with_release_withdraws_and_proves() -> None:
    world = World()
    c = world.with_running()
    world.given.clear()
    world.ask_stop(c, release=True)
    world.oblige()
    assert stand(world, c) == (Phase.STOPPED, None)
    assert orders(world) == [do.StopContainer, do.LookAt, do.Withdraw, do.LookAt]


def test_move_13_a_stop_that_failed_is_followed_by_a_kill_and_after_three_by_an_alert() -> None:
    world = World()
    c = world.with_running()
    world.ask_stop(c)
    world.failed(c)
    for _ in range(2):
        world.wait(5)
        world.looks(c, EngineStatus.RUNNING)
        world.wait(5)
        assert isinstance(world.order(c), do.KillContainer)
        world.failed(c, "permission denied")
    assert len(world.alerts()) == 1
    world.wait(10)
    world.looks(c, EngineStatus.STOPPED)
    assert stand(world, c) == (Phase.STOPPED, Claim.HELD)


def test_move_13_a_stop_whose_container_has_no_init_any_more_has_its_sessions_cut() -> None:
    world = World()
    c = world.with_running()
    world.ask_stop(c)
    world.uncertain(c)
    world.looks(c, EngineStatus.RUNNING, cgroup=CgroupStatus.EMPTY, init_alive=False)
    assert len(list(world.heard(do.CutSessions))) == 1


@pytest.mark.parametrize("how", ["hold over", "release", "removal"])
def test_move_14_the_end_of_a_hold_withdraws_before_anything_else(how: str) -> None:
    world = World()
    c = world.with_stopped()
    world.given.clear()
    if how == "hold over":
        world.wait(3601)
    elif how == "release":
        world.ask_stop(c, release=True)
    else:
        world.ask_remove(c)
    assert world.allocation(c).claim is Claim.RELEASING  # type: ignore[union-attr]
    assert orders(world)[0] is do.Withdraw


def test_move_15_a_proved_release_frees_the_slots_and_tells_the_owner() -> None:
    world = World()
    c = world.with_stopped()
    world.ask_stop(c, release=True)
    world.oblige()
    assert stand(world, c) == (Phase.STOPPED, None)
    assert any("parked" in words for words in world.told())


def test_move_16_a_raw_start_before_the_withdrawal_keeps_the_slots() -> None:
    world = World()
    c = world.with_stopped()
    released = world.ask_stop(c, release=True)
    world.starts(c.engine_id)
    world.oblige()
    assert stand(world, c) == (Phase.RUNNING, Claim.BOUND)
    assert world.fresh(c).permission is Permission.PRESENT
    assert world.operation(released).state is OperationState.FAILED
    assert any("keeps its GPU" in words for words in world.told())


def test_move_16_a_removal_is_forgotten_when_a_raw_start_came_first() -> None:
    world = World()
    c = world.with_stopped()
    removed = world.ask_remove(c)
    world.starts(c.engine_id)
    world.oblige()
    assert stand(world, c) == (Phase.RUNNING, Claim.BOUND)
    assert world.failure(removed).kind == "wrong_phase"


def test_move_17_a_ghost_is_ended_and_the_proof_begun_again() -> None:
    world = World()
    c = world.with_stopped()
    world.given.clear()
    world.ghosts.add(c.engine_id)  # type: ignore[arg-type]
    world.ask_stop(c, release=True)
    world.oblige()
    assert orders(world) == [do.Withdraw, do.LookAt, do.KillGhost, do.LookAt]
    kill, look = world.given[2], world.given[1]
    assert isinstance(kill, do.KillGhost)
    assert kill.look == look.order
    assert stand(world, c) == (Phase.STOPPED, None)
    assert len(world.alerts()) == 1


def test_move_17a_a_listing_that_shows_a_ghost_leads_to_its_end() -> None:
    world = World()
    c = world.with_stopped()
    world.ghosts.add(c.engine_id)  # type: ignore[arg-type]
    world.listing(cgroup={c.engine_id: CgroupStatus.OCCUPIED})
    world.oblige()
    assert any(isinstance(o, do.KillGhost) for o in world.given)
    assert stand(world, c) == (Phase.STOPPED, Claim.HELD)


def test_move_18_without_proof_nothing_is_concluded_and_it_is_asked_again() -> None:
    world = World()
    c = world.with_stopped()
    world.silent = True
    world.ask_stop(c, release=True)
    world.oblige()
    pauses = []
    for _ in range(7):
        before = world.now
        world.wait((world.state.next_deadline() or 0) - world.now)
        pauses.append(world.now - before)
        world.oblige()
    assert stand(world, c) == (Phase.STOPPED, Claim.RELEASING)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]
    world.silent = False
    world.wait(31)
    world.oblige()
    assert stand(world, c) == (Phase.STOPPED, None)


def test_move_19_what_lingers_is_asked_about_every_two_seconds_and_drained_after_ten_minutes() -> None:
    world = World()
    c = world.with_stopped()
    (slot,) = world.slots(c)
    world.ask_stop(c, release=True)
    world.done(c)
    left = (SlotSeen(slot=slot, used_mib=4000, net_of_reserved=True),)
    world.looks(c, EngineStatus.STOPPED, slots=left)
    assert world.allocation(c).lingering is not None  # type: ignore[union-attr]
    assert world.state.next_deadline() == world.now + 2
    for _ in range(301):
        world.wait(2)
        world.looks(c, EngineStatus.STOPPED, slots=left)
    assert stand(world, c) == (Phase.STOPPED, Claim.RELEASING)
    assert world.state.slots.rows[slot].drained is not None
    assert len([w for w in world.alerts() if "fuser" in w]) == 1
    world.wait(2)
    world.oblige()
    assert stand(world, c) == (Phase.STOPPED, None)
    assert world.state.slots.rows[slot].drained is None


@pytest.mark.parametrize("answer", ["removed", "not found"])
def test_move_20_a_removed_container_is_gone(answer: str) -> None:
    world = World()
    c = world.with_parked()
    asked = world.ask_remove(c)
    if answer == "removed":
        world.done(c)
    else:
        world.uncertain(c)
        world.looks(c, EngineStatus.ABSENT)
    world.oblige()
    assert world.gone(c)
    assert world.operation(asked).outcome == "removed"


def test_move_20_a_failed_remove_is_tried_again() -> None:
    world = World()
    c = world.with_parked()
    asked = world.ask_remove(c)
    world.failed(c, "device or resource busy")
    world.wait(2)
    world.oblige()
    assert world.gone(c)
    assert world.operation(asked).state is OperationState.DONE


def test_move_21_a_container_destroyed_from_outside_frees_nothing_before_its_cgroup_is_empty() -> None:
    world = World()
    c = world.with_stopped()
    world.hint(c, "destroy")
    world.looks(c, EngineStatus.ABSENT, cgroup=CgroupStatus.OCCUPIED, ghost=False)
    assert stand(world, c) == (Phase.STOPPED, Claim.HELD)
    world.wait(1)
    world.looks(c, EngineStatus.ABSENT)
    assert stand(world, c) == (Phase.REMOVING, Claim.RELEASING)
    assert isinstance(world.order(c), do.Withdraw)
    world.done(c)
    world.looks(c, EngineStatus.ABSENT, cgroup=CgroupStatus.OCCUPIED)
    assert stand(world, c) == (Phase.REMOVING, Claim.RELEASING)
    world.wait(2)
    world.looks(c, EngineStatus.ABSENT)
    world.oblige()
    assert world.gone(c)


def test_move_22_a_lost_gpu_is_withdrawn_and_released_when_its_container_has_ended() -> None:
    world = World(whole(0), whole(1))
    c = world.with_running()
    (slot,) = world.slots(c)
    world.see(*[g for g in world.gpus if g.uuid != slot])
    assert world.allocation(c).lost  # type: ignore[union-attr]
    assert len(world.told()) == 1
    assert isinstance(world.order(c), do.Withdraw)
    world.oblige()
    assert stand(world, c) == (Phase.RUNNING, Claim.BOUND)
    world.ends(c.engine_id)
    world.blind = True
    world.hint(c, "die")
    world.oblige()
    assert stand(world, c) == (Phase.STOPPED, None)


def test_move_22_a_hold_on_a_lost_gpu_ends_at_once() -> None:
    world = World()
    c = world.with_stopped()
    (slot,) = world.slots(c)
    world.see(*[g for g in world.gpus if g.uuid != slot])
    world.oblige()
    assert stand(world, c) == (Phase.STOPPED, None)
    assert world.state.slots.get(slot) is None or world.state.slots.rows[slot].lost
    assert world.told()[-1] == "c is parked: GPU 0 is gone"


def test_move_23_other_devices_behind_a_slot_withdraw_the_permission_and_give_it_anew() -> None:
    world = World()
    c = world.with_stopped()
    (slot,) = world.slots(c)
    before = world.fresh(c).generation
    world.given.clear()
    world.see(*[whole(g.index, minor=g.minor + 4) for g in world.gpus])
    world.oblige()
    assert orders(world) == [do.Withdraw, do.Permit]
    assert world.fresh(c).generation != before
    assert world.slots(c) == (slot,)


@pytest.mark.parametrize("order", [do.Permit, do.Withdraw])
def test_move_24_an_uncertain_write_is_settled_by_its_own_return_alone(order: type) -> None:
    world = World()
    if order is do.Permit:
        world.ask_create()
        c = world.named("alice")
        e1 = EngineId("e1")
        world.engine[e1] = Made(engine_id=e1)
        world.done(c, engine_id=e1)
    else:
        c = world.with_stopped()
        world.ask_stop(c, release=True)
    late = world.order(c)
    assert isinstance(late, order)
    world.uncertain(c)
    if world.fresh(c).engine_id is not None:
        world.hint(world.fresh(c), "start")
    world.wait(600)
    assert c.id not in world.orders
    world.tell(ev.Done(container=c.id, order=late.order))
    world.oblige()
    assert world.fresh(c).order is None
    assert world.fresh(c).permission is (Permission.PRESENT if order is do.Permit else Permission.ABSENT)


@pytest.mark.parametrize("name", ["start", "stop", "remove", "create"])
def test_move_24_an_uncertain_order_to_the_engine_is_settled_by_a_look(name: str) -> None:
    world = World()
    if name == "create":
        world.ask_create()
        c = world.named("alice")
    elif name == "start":
        c = world.with_created()
        world.ask_start(c)
    elif name == "stop":
        c = world.with_running()
        world.ask_stop(c)
    else:
        c = world.with_parked()
        world.ask_remove(c)
    world.uncertain(c)
    assert isinstance(world.order(c), do.LookAt)


def test_move_25_what_cannot_be_withdrawn_is_not_proved() -> None:
    world = World()
    c = world.with_stopped()
    world.ask_stop(c, release=True)
    for _ in range(4):
        world.failed(c, "read-only file system", kind="disk")
        world.wait(30)
        assert isinstance(world.order(c), do.Withdraw)
    assert len(world.alerts()) == 1
    world.oblige()
    assert stand(world, c) == (Phase.STOPPED, None)


def test_a_start_asked_for_in_the_middle_of_a_release_waits_for_its_end_and_then_asks_anew() -> None:
    world = World()
    c = world.with_stopped()
    world.ask_stop(c, release=True)
    asked = world.ask_start(c)
    assert world.operation(asked).stage == "waiting until its old slots are released"
    world.see()
    world.oblige()
    assert stand(world, c) == (Phase.RUNNING, Claim.BOUND)
    assert world.operation(asked).state is OperationState.DONE


def test_a_waiting_start_that_finds_nothing_free_is_told_so() -> None:
    world = World(whole(0))
    c = world.with_stopped()
    world.ask_stop(c, release=True)
    asked = world.ask_start(c)
    world.see(whole(0, memory_used_mib=9000))
    world.oblige()
    assert world.failure(asked).kind == "none_free"
    assert stand(world, c) == (Phase.STOPPED, None)


def test_a_stop_while_it_starts_stops_it() -> None:
    world = World()
    c = world.with_created()
    started = world.ask_start(c)
    order = world.take(c)
    assert isinstance(order, do.StartContainer)
    stopped = world.ask_stop(c)
    assert world.operation(started).state is OperationState.FAILED
    world.starts(c.engine_id)
    world.tell(ev.Done(container=c.id, order=order.order))
    world.oblige()
    assert stand(world, c) == (Phase.STOPPED, Claim.HELD)
    assert world.operation(stopped).state is OperationState.DONE


def test_a_container_started_again_from_outside_while_it_is_being_stopped_runs() -> None:
    world = World()
    c = world.with_running()
    asked = world.ask_stop(c)
    world.ends(c.engine_id)
    world.now += 5
    world.starts(c.engine_id)
    world.done(c)
    world.oblige()
    assert stand(world, c) == (Phase.RUNNING, Claim.BOUND)
    assert "started again" in world.failure(asked).message


def test_an_engine_that_was_restarted_gets_what_ran_started_again() -> None:
    world = World()
    c = world.with_running()
    world.ends(c.engine_id)
    world.tell(ev.EngineAnswered(engine=ENGINE, restarted=True))
    world.oblige()
    assert stand(world, c) == (Phase.RUNNING, Claim.BOUND)


def test_a_container_without_a_gpu_has_a_permission_from_its_creation_to_its_removal() -> None:
    world = World()
    c = world.with_created(spec=ContainerSpec(image="i", gpus=None))
    assert world.disk[c.key].slots == ()
    world.ask_start(c)
    world.oblige()
    world.ask_stop(c)
    world.oblige()
    assert c.key in world.disk
    world.ask_remove(c)
    world.oblige()
    assert world.gone(c)
    assert world.disk == {}


def test_a_late_answer_to_an_order_that_was_given_up_changes_nothing() -> None:
    world = World()
    c = world.with_created()
    world.ask_start(c)
    start = world.take(c)
    world.wait(66)
    assert isinstance(world.order(c), do.LookAt)
    before = world.fresh(c)
    world.tell(ev.Failed(container=c.id, order=start.order, kind="engine", message="late"))
    assert world.fresh(c) == before


def test_a_listing_that_is_older_than_the_record_is_not_believed() -> None:
    world = World()
    c = world.with_created()
    asked_at = world.state.revision
    world.ask_start(c)
    world.oblige()
    world.tell(ev.Relisted(revision=asked_at, containers=(), foreign=()))
    assert c.id not in world.orders


def test_an_engine_without_an_answer_is_noted_and_nothing_concluded() -> None:
    world = World()
    c = world.with_running()
    since = world.now
    world.tell(ev.EngineSilent(reason="connection refused"))
    world.now += 50
    world.tell(ev.EngineSilent(reason="connection refused"))
    assert (world.state.sight.silent_since, world.state.sight.silent_why) == (since, "connection refused")
    world.tell(ev.EngineSilent(reason="no such file or directory"))
    assert (world.state.sight.silent_since, world.state.sight.silent_why) == (since, "no such file or directory")
    assert stand(world, c) == (Phase.RUNNING, Claim.BOUND)
    world.tell(ev.EngineAnswered(engine=ENGINE, restarted=False))
    assert world.state.sight.silent_since is None


def test_another_engine_proves_nothing_until_an_operator_says_that_the_old_one_is_gone() -> None:
    world = World()
    c = world.with_stopped()
    other = type(ENGINE)(name="engine-2", version="29.0", cdi=True, cgroup_driver="systemd")  # type: ignore[arg-type]
    world.tell(ev.EngineAnswered(engine=other, restarted=True))
    world.looks(c, EngineStatus.STRANGE)
    world.wait(7200)
    assert world.allocation(c) is not None
    asked = world.ask_release(c, engine_gone=True)
    for _ in range(4):
        world.wait(31)
        while c.id in world.orders:
            order = world.order(c)
            if isinstance(order, do.LookAt):
                world.looks(c, EngineStatus.STRANGE)
            else:
                world.answer(order)
    assert world.gone(c)
    assert world.operation(asked).state is OperationState.DONE


def test_a_stopped_container_whose_cgroup_cannot_be_read_stays_what_it_was() -> None:
    world = World()
    c = world.with_running()
    world.hint(c, "die")
    world.looks(c, EngineStatus.STOPPED, cgroup=CgroupStatus.UNKNOWN)
    assert stand(world, c) == (Phase.RUNNING, Claim.BOUND)


def test_a_container_that_the_engine_has_removed_is_looked_for_once_more_before_it_is_forgotten() -> None:
    world = World()
    c = world.with_parked()
    world.ask_remove(c)
    world.done(c)
    assert not world.gone(c)
    world.looks(c, EngineStatus.ABSENT, cgroup=CgroupStatus.OCCUPIED, ghost=True)
    assert isinstance(world.order(c), do.KillGhost)
    world.done(c)
    world.looks(c, EngineStatus.ABSENT)
    assert world.gone(c)
