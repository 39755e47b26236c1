"""Containers that carry our label and that no record accounts for: told once, shown until they go, never touched."""

import pytest
from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.views.machine import notices
from ds01d.model.container import Phase
from ds01d.model.facts import CgroupStatus, EngineStatus, Listed
from ds01d.model.ids import EngineId, Key, SlotId
from ds01d.model.permission import PermissionSeen
from tests.core.world import T0, Made, World, actor, unrecorded, whole

FOUND = unrecorded(EngineStatus.RUNNING)


def tell(world: World, *found: Listed) -> None:
    """A listing: what the records are about, and these."""
    ours = tuple(
        Listed(engine_id=c.engine_id, name=c.engine_name, status=EngineStatus.RUNNING, label_id=c.id, label_key=c.key)
        for c in world.state.containers
        if c.engine_id is not None
    )
    world.tell(ev.Relisted(revision=world.state.revision, containers=(*ours, *found), foreign=()))


def shown(world: World, user: str) -> list[str]:
    return [notice.text for notice in notices(world.state, actor(user), unsaved_since=None)]


def test_one_that_turns_up_later_is_told_once_and_shown_to_operators_until_it_goes() -> None:
    world = World()
    for _ in range(3):
        tell(world, FOUND)
    [alert] = world.alerts()
    assert alert.startswith("train._.1001 (e9) carries our label and has no record: it is running")
    assert alert.endswith("root removes it with `docker rm -f train._.1001`")
    assert any("train._.1001 (e9)" in text for text in shown(world, "olga"))
    assert not any("train._.1001 (e9)" in text for text in shown(world, "alice"))
    assert not world.orders

    tell(world)
    assert not any("train._.1001 (e9)" in text for text in shown(world, "olga"))


@pytest.mark.parametrize("cgroup", [CgroupStatus.OCCUPIED, CgroupStatus.EMPTY])
def test_one_that_an_engine_left_behind_in_a_start_is_told_too(cgroup: CgroupStatus) -> None:
    world = World()
    ghost = replace(FOUND, status=EngineStatus.CREATED, cgroup=cgroup, created_at=T0)
    for _ in range(2):
        tell(world, ghost)
    told = [alert for alert in world.alerts() if "it is created, and processes of its run on" in alert]
    assert len(told) == (1 if cgroup is CgroupStatus.OCCUPIED else 0)


def test_one_that_was_there_at_start_up_is_told_at_once_and_not_again() -> None:
    world = World()
    world.restart(listed=(replace(FOUND, status=EngineStatus.STOPPED),))
    tell(world, replace(FOUND, status=EngineStatus.STOPPED))
    assert len([text for text in world.alerts() if "has no record: it is stopped" in text]) == 1
    assert any("has no record" in text for text in shown(world, "olga"))


def test_a_listing_that_is_older_than_the_end_of_a_record_tells_of_nothing() -> None:
    world = World()
    for found in ((FOUND,), (), (FOUND,)):
        tell(world, *found)
    assert not world.alerts()
    assert not any("has no record" in text for text in shown(world, "olga"))


def test_another_container_with_the_labels_of_one_of_ours_is_told_and_the_record_stays_as_it_is() -> None:
    world = World()
    c = world.with_running()
    double = replace(FOUND, name="again", status=EngineStatus.CREATED, label_id=c.id, label_key=c.key)
    for _ in range(2):
        tell(world, double)
    [alert] = world.alerts()
    assert alert.startswith("again (e9) carries the labels of c of alice and is another container: it is created")
    assert alert.endswith("root removes it with `docker rm again`")
    assert world.fresh(c) == c


def test_one_that_has_only_the_id_of_one_of_ours_is_told_as_that() -> None:
    world = World()
    c = world.with_running()
    for _ in range(2):
        tell(world, replace(FOUND, name="again", label_id=c.id, label_key=None))
    [alert] = world.alerts()
    assert alert.startswith("again (e9) carries the id of c of alice and is another container: it is running")
    assert "no record" not in alert


@pytest.mark.parametrize("action", ["die", "destroy"])
def test_the_end_of_one_that_is_told_of_is_looked_for_at_once(action: str) -> None:
    world = World()
    hinted = ev.EngineHinted(engine_id=FOUND.engine_id, action=action, at=T0)
    world.tell(hinted)
    assert not list(world.heard(do.Relist))
    for _ in range(2):
        tell(world, FOUND)
    world.tell(hinted)
    assert len(list(world.heard(do.Relist))) == 1


def test_one_that_was_found_running_is_not_stopped_when_its_last_shell_is_left() -> None:
    world = World()
    e9 = EngineId("e9")
    left = PermissionSeen(
        key=Key("k9"), has_grant=True, has_spec=True, container_id=e9, generation="M.3", slots=(SlotId("GPU-1"),)
    )
    world.engine[e9] = Made(engine_id=e9, status=EngineStatus.RUNNING, started_at=T0)
    world.restart(permissions=(left,))
    world.oblige()
    stray = next(iter(world.state.containers))
    assert (stray.stray, stray.phase) == (True, Phase.RUNNING)
    world.wait(2)
    world.oblige()
    world.tell(ev.ShellsLeft(engine_id=e9))
    assert world.fresh(stray).phase is Phase.RUNNING
    world.oblige()
    assert not any(isinstance(o, do.StopContainer) for o in world.given)


def test_one_that_ran_before_it_could_be_removed_is_left_alone() -> None:
    world = World()
    tell(world, replace(FOUND, status=EngineStatus.CREATED))
    stray = next(iter(world.state.containers))
    assert isinstance(world.order(stray), do.RemoveContainer)
    world.given.clear()
    world.engine[FOUND.engine_id] = Made(engine_id=FOUND.engine_id, status=EngineStatus.STOPPED, started_at=T0)
    world.failed(stray, "the container is running")
    world.wait(3)
    world.oblige()
    assert not any(isinstance(o, do.RemoveContainer) for o in world.given)
    assert world.gone(stray)


def test_one_that_stands_for_a_permission_only_is_not_started() -> None:
    world = World(whole(0), whole(1), whole(2))
    e9 = EngineId("e9")
    left = PermissionSeen(
        key=Key("k9"), has_grant=True, has_spec=True, container_id=e9, generation="M.3", slots=(SlotId("GPU-1"),)
    )
    world.engine[e9] = Made(engine_id=e9, status=EngineStatus.STOPPED, started_at=T0)
    world.blind = True
    world.restart(permissions=(left,))
    world.oblige(until=lambda w: not w.orders)
    stray = next(iter(world.state.containers))
    refused = world.ask_start(stray, "olga").refused
    assert refused is not None
    assert "cannot start" in refused.message
    assert world.allocation(stray) is None
