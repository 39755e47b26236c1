"""What an engine answers, and what it does to what it was told. The real one has to, and every fake one."""

from collections.abc import Iterator

import pytest

from ds01d.adapters.hands import LAG_S
from ds01d.core.effects import StartContainer
from ds01d.core.events import Done, EngineAnswered, EngineHinted, EngineSilent, Relisted, Uncertain
from ds01d.model.facts import CgroupStatus, EngineStatus
from ds01d.model.ids import ContainerId, Key
from tests.contract.fake import FakeWorld
from tests.contract.made import Made, failed
from tests.contract.port import World
from tests.contract.real import RealWorld


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(None, id="fake"),
        pytest.param(("trixie", False), id="26.1", marks=pytest.mark.system),
        pytest.param(("engine28", True), id="28.5-live-restore", marks=pytest.mark.system),
    ],
)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    if request.param is None:
        yield FakeWorld()
        return
    image, live_restore = request.param
    with RealWorld(image, live_restore=live_restore) as world:
        yield world


# --- creating


def test_a_created_container_never_ran(world: World) -> None:
    made = Made(world)
    look = made.look()
    assert (look.status, look.cgroup, look.ghost) == (EngineStatus.CREATED, CgroupStatus.EMPTY, False)
    assert (look.started_at, look.finished_at, look.exit_code) == (0.0, 0.0, None)
    assert look.engine_id == made.engine_id == world.engine_id_of(made.name)


def test_the_same_create_again_is_the_same_container(world: World) -> None:
    made = Made(world)
    assert made.created(made.create()) == made.engine_id


def test_a_name_that_another_holds_is_refused_and_the_holder_named(world: World) -> None:
    other = Made(world, create=False)
    holder = world.raw_create(other.name)
    answer = failed(other.create())
    assert answer.kind == "name_taken"
    assert holder[:12] in answer.message


def test_our_own_label_with_another_id_is_another_container(world: World) -> None:
    made = Made(world)
    assert failed(made.create(container=ContainerId("l-other"))).kind == "name_taken"


def test_a_container_that_ran_is_not_taken_for_the_one_being_made(world: World) -> None:
    made = Made(world, start=True)
    made.kill()
    assert failed(made.create()).kind == "name_taken"


def test_an_unknown_image_is_refused_as_that(world: World) -> None:
    assert failed(Made(world, create=False).create(image="bbb:latest")).kind == "image_not_found"


# --- permission


def test_a_start_without_permission_is_refused_for_good_and_nothing_runs(world: World) -> None:
    made = Made(world)
    # By then the hands are older than the engine's view can be.
    world.wait(LAG_S)
    answer = failed(made.start())
    assert "unresolvable CDI device" in answer.message
    assert not answer.again
    assert made.look().status is EngineStatus.CREATED


def test_right_after_the_permission_a_refusal_says_try_again(world: World) -> None:
    made = Made(world, permit=True)
    made.start_until_it_runs()
    assert made.look().status is EngineStatus.RUNNING


def test_after_the_withdrawal_nobody_starts_it(world: World) -> None:
    made = Made(world, start=True)
    made.kill()
    made.withdraw()
    assert world.raw_start(made.engine_id)
    assert made.look().status is EngineStatus.STOPPED
    assert made.look().cgroup is CgroupStatus.EMPTY


def test_a_withdrawal_of_what_is_not_there_is_done(world: World) -> None:
    assert isinstance(Made(world).withdraw(), Done)


def test_a_stale_generation_is_stopped_by_the_guard_and_may_be_tried_again(world: World) -> None:
    made = Made(world, start=True)
    made.kill()
    made.permit("lineage.2")
    made.start_until_it_runs()
    made.kill()
    made.permit("lineage.3")
    world.forge_generation(made.key)
    answer = failed(made.start())
    assert "stale generation" in answer.message or "unresolvable" in answer.message
    assert answer.again


def test_a_borrowed_key_is_stopped_by_the_guard(world: World) -> None:
    made = Made(world, start=True)
    thief = world.raw_create(f"thief-{made.container}", made.key)
    assert "this device name belongs to another container" in world.raw_start(thief)


# --- running and ending


def test_a_start_of_one_that_runs_is_a_yes(world: World) -> None:
    made = Made(world, start=True)
    assert isinstance(made.start(), Done)


def test_a_running_container_shows_its_init_and_its_cgroup(world: World) -> None:
    made = Made(world, start=True)
    look = made.look()
    assert (look.status, look.cgroup, look.init_alive) == (EngineStatus.RUNNING, CgroupStatus.OCCUPIED, True)
    assert look.cgroup_path is not None
    assert made.engine_id in look.cgroup_path
    assert look.started_at > 0


def test_a_stop_ends_it_and_a_second_one_is_a_yes(world: World) -> None:
    made = Made(world, start=True)
    assert isinstance(made.stop(), Done)
    look = made.look()
    assert (look.status, look.cgroup, look.ghost) == (EngineStatus.STOPPED, CgroupStatus.EMPTY, False)
    assert look.finished_at >= look.started_at > 0
    assert look.exit_code == 0
    assert isinstance(made.stop(), Done)
    assert isinstance(made.kill(), Done)


def test_a_killed_container_shows_137(world: World) -> None:
    made = Made(world, start=True)
    assert isinstance(made.kill(), Done)
    assert made.look().exit_code == 137


def test_a_running_container_is_not_removed(world: World) -> None:
    made = Made(world, start=True)
    assert failed(made.remove()).kind == "engine"
    assert made.look().status is EngineStatus.RUNNING


def test_a_removed_container_is_absent_by_id_and_by_name_and_a_second_removal_a_yes(world: World) -> None:
    made = Made(world)
    assert isinstance(made.remove(), Done)
    assert (made.look().status, made.look().cgroup) == (EngineStatus.ABSENT, CgroupStatus.EMPTY)
    assert made.look(by_name=True).status is EngineStatus.ABSENT
    assert isinstance(made.remove(), Done)


def test_that_another_engine_does_not_have_it_is_no_removal(world: World) -> None:
    made = Made(world)
    made.remove()
    assert "another engine" in failed(made.remove(engine="NOT:THE:ONE")).message


def test_by_name_only_one_with_our_label_and_key_counts(world: World) -> None:
    made = Made(world)
    assert made.look(by_name=True).engine_id == made.engine_id
    made.key = Key("anothers")
    assert made.look(by_name=True).status is EngineStatus.ABSENT


def test_what_another_engine_says_proves_nothing(world: World) -> None:
    made = Made(world)
    assert made.look(engine="NOT:THE:ONE").status is EngineStatus.STRANGE


def test_orders_about_one_that_is_gone_fail_for_certain(world: World) -> None:
    made = Made(world)
    made.remove()
    for answer in (made.start(), made.stop(), made.kill()):
        assert "No such container" in failed(answer).message


def test_the_events_of_a_life_come_in_its_order(world: World) -> None:
    made = Made(world, start=True)
    made.stop()
    made.remove()
    world.wait(0.2)  # they come within a millisecond, over another connection
    hints = made.hints()
    assert [hint.action for hint in hints if hint.action != "stop"] == ["create", "start", "die", "destroy"]
    assert [hint.at for hint in hints] == sorted(hint.at for hint in hints)


# --- slow and broken engines


def test_an_overdue_start_is_uncertain_and_goes_on(world: World) -> None:
    made = Made(world, permit=True)
    world.hold_starts(made.key, 3)
    answer = made.start(timeout_s=1)
    assert isinstance(answer, Uncertain)
    assert not answer.returned
    made.wait_until_it_runs()


def test_a_look_into_a_start_that_hangs_concludes_nothing(world: World) -> None:
    made = Made(world, permit=True)
    world.hold_starts(made.key, 4)
    assert isinstance(made.start(timeout_s=0.5), Uncertain)
    assert made.look(timeout_s=1).status is EngineStatus.SILENT
    made.wait_until_it_runs()


def test_an_engine_that_dies_in_a_start_leaves_a_ghost_and_exactly_that_is_killed(world: World) -> None:
    made = Made(world, permit=True)
    world.hold_starts(made.key, 60)
    assert isinstance(made.start(timeout_s=2), Uncertain)
    assert world.processes_in(made.engine_id) > 0
    world.kill_engine()
    look_id = made.order_id()
    look = made.look(order=look_id)
    assert look.status is EngineStatus.CREATED
    assert look.ghost
    assert look.cgroup is CgroupStatus.OCCUPIED
    assert isinstance(made.kill_ghost(look_id), Done)
    look = made.look()
    assert (look.status, look.ghost) == (EngineStatus.CREATED, False)
    assert made.look().cgroup is CgroupStatus.EMPTY
    # What was let go of cannot be killed by the same look again.
    assert failed(made.kill_ghost(look_id)).again


def test_a_connection_that_breaks_in_a_start_is_uncertain_and_over(world: World) -> None:
    made = Made(world, permit=True)
    world.hold_starts(made.key, 60)
    start = StartContainer(container=made.container, order=made.order_id(), timeout_s=60, engine_id=made.engine_id)
    answer = world.perform_while(start, world.kill_engine)
    assert isinstance(answer, Uncertain)
    assert answer.returned
    assert "inotify" in answer.message


def test_a_restarted_engine_is_noticed_and_listed_anew(world: World) -> None:
    made = Made(world)
    world.kill_engine()
    world.wait(1)
    world.posted()
    world.kill_engine()
    world.wait(1)
    silent, answered, relisted = (event for event in world.posted() if not isinstance(event, EngineHinted))
    assert isinstance(silent, EngineSilent)
    assert isinstance(answered, EngineAnswered)
    assert answered.restarted
    assert isinstance(relisted, Relisted)
    assert made.engine_id in {listed.engine_id for listed in relisted.containers}
