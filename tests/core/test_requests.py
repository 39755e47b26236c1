"""What all requests have in common: a refusal changes nothing, a repetition is the same, and nothing grows for ever."""

from collections.abc import Callable

import pytest

from ds01d.core import events as ev
from ds01d.core.core import Outcome, handle
from ds01d.core.requests import KEPT_PER_UID
from ds01d.core.snapshot import dump
from ds01d.model.container import Phase
from ds01d.model.ids import ContainerId
from ds01d.model.operation import OperationState
from tests.core.world import World, actor, whole

REFUSED: list[tuple[str, Callable[[World], Outcome]]] = [
    ("a taken name", lambda w: w.ask_create("alice", "running")),
    ("a bad name", lambda w: w.ask_create("alice", "a b")),
    ("no free gpu", lambda w: w.ask_create("carol", "d")),
    ("a stranger's start", lambda w: w.ask_start(w.named("bob", "parked"), "alice")),
    ("a stranger's stop", lambda w: w.ask_stop(w.named("bob", "parked"), "alice")),
    ("a stranger's removal", lambda w: w.ask_remove(w.named("bob", "parked"), "alice")),
    ("a container that is not there", lambda w: w.ask_start(ContainerId("L-999"), "alice")),
    ("a start with no free gpu", lambda w: w.ask_start(w.named("bob", "parked"))),
    ("a removal of a running one", lambda w: w.ask_remove(w.named("alice", "running"))),
    ("a release by its owner", lambda w: w.ask_release(w.named("alice", "running"), "alice")),
    ("a release of a running one", lambda w: w.ask_release(w.named("alice", "running"))),
    ("an engine that is not gone", lambda w: w.ask_release(w.named("alice", "running"), engine_gone=True)),
    (
        "a thaw by a user",
        lambda w: w.tell(ev.ThawRequested(actor=actor("alice"), container=w.named("alice", "running").id)),
    ),
    ("a stop of what is being created", lambda w: w.ask_stop(w.named("carol", "new"))),
    ("a start of what is being created", lambda w: w.ask_start(w.named("carol", "new"))),
    ("a removal of what is being created", lambda w: w.ask_remove(w.named("carol", "new"), force=True)),
]


def busy() -> World:
    world = World(whole(0), whole(1))
    world.with_parked("bob", "parked")
    world.see()
    world.with_running("alice", "running")
    world.see()
    world.ask_create("carol", "new")
    return world


@pytest.mark.parametrize(("what", "ask"), REFUSED, ids=[what for what, _ in REFUSED])
def test_a_refused_request_leaves_every_byte_as_it_was(what: str, ask: Callable[[World], Outcome]) -> None:
    world = busy()
    before = (dump(world.state), world.state.revision, world.state.next_deadline(), len(world.given))
    outcome = ask(world)
    assert outcome.refused is not None, what
    assert outcome.refused.message.startswith("cannot ")
    assert (dump(world.state), world.state.revision, world.state.next_deadline(), len(world.given)) == before


DRY: list[tuple[str, Callable[[World], Outcome], str]] = [
    ("create", lambda w: w.ask_create("bob", "d", dry_run=True), "would create d on GPU"),
    ("start", lambda w: w.ask_start(w.named("alice", "c"), dry_run=True), "would start c on GPU 0"),
    (
        "stop",
        lambda w: w.ask_stop(w.named("alice", "c"), release=True, dry_run=True),
        "would park c, and give back GPU 0",
    ),
    ("remove", lambda w: w.ask_remove(w.named("alice", "c"), dry_run=True), "would remove c, and give back GPU 0"),
]


@pytest.mark.parametrize(("what", "ask", "words"), DRY, ids=[row[0] for row in DRY])
def test_a_dry_run_tells_what_would_be_and_leaves_every_byte_as_it_was(
    what: str, ask: Callable[[World], Outcome], words: str
) -> None:
    world = World()
    world.with_stopped("alice")
    before = dump(world.state)
    outcome = ask(world)
    assert outcome.refused is None, what
    assert outcome.preview[0].startswith(words)
    assert (outcome.changes, outcome.effects, outcome.operation) == ([], [], None)
    assert dump(world.state) == before


def test_a_dry_run_is_refused_like_the_real_thing() -> None:
    assert busy().ask_create("carol", "d", dry_run=True).refused is not None


def test_the_same_request_again_is_the_same_operation() -> None:
    world = World()
    first = world.ask_create("alice", request_id="once")
    again = world.ask_create("alice", request_id="once")
    assert again.operation == first.operation
    assert len(world.state.containers) == 1
    world.oblige()
    assert world.ask_create("alice", request_id="once").operation == first.operation


@pytest.mark.parametrize("verb", ["start", "stop", "remove", "release"])
def test_the_same_request_again_does_nothing_twice(verb: str) -> None:
    world = World()
    c = world.with_stopped("alice") if verb != "stop" else world.with_running("alice")
    asks = {"start": world.ask_start, "stop": world.ask_stop, "remove": world.ask_remove, "release": world.ask_release}
    user = "olga" if verb == "release" else "alice"
    first = asks[verb](c, user, request_id="once")
    world.oblige()
    before = dump(world.state)
    assert asks[verb](c, user, request_id="once").operation == first.operation
    assert dump(world.state) == before


def test_the_same_word_of_another_user_is_another_request() -> None:
    world = World()
    first = world.ask_create("alice", request_id="once")
    other = world.ask_create("bob", request_id="once")
    assert other.operation not in {None, first.operation}


def test_a_refused_request_can_be_repeated_and_may_be_granted_then() -> None:
    world = World(whole(0))
    c = world.with_running("bob")
    assert world.ask_create("alice", request_id="once").refused is not None
    world.ask_remove(c, force=True)
    world.oblige()
    world.see()
    assert world.ask_create("alice", request_id="once").operation is not None


def test_finished_operations_of_a_user_are_kept_up_to_a_number() -> None:
    world = World()
    c = world.with_running()
    for _ in range(3 * KEPT_PER_UID):
        world.ask_stop(c, request_id=None)
        world.oblige()
        world.ask_start(c)
        world.oblige()
    assert len(world.state.operations) <= KEPT_PER_UID + 1


def test_finished_operations_are_forgotten_after_a_day() -> None:
    world = World()
    world.with_running()
    assert len(world.state.operations) == 2
    world.wait(24 * 3600 + 1)
    assert len(world.state.operations) == 0


def test_an_operation_that_is_not_over_is_never_forgotten() -> None:
    world = World()
    c = world.with_stopped()
    world.silent = True
    asked = world.ask_remove(c)
    world.oblige()
    for _ in range(3000):
        world.wait(30)
        world.oblige()
    assert world.operation(asked).state is OperationState.PENDING


def test_an_operator_may_stop_start_and_remove_for_others_and_the_record_says_who() -> None:
    world = World()
    c = world.with_running("alice")
    world.ask_stop(c, "olga")
    world.oblige()
    assert world.fresh(c).why == "stopped by olga"
    world.ask_start(c, "olga")
    world.oblige()
    assert world.fresh(c).phase is Phase.RUNNING


def test_a_stranger_is_told_of_no_container_rather_than_of_one_that_is_not_his() -> None:
    world = World()
    c = world.with_running("alice")
    mine = world.ask_start(ContainerId("L-999"), "bob").refused
    hers = world.ask_start(c, "bob").refused
    assert mine is not None
    assert hers is not None
    assert mine.kind == hers.kind == "not_found"


def test_a_stop_of_a_stopped_container_is_done_at_once() -> None:
    world = World()
    c = world.with_stopped()
    assert world.operation(world.ask_stop(c)).state is OperationState.DONE


def test_a_start_of_a_running_container_is_done_at_once() -> None:
    world = World()
    c = world.with_running()
    assert world.operation(world.ask_start(c)).state is OperationState.DONE


def test_a_second_removal_of_a_container_ends_with_the_first() -> None:
    world = World()
    c = world.with_stopped()
    one, two = world.ask_remove(c), world.ask_remove(c)
    world.oblige()
    assert world.operation(one).outcome == world.operation(two).outcome == "removed"


# ---- faults of ours


def fault(world: World, c: ContainerId) -> None:
    """A look is answered as if it were something else, which no adapter of ours does."""
    c_now = world.fresh(c)
    if c not in world.orders:
        world.hint(c_now, "start")
    order = world.take(c)
    before = dump(world.state)
    outcome = handle(world.state, ev.Done(container=c, order=order.order), world.now)
    assert len(outcome.faults) == 1
    assert dump(world.state) == before
    where, error = outcome.faults[0]
    assert where == c
    world.tell(ev.Stumbled(container=c, message=str(error)))


def test_a_fault_of_ours_undoes_itself_and_the_record_is_looked_at_afresh() -> None:
    world = World()
    c = world.with_running()
    fault(world, c.id)
    assert world.fresh(c).confused == 1
    assert len(world.alerts()) == 1
    world.wait(2)
    world.oblige()
    assert world.fresh(c).confused == 0
    assert world.fresh(c).phase is Phase.RUNNING


def test_three_faults_in_a_row_set_a_record_aside_until_an_operator_takes_it_up() -> None:
    world = World()
    c = world.with_running()
    for _ in range(3):
        fault(world, c.id)
        world.wait(10)
    assert world.fresh(c).frozen
    world.hint(world.fresh(c), "die")
    world.wait(3600)
    assert c.id not in world.orders
    refused = world.ask_stop(c).refused
    assert refused is not None
    assert refused.kind == "frozen"
    assert world.allocation(c) is not None
    assert world.tell(ev.ThawRequested(actor=actor("olga"), container=c.id)).refused is None
    world.oblige()
    assert world.fresh(c).phase is Phase.RUNNING
    assert world.ask_stop(c).refused is None


def test_a_fault_in_one_record_leaves_the_others_as_they_are() -> None:
    world = World()
    c, other = world.with_running("alice"), world.with_running("bob")
    before = world.fresh(other)
    fault(world, c.id)
    assert world.fresh(other) == before
