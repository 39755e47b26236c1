"""Who gets slots, in which order it is asked, and in which words a refusal is told (product.md §4)."""

import pytest
from msgspec.structs import replace

from ds01d.core.core import Outcome
from ds01d.model.container import ContainerSpec
from ds01d.model.errors import Refused
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import Uid
from ds01d.model.policy import Limits, Policy
from tests.core.world import FREE_HAND, UIDS, World, actor, cut, owner, piece, process, whole


def asked(world: World, user: str = "alice", **wish: object) -> Refused | None:
    request = replace(GpuRequest(), **wish)
    return world.ask_create(user, spec=ContainerSpec(image="i", gpus=request)).refused


def limited(**fields: object) -> Policy:
    return Policy(groups={"student": replace(FREE_HAND, **fields)})


def told(outcome: Refused | None) -> tuple[str, str]:
    assert outcome is not None
    return outcome.kind, outcome.message


def test_what_is_free_is_given() -> None:
    assert asked(World()) is None


def test_nobody_acts_for_somebody_else_but_an_operator() -> None:
    world = World()
    refused = world.ask_create("alice", owner=owner("bob")).refused
    assert told(refused) == ("denied", "cannot act for bob: you are alice")
    assert world.ask_create("alice", actor=actor("olga")).refused is None


def test_a_user_whose_group_is_not_clear_gets_nothing() -> None:
    world = World(policy=Policy(ambiguous={Uid(UIDS["alice"]): "alice is in staff and in students"}))
    kind, words = told(asked(world))
    assert kind == "denied"
    assert "alice is in staff and in students" in words


@pytest.mark.parametrize("kind", ["gpu", "2g", "2g.20", "0g.20gb", ""])
def test_a_kind_that_cannot_be_meant_is_invalid(kind: str) -> None:
    assert told(asked(World(), kind=kind))[0] == "invalid"


@pytest.mark.parametrize("count", [0, -1])
def test_fewer_than_one_gpu_is_invalid(count: int) -> None:
    assert told(asked(World(), count=count))[0] == "invalid"


def test_more_in_one_container_than_allowed_is_refused_with_both_figures() -> None:
    refused = asked(World(policy=limited(max_gpus_per_container=1)), count=2)
    assert told(refused) == ("container_limit", "cannot give 2 GPUs to one container: alice may have 1 in one")
    assert refused is not None
    assert refused.note == "(2/1)"


def test_more_than_the_users_quota_is_refused_with_what_he_holds() -> None:
    world = World(policy=limited(max_mig_instances=1))
    world.with_created("alice", "one")
    refused = world.ask_create("alice", "two").refused
    assert told(refused) == ("quota_exceeded", "cannot give 1 more GPU: alice holds 1 of 1")
    assert world.ask_create("bob").refused is None


def test_slots_that_are_being_released_still_count_for_their_user() -> None:
    world = World(policy=limited(max_mig_instances=1))
    c = world.with_stopped("alice", "one")
    world.ask_stop(c, release=True)
    assert told(world.ask_create("alice", "two").refused)[0] == "quota_exceeded"


def test_gpu_equivalents_are_weighed() -> None:
    cards = (cut(0, piece(0), piece(2), piece(4)), whole(1))
    world = World(*cards, policy=limited(max_gpu_equivalents=0.5))
    assert asked(world, kind="2g.20gb") is None
    kind, words = told(world.ask_create("alice", "d").refused)
    assert kind == "quota_exceeded"
    assert "0.29 of 0.5" in words


def test_a_wish_that_a_limit_of_equivalents_excludes_takes_the_lighter_slot() -> None:
    world = World(whole(0), cut(1, piece(0)), policy=limited(max_gpu_equivalents=0.5))
    c = world.with_created("alice")
    assert world.slots(c) == ("GPU-1/2g.20gb@0",)


def test_a_whole_gpu_is_not_for_those_who_may_hold_slices_only() -> None:
    policy = limited(allow_full_gpu=False)
    assert told(asked(World(policy=policy)))[0] == "full_gpu_not_allowed"
    assert told(asked(World(whole(0), cut(1, piece(0)), policy=policy), kind="full"))[0] == "full_gpu_not_allowed"
    assert asked(World(whole(0), cut(1, piece(0)), policy=policy)) is None


def test_what_the_machine_does_not_have_is_said_whoever_holds_it() -> None:
    world = World(whole(0))
    assert told(asked(world, count=2)) == ("no_such_slots", "cannot give 2 GPUs: this machine has 1 such")
    assert told(asked(world, memory_mib=200_000))[0] == "no_such_slots"
    assert told(asked(world, kind="2g.20gb"))[0] == "no_such_slots"


def test_what_all_is_taken_is_told_with_who_holds_it_and_until_when() -> None:
    world = World(whole(0), whole(1))
    world.with_running("bob", "b")
    world.with_stopped("carol", "c")
    refused = asked(world)
    kind, words = told(refused)
    assert kind == "none_free"
    assert "in use by bob" in words
    assert "held by carol for 60 min more" in words
    assert refused is not None
    assert refused.exit_code == 75


def test_the_user_is_told_of_his_own_limit_before_of_a_full_machine() -> None:
    world = World(whole(0), policy=limited(max_mig_instances=1))
    world.with_created("alice", "one")
    assert told(world.ask_create("alice", "two").refused)[0] == "quota_exceeded"


def test_what_cannot_be_seen_is_not_given() -> None:
    world = World()
    world.now += 11
    assert told(asked(world))[0] == "cannot_see"
    world.see()
    assert asked(world) is None


def test_a_process_of_the_host_takes_a_slot() -> None:
    world = World(whole(0))
    world.see(processes=(process(0),))
    kind, words = told(asked(world))
    assert kind == "none_free"
    assert "carol" in words
    world.see()
    assert asked(world) is None


def test_memory_without_a_process_takes_a_slot() -> None:
    world = World(whole(0))
    world.see(whole(0, memory_used_mib=4000))
    assert told(asked(world))[0] == "none_free"
    world.see(whole(0, memory_used_mib=400))
    assert asked(world) is None


def test_memory_that_the_driver_keeps_for_itself_takes_no_slot() -> None:
    world = World(whole(0, memory_used_mib=700, memory_v2=False))
    world.see()
    assert asked(world) is None
    world.see(whole(0, memory_used_mib=1300, memory_v2=False))
    assert told(world.ask_create("bob").refused)[0] == "none_free"


def test_a_card_that_cannot_be_read_is_not_given() -> None:
    world = World(whole(0), whole(1))
    world.see(whole(0, trouble="ERR!"), whole(1))
    assert world.slots(world.with_created("alice")) == ("GPU-1",)
    assert told(world.ask_create("bob").refused)[0] == "none_free"


def test_a_card_whose_processes_cannot_be_seen_is_not_given() -> None:
    world = World(whole(0))
    world.see(whole(0, processes=None))
    assert told(asked(world))[0] == "none_free"


@pytest.mark.parametrize("given", ["slice", "card"])
def test_a_slice_and_its_card_are_never_both_given(given: str) -> None:
    first, second = cut(0, piece(0), piece(2)), whole(0)
    if given == "card":
        first, second = second, first
    world = World(first)
    world.with_created("alice")
    world.see(second)
    refused = world.ask_create("bob").refused
    assert refused is not None
    world.oblige()
    assert len(world.state.allocations) <= 1


def test_the_name_and_the_number_of_containers_come_before_the_gpus() -> None:
    world = World(whole(0), policy=limited(max_containers_per_user=1))
    world.with_created("alice", "one")
    assert told(world.ask_create("alice", "one").refused)[0] == "name_taken"
    assert told(world.ask_create("alice", "two").refused)[0] == "quota_exceeded"
    assert told(world.ask_create("alice", "../x").refused)[0] == "invalid"


def test_a_parked_container_that_is_started_is_asked_the_same_questions() -> None:
    world = World(whole(0))
    c = world.with_parked("alice")
    world.see()
    world.with_created("bob")
    outcome: Outcome = world.ask_start(c)
    assert told(outcome.refused)[0] == "none_free"


def test_defaults_are_one_gpu_and_three_containers() -> None:
    assert (Limits().max_mig_instances, Limits().max_containers_per_user) == (1, 3)
