"""Start-up: every cell of ledger and reality (lifecycle.md §3)."""

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.snapshot import dump, load
from ds01d.model.allocation import Claim
from ds01d.model.container import Container, ContainerSpec, Permission, Phase
from ds01d.model.facts import CgroupStatus, EngineStatus, ForeignContainer
from ds01d.model.ids import EngineId, Key, SlotId
from ds01d.model.operation import OperationState
from ds01d.model.permission import PermissionSeen
from ds01d.model.policy import ContainersPolicy, Policy
from tests.core.world import ENGINE, FREE_HAND, T0, Made, World, unrecorded, whole

GONE = None
PARKED = (Phase.STOPPED, None)
HELD = (Phase.STOPPED, Claim.HELD)
RUNNING = (Phase.RUNNING, Claim.BOUND)

Stand = tuple[Phase, Claim | None] | None


# ---- ledger: how the record was when the daemon died


def creating(world: World) -> Container:
    world.ask_create()
    return world.named("alice")


def held(world: World) -> Container:
    return world.with_stopped()


def parked(world: World) -> Container:
    return world.with_parked()


def starting(world: World) -> Container:
    c = world.with_stopped()
    world.ask_start(c)
    assert isinstance(world.order(c), do.StartContainer)
    return world.fresh(c)


def running(world: World) -> Container:
    return world.with_running()


def stopping(world: World) -> Container:
    c = world.with_running()
    world.ask_stop(c)
    assert isinstance(world.order(c), do.StopContainer)
    return world.fresh(c)


def releasing(world: World) -> Container:
    c = world.with_stopped()
    world.ask_stop(c, release=True)
    assert isinstance(world.order(c), do.Withdraw)
    return world.fresh(c)


def removing(world: World) -> Container:
    c = world.with_parked()
    world.ask_remove(c)
    assert isinstance(world.order(c), do.RemoveContainer)
    return world.fresh(c)


# ---- reality: what there is when the next one starts


def absent(world: World, c: Container) -> None:
    world.engine.pop(_engine_id(c), None)


def created(world: World, c: Container) -> None:
    world.engine[_engine_id(c)] = Made(engine_id=_engine_id(c))


def stopped(world: World, c: Container) -> None:
    made = world.engine.setdefault(_engine_id(c), Made(engine_id=_engine_id(c)))
    made.status, made.started_at, made.finished_at = EngineStatus.STOPPED, c.started_at, c.finished_at


def ran_meanwhile(world: World, c: Container) -> None:
    made = world.engine[_engine_id(c)]
    made.status, made.started_at, made.finished_at = EngineStatus.STOPPED, world.now + 1, world.now + 2


def runs(world: World, c: Container) -> None:
    made = world.engine.setdefault(_engine_id(c), Made(engine_id=_engine_id(c)))
    made.status, made.started_at = EngineStatus.RUNNING, c.started_at or T0 + 1
    if c.phase is Phase.STOPPED:
        made.started_at = world.now


def ghost(world: World, c: Container) -> None:
    stopped(world, c)
    world.ghosts.add(_engine_id(c))


def silence(world: World, c: Container) -> None:
    assert c.id
    world.silent = True


def not_ours(world: World, c: Container) -> None:
    world.taken.add(c.engine_name)


def _engine_id(c: Container) -> EngineId:
    return c.engine_id or EngineId(f"{c.id}-engine")


CELLS: list[tuple[Callable[..., Container], Callable[..., None], Stand, tuple[type, ...]]] = [
    (creating, absent, HELD, (do.CreateContainer, do.Permit)),
    (creating, created, HELD, (do.CreateContainer, do.Permit)),
    (creating, not_ours, GONE, (do.CreateContainer, do.LookAt)),
    (held, absent, GONE, (do.LookAt, do.Withdraw, do.LookAt)),
    (held, created, HELD, (do.LookAt,)),
    (held, stopped, HELD, (do.LookAt,)),
    (held, runs, RUNNING, (do.LookAt,)),
    (held, ghost, HELD, (do.LookAt, do.KillGhost, do.LookAt)),
    (held, silence, HELD, (do.LookAt,)),
    (parked, absent, GONE, (do.LookAt,)),
    (parked, created, PARKED, (do.LookAt,)),
    (parked, stopped, PARKED, (do.LookAt,)),
    (parked, runs, (Phase.RUNNING, None), (do.LookAt,)),
    (parked, ghost, PARKED, (do.LookAt, do.KillGhost, do.LookAt)),
    (parked, silence, PARKED, (do.LookAt,)),
    (starting, absent, GONE, (do.LookAt, do.Withdraw, do.LookAt)),
    (starting, created, RUNNING, (do.LookAt, do.StartContainer, do.LookAt)),
    (starting, stopped, RUNNING, (do.LookAt, do.StartContainer, do.LookAt)),
    (starting, ran_meanwhile, HELD, (do.LookAt,)),
    (starting, runs, RUNNING, (do.LookAt,)),
    (starting, ghost, RUNNING, (do.LookAt, do.KillGhost, do.LookAt, do.StartContainer, do.LookAt)),
    (starting, silence, (Phase.STARTING, Claim.BOUND), (do.LookAt,)),
    (running, absent, GONE, (do.LookAt, do.Withdraw, do.LookAt)),
    (running, created, HELD, (do.LookAt,)),
    (running, stopped, HELD, (do.LookAt,)),
    (running, runs, RUNNING, (do.LookAt,)),
    (running, ghost, HELD, (do.LookAt, do.KillGhost, do.LookAt)),
    (running, silence, RUNNING, (do.LookAt,)),
    (stopping, absent, GONE, (do.LookAt, do.Withdraw, do.LookAt)),
    (stopping, created, HELD, (do.LookAt,)),
    (stopping, stopped, HELD, (do.LookAt,)),
    (stopping, runs, HELD, (do.LookAt, do.StopContainer, do.LookAt)),
    (stopping, ghost, HELD, (do.LookAt, do.KillGhost, do.LookAt)),
    (stopping, silence, (Phase.STOPPING, Claim.BOUND), (do.LookAt,)),
    (releasing, absent, GONE, (do.Withdraw, do.LookAt)),
    (releasing, created, PARKED, (do.Withdraw, do.LookAt)),
    (releasing, stopped, PARKED, (do.Withdraw, do.LookAt)),
    (releasing, runs, RUNNING, (do.Withdraw, do.LookAt, do.Permit)),
    (releasing, ghost, PARKED, (do.Withdraw, do.LookAt, do.KillGhost, do.LookAt)),
    (releasing, silence, (Phase.STOPPED, Claim.RELEASING), (do.Withdraw, do.LookAt)),
    (removing, absent, GONE, (do.LookAt,)),
    (removing, created, GONE, (do.LookAt, do.RemoveContainer, do.LookAt)),
    (removing, stopped, GONE, (do.LookAt, do.RemoveContainer, do.LookAt)),
    (removing, runs, GONE, (do.LookAt, do.StopContainer, do.LookAt, do.RemoveContainer, do.LookAt)),
    (removing, ghost, GONE, (do.LookAt, do.KillGhost, do.LookAt, do.RemoveContainer, do.LookAt)),
    (removing, silence, (Phase.REMOVING, None), (do.LookAt,)),
]


@pytest.mark.parametrize(
    ("ledger", "reality", "expected", "orders"), CELLS, ids=[f"{row[0].__name__}-{row[1].__name__}" for row in CELLS]
)
def test_a_restart_finds(
    ledger: Callable[[World], Container],
    reality: Callable[[World, Container], None],
    expected: Stand,
    orders: tuple[type, ...],
) -> None:
    world = World()
    c = ledger(world)
    reality(world, c)
    world.restart()
    world.oblige()
    world.oblige()
    assert stand(world, c) == expected
    assert tuple(type(o) for o in world.given) == orders
    if reality is ghost:
        assert any("while the engine says" in words for words in world.alerts())


def stand(world: World, c: Container) -> Stand:
    now = world.state.containers.get(c.id)
    if now is None:
        return GONE
    a = world.allocation(c)
    return now.phase, a.claim if a is not None else None


@pytest.mark.parametrize("ledger", [held, starting, running, stopping, releasing, removing])
def test_a_restart_leaves_no_operation_without_an_end(ledger: Callable[[World], Container]) -> None:
    world = World()
    ledger(world)
    world.restart()
    world.oblige()
    assert all(o.state is not OperationState.PENDING for o in world.state.operations)


def test_a_hold_that_ran_out_while_nobody_was_there_ends_now() -> None:
    world = World()
    c = held(world)
    world.now += 3601
    world.restart()
    world.oblige()
    world.wait(0.1)
    world.oblige()
    assert stand(world, c) == PARKED


def test_a_container_that_ran_without_an_allocation_is_reported_once() -> None:
    world = World()
    c = parked(world)
    runs(world, c)
    world.restart()
    world.oblige()
    assert [w for w in world.alerts() if "without an allocation" in w] != []
    assert world.fresh(c).violation is not None
    world.notes.clear()
    world.restart()
    world.oblige()
    assert world.fresh(c).violation is not None


def test_what_ran_before_a_reboot_runs_again_with_its_slots() -> None:
    world = World()
    c = running(world)
    slots = world.slots(c)
    stopped(world, c)
    world.disk.clear()
    world.restart(boot_id="boot-2")
    world.oblige()
    assert stand(world, c) == RUNNING
    assert world.slots(c) == slots
    assert [type(o) for o in world.given] == [do.LookAt, do.Permit, do.StartContainer, do.LookAt]


def test_what_ran_before_a_reboot_stays_stopped_where_the_policy_says_so() -> None:
    world = World(policy=Policy(groups={"student": FREE_HAND}, containers=ContainersPolicy(restart_after_boot=False)))
    c = running(world)
    stopped(world, c)
    world.restart(boot_id="boot-2")
    world.oblige()
    assert stand(world, c) == HELD


def test_what_was_stopped_before_a_reboot_is_not_started() -> None:
    world = World()
    c = held(world)
    world.disk.clear()
    world.restart(boot_id="boot-2")
    world.oblige()
    assert stand(world, c) == HELD
    assert world.disk[c.key].slots == world.slots(c)


def test_a_permission_that_is_whole_is_not_written_again() -> None:
    world = World()
    c = running(world)
    world.restart()
    world.oblige()
    assert world.fresh(c).permission is Permission.PRESENT
    assert not any(isinstance(o, do.Permit) for o in world.given)


@pytest.mark.parametrize("damage", ["no grant", "no spec", "another generation", "cannot be read"])
def test_a_permission_that_is_not_whole_is_made_whole(damage: str) -> None:
    world = World()
    c = running(world)
    whole = world.permissions()[0]
    damages: dict[str, dict[str, object]] = {
        "no grant": {"has_grant": False},
        "no spec": {"has_spec": False},
        "another generation": {"generation": "L.1"},
        "cannot be read": {"trouble": "it is torn"},
    }
    world.restart(permissions=(replace(whole, **damages[damage]),))
    world.oblige()
    assert any(isinstance(o, do.Permit) for o in world.given)
    assert world.fresh(c).permission is Permission.PRESENT


def test_under_a_new_lineage_every_permission_is_written_anew_with_a_generation_that_never_was() -> None:
    world = World()
    c = running(world)
    world.restart(lineage="M")
    world.oblige()
    assert world.fresh(c).generation.startswith("M.")
    assert world.disk[c.key].generation == world.fresh(c).generation


# ---- no record


def seen(**fields: object) -> PermissionSeen:
    found = PermissionSeen(
        key=Key("k9"),
        has_grant=True,
        has_spec=True,
        container_id=EngineId("e9"),
        generation="L.9",
        slots=(SlotId("GPU-0"),),
    )
    return replace(found, **fields)


def test_a_container_of_ours_without_a_record_that_never_ran_is_removed_after_ten_minutes() -> None:
    world = World()
    world.engine[EngineId("e9")] = Made(engine_id=EngineId("e9"))
    world.restart(listed=(unrecorded(EngineStatus.CREATED),))
    world.oblige()
    assert EngineId("e9") not in world.engine
    assert not world.state.containers.rows


def test_a_young_container_of_ours_without_a_record_is_left_alone() -> None:
    world = World()
    world.restart(listed=(unrecorded(EngineStatus.CREATED, created_at=T0 - 10),))
    assert not world.orders


def test_a_stopped_container_of_ours_without_a_record_is_reported_and_never_removed() -> None:
    world = World()
    world.restart(listed=(unrecorded(EngineStatus.STOPPED),))
    assert not world.orders
    assert any("has no record: it is stopped" in words for words in world.alerts())


def test_a_running_container_whose_label_permission_and_slots_agree_is_adopted() -> None:
    world = World()
    world.engine[EngineId("e9")] = Made(engine_id=EngineId("e9"), status=EngineStatus.RUNNING, started_at=T0)
    world.restart(listed=(unrecorded(EngineStatus.RUNNING),), permissions=(seen(),))
    world.oblige()
    c = world.named("alice", "train")
    assert stand(world, c) == RUNNING
    assert world.slots(c) == (SlotId("GPU-0"),)
    assert world.disk[Key("k9")].slots == (SlotId("GPU-0"),)


@pytest.mark.parametrize(
    ("of_listing", "of_permission"),
    [
        ({"label_id": "X-9"}, {}),
        ({"label_key": "k8"}, {}),
        ({}, {"container_id": "e8"}),
        ({}, {"slots": ("GPU-7",)}),
        ({}, {"has_spec": False}),
        ({}, {"trouble": "grant and spec disagree"}),
        ({"label_uid": None}, {}),
    ],
)
def test_a_running_container_with_which_something_disagrees_is_not_adopted(
    of_listing: dict[str, object], of_permission: dict[str, object]
) -> None:
    world = World()
    world.engine[EngineId("e9")] = Made(engine_id=EngineId("e9"), status=EngineStatus.RUNNING, started_at=T0)
    world.restart(listed=(unrecorded(EngineStatus.RUNNING, **of_listing),), permissions=(seen(**of_permission),))
    world.oblige()
    assert not world.state.allocations.rows
    assert all(c.stray for c in world.state.containers)
    assert world.alerts()
    assert not any(isinstance(o, do.StopContainer | do.KillContainer | do.KillGhost) for o in world.given)


def test_a_permission_without_a_record_blocks_its_slots_until_it_is_proved_unused() -> None:
    world = World()
    world.restart(permissions=(seen(slots=("GPU-0", "GPU-1")),))
    assert world.ask_create("bob").refused is not None
    world.oblige()
    assert [type(o) for o in world.given] == [do.Withdraw, do.LookAt]
    assert world.ask_create("bob").refused is None


def test_a_stray_permission_of_a_running_container_blocks_its_slots_until_that_has_ended() -> None:
    world = World()
    e9 = EngineId("e9")
    world.engine[e9] = Made(engine_id=e9, status=EngineStatus.RUNNING, started_at=T0)
    world.restart(permissions=(seen(slots=("GPU-0", "GPU-1")),))
    world.oblige()
    assert world.ask_create("bob").refused is not None
    world.ends(e9)
    world.wait(31)
    world.oblige()
    world.see()
    assert world.ask_create("bob").refused is None


def test_a_permission_that_names_other_slots_than_its_record_blocks_those() -> None:
    world = World()
    c = held(world)
    other = next(s for s in ("GPU-0", "GPU-1") if s not in world.slots(c))
    wrong = replace(world.permissions()[0], slots=(SlotId(other),))
    world.restart(permissions=(wrong,))
    assert world.ask_create("bob").refused is not None
    world.oblige()
    assert world.disk[c.key].slots == world.slots(c)
    assert world.ask_create("bob").refused is None


def test_a_container_that_ran_by_a_permission_which_an_older_ledger_forgot_keeps_its_slots() -> None:
    world = World()
    c = parked(world)
    runs(world, c)
    permission = seen(key=c.key, container_id=c.engine_id)
    world.restart(permissions=(permission,), listed=(unrecorded(EngineStatus.RUNNING, engine_id=c.engine_id),))
    world.oblige()
    assert stand(world, c) == RUNNING
    assert world.slots(c) == (SlotId("GPU-0"),)
    assert any("forgotten" in words for words in world.alerts())


def test_a_container_found_without_a_record_stays_so_when_a_later_start_up_finds_it_running_and_all_agrees() -> None:
    world = World()
    e9 = EngineId("e9")
    world.engine[e9] = Made(engine_id=e9, status=EngineStatus.RUNNING, started_at=T0)
    world.restart(listed=(unrecorded(EngineStatus.RUNNING),), permissions=(seen(trouble="grant and spec disagree"),))
    world.restart(listed=(unrecorded(EngineStatus.RUNNING),), permissions=(seen(),))
    world.oblige()
    assert [c.stray for c in world.state.containers] == [True]
    assert not world.state.allocations.rows
    assert world.state.containers.count("blocks", SlotId("GPU-0"))


@pytest.mark.parametrize(("reality", "expected"), [(stopped, HELD), (runs, RUNNING)])
def test_a_container_that_ran_since_an_older_state_was_saved_in_its_creation_is_taken_for_what_it_is(
    reality: Callable[[World, Container], None], expected: Stand
) -> None:
    world = World()
    c = creating(world)
    older = dump(world.state)
    world.oblige()
    reality(world, world.fresh(c))
    world.state = load(older, lineage="M", written_by="L", boot_id="boot-1", policy=world.state.policy)
    world.orders.clear()
    world.given.clear()
    world.recall()
    world.oblige()
    assert stand(world, c) == expected
    assert not any(isinstance(o, do.RemoveContainer | do.StopContainer) for o in world.given)


def test_a_parked_container_that_an_older_state_has_in_its_creation_is_never_removed() -> None:
    world = World()
    c = creating(world)
    older = dump(world.state)
    world.oblige()
    world.ask_start(c)
    world.oblige()
    world.ask_stop(c, release=True)
    world.oblige()
    world.state = load(older, lineage="M", written_by="L", boot_id="boot-1", policy=world.state.policy)
    world.orders.clear()
    world.given.clear()
    world.recall()
    world.failed(c, "the name belongs to a container that ran", kind="name_taken")
    world.looks(c, EngineStatus.STOPPED, engine_id=_engine_id(c))
    world.oblige()
    assert stand(world, c) == PARKED
    assert not any(isinstance(o, do.RemoveContainer) for o in world.given)


def test_a_release_of_a_restored_state_is_proved_of_the_container_that_the_permission_names() -> None:
    world = World()
    c = releasing(world)
    newer = seen(key=c.key, container_id=EngineId("e2"), generation="M.9", slots=world.slots(c))
    world.engine[EngineId("e2")] = Made(engine_id=EngineId("e2"), status=EngineStatus.RUNNING, started_at=T0)
    world.engine.pop(_engine_id(c))
    world.restart(lineage="N", permissions=(newer,))
    world.oblige()
    assert stand(world, c) == RUNNING
    assert world.fresh(c).engine_id == "e2"


def test_a_stranger_that_carries_our_key_is_reported_and_its_slots_count_as_used() -> None:
    world = World()
    c = held(world)
    stranger = ForeignContainer(
        engine_id=EngineId("f1"),
        name="borrower",
        origin="raw-docker",
        user="bob",
        status=EngineStatus.RUNNING,
        cgroup=CgroupStatus.OCCUPIED,
        gpus=(f"ds01/gpu={c.key}",),
    )
    world.restart(foreign=(stranger,))
    assert any("borrower" in words for words in world.alerts())
    assert set(world.state.sight.foreign_slots) == set(world.slots(c))


def test_a_container_without_a_gpu_gets_its_permission_back() -> None:
    world = World()
    c = world.with_running(spec=ContainerSpec(image="i", gpus=None))
    world.disk.clear()
    world.restart()
    world.oblige()
    assert world.disk[c.key].slots == ()


def test_nothing_is_started_on_a_slot_that_a_restored_older_state_gives_while_a_newer_container_runs_on_it() -> None:
    world = World(whole(0))
    hers = world.with_stopped("alice")
    older = dump(world.state)
    world.ask_stop(hers, release=True)
    world.oblige()
    world.see()
    his = world.with_running("bob")
    world.state = load(older, lineage="M", written_by="L", boot_id="boot-1", policy=world.state.policy)
    world.orders.clear()
    world.recall()
    world.see()
    world.oblige()
    world.wait(60)
    world.oblige()
    assert hers.key not in world.disk
    refused = world.ask_start(hers).refused
    assert refused is not None
    assert "in use by a container that the ledger does not know" in refused.message
    world.ends(his.engine_id)
    world.wait(31)
    world.oblige()
    world.wait(3)
    world.oblige()
    assert hers.key in world.disk
    assert world.ask_start(hers).refused is None


def test_nothing_is_ordered_before_the_ledger_was_held_against_reality() -> None:
    world = World()
    alice, bob = world.with_created(), world.with_stopped("bob", "b")
    world.ask_stop(bob, release=True)
    world.answer(world.order(bob))
    world.ask_start(alice)
    before = world.state
    world.state = load(
        dump(before), lineage="L", written_by="L", boot_id="boot-1", revision=before.revision, policy=before.policy
    )
    world.orders.clear()
    world.given.clear()
    world.tell(ev.EngineAnswered(engine=ENGINE, restarted=False))
    world.see(whole(0, minor=1), whole(1, minor=0))
    world.wait(3600)
    assert not world.given
    world.recall()
    assert {type(order) for order in world.orders.values()} == {do.Withdraw}
