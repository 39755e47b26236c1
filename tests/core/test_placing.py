"""Which slots a request gets (product.md §4)."""

import itertools

import pytest
from msgspec.structs import replace

from ds01d.model.container import ContainerSpec
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import Uid
from ds01d.model.policy import GpuPolicy, Policy, Strategy
from tests.core.world import FREE_HAND, UIDS, World, cut, piece, process, whole

PACK = Policy(groups={"student": FREE_HAND}, gpu_allocation=GpuPolicy(strategy=Strategy.PACK))


def given(world: World, user: str = "alice", name: str = "c", **wish: object) -> tuple[str, ...]:
    spec = ContainerSpec(image="i", gpus=replace(GpuRequest(), **wish))
    return tuple(sorted(world.slots(world.with_created(user, name, spec=spec))))


def cards() -> tuple[World, World]:
    two = (cut(0, piece(0), piece(2), piece(4)), cut(1, piece(0), piece(2), piece(4)))
    return World(*two), World(*two, policy=PACK)


def test_least_allocated_goes_where_fewest_are() -> None:
    world, _ = cards()
    assert given(world, "alice") == ("GPU-0/2g.20gb@0",)
    assert given(world, "bob") == ("GPU-1/2g.20gb@0",)
    assert given(world, "carol") == ("GPU-0/2g.20gb@2",)


def test_pack_fills_one_card_first() -> None:
    _, world = cards()
    assert given(world, "alice") == ("GPU-0/2g.20gb@0",)
    assert given(world, "bob") == ("GPU-0/2g.20gb@2",)
    assert given(world, "carol") == ("GPU-0/2g.20gb@4",)
    assert given(world, "dora") == ("GPU-1/2g.20gb@0",)


def test_slices_go_before_whole_cards() -> None:
    world = World(whole(0), cut(1, piece(0)))
    assert given(world, "alice") == ("GPU-1/2g.20gb@0",)
    assert given(world, "bob") == ("GPU-0",)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("any", ("GPU-1/2g.20gb@0",)),
        ("full", ("GPU-0",)),
        ("mig", ("GPU-1/2g.20gb@0",)),
        ("2g.20gb", ("GPU-1/2g.20gb@0",)),
        ("3g.40gb", ("GPU-1/3g.40gb@4",)),
    ],
)
def test_a_kind_is_what_is_given(kind: str, expected: tuple[str, ...]) -> None:
    world = World(whole(0), cut(1, piece(0), piece(4, "3g.40gb", 3, 40_000)))
    assert given(world, kind=kind) == expected


def test_a_least_memory_is_met() -> None:
    world = World(cut(0, piece(0), piece(4, "3g.40gb", 3, 40_000)))
    assert given(world, memory_mib=30_000) == ("GPU-0/3g.40gb@4",)


def test_several_slots_lie_on_one_card_where_they_can() -> None:
    world = World(cut(0, piece(0)), cut(1, piece(0), piece(2)), cut(2, piece(0)))
    assert given(world, count=2) == ("GPU-1/2g.20gb@0", "GPU-1/2g.20gb@2")


def test_several_cards_are_those_with_nvlink_between_them() -> None:
    world = World(whole(0), whole(1, nvlink=(3,)), whole(2), whole(3, nvlink=(1,)))
    assert given(world, count=2) == ("GPU-1", "GPU-3")


def test_several_are_all_or_none() -> None:
    world = World(whole(0), whole(1))
    given(world, "bob")
    outcome = world.ask_create("alice", spec=ContainerSpec(image="i", gpus=GpuRequest(count=2)))
    assert outcome.refused is not None
    assert len(world.state.allocations) == 1


def test_a_user_of_high_priority_keeps_clear_of_others_of_high_priority() -> None:
    groups = {"student": FREE_HAND, "staff": replace(FREE_HAND, priority=90)}
    policy = Policy(groups=groups, group_of={Uid(UIDS["bob"]): "staff"})
    world = World(cut(0, piece(0), piece(2)), cut(1, piece(0), piece(2)), policy=policy)
    given(world, "bob")
    given(world, "carol")
    assert given(world, "alice") == ("GPU-1/2g.20gb@2",)


def test_a_slot_that_somebody_uses_is_passed_over() -> None:
    world = World(whole(0), whole(1))
    world.see(processes=(process(0),))
    assert given(world) == ("GPU-1",)


def test_a_process_on_one_slice_leaves_the_others_of_its_card_free() -> None:
    world = World(cut(0, piece(0), piece(2)))
    world.see(processes=(process(0, gi=1),))
    assert given(world) == ("GPU-0/2g.20gb@2",)


def test_a_drained_slot_is_passed_over() -> None:
    world = World(whole(0), whole(1))
    slot = world.state.slots.rows["GPU-0"]  # type: ignore[index]  # a slot's id
    world.state.slots.store(slot.id, replace(slot, drained="maintenance"))
    assert given(world) == ("GPU-1",)


def test_mig_slices_are_not_given_where_the_policy_leaves_them_out() -> None:
    policy = Policy(groups={"student": FREE_HAND}, gpu_allocation=GpuPolicy(enable_mig=False))
    assert given(World(cut(0, piece(0)), whole(1), policy=policy)) == ("GPU-1",)


def test_the_same_state_gives_the_same_slots_always() -> None:
    seen = set()
    for _ in range(3):
        world = World(*(cut(n, *(piece(s) for s in (0, 2, 4))) for n in range(3)))
        seen.add(tuple(given(world, user) for user in ("alice", "bob", "carol")))
    assert len(seen) == 1


def test_whatever_is_asked_for_no_slot_is_given_twice_and_every_free_one_is_found() -> None:
    world = World(cut(0, piece(0), piece(2)), whole(1), cut(2, piece(4)))
    names = (f"c{n}" for n in itertools.count())
    found: list[str] = []
    for user in ("alice", "bob", "carol", "dora"):
        found += given(world, user, next(names))
    assert sorted(found) == sorted(world.state.slots.rows)
    assert world.ask_create("alice", "more").refused is not None
