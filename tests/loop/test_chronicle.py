"""What is written down of each change: the right names, the true reasons, and nothing that did not happen."""

from collections.abc import Callable

import pytest

from ds01d.api.render.page import Page
from ds01d.api.render.past import line as shown
from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.core import Outcome
from ds01d.core.views.chronicle import visible
from ds01d.loop.chronicle import Line, lines_of, refusal_lines
from ds01d.model.chronicle import AllocationLine, EventLine
from ds01d.model.container import Container, ContainerSpec
from ds01d.model.facts import CgroupStatus, EngineStatus
from ds01d.model.gpu import GpuRequest
from ds01d.model.policy import Limits, Policy
from tests.core.world import World, actor, owner


class Written(World):
    """A world whose lines are kept."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.lines: list[Line] = []
        super().__init__(policy=policy)

    def tell(self, event: ev.Event) -> Outcome:
        outcome = super().tell(event)
        self.lines += lines_of(self.state, outcome.changes, outcome.effects, self.now)
        if outcome.refused is not None:
            self.lines += refusal_lines(self.state, event, outcome.refused, self.now)
        return outcome

    def events(self, event_type: str) -> list[EventLine]:
        return [x for x in self.lines if isinstance(x, EventLine) and x.event_type == event_type]

    def rejected(self) -> list[AllocationLine]:
        return [x for x in self.lines if isinstance(x, AllocationLine) and x.event == "REJECTED"]

    def destroyed(self, c: Container) -> None:
        assert c.engine_id is not None
        del self.engine[c.engine_id]
        self.hint(c, "destroy")
        self.oblige()


@pytest.mark.parametrize("made", [World.with_parked, World.with_stopped, World.with_running])
def test_whatever_was_removed_from_outside_is_written_down_as_that(made: Callable[[World], Container]) -> None:
    world = Written()
    world.destroyed(made(world))
    [removed] = world.events("container.removed")
    assert (removed.user, removed.details["container"], removed.details["why"]) == (
        "alice",
        "c",
        "removed from outside",
    )


def test_one_removed_from_outside_while_its_slots_were_taken_back_is_written_down_as_that() -> None:
    world = Written()
    c = world.with_stopped()
    world.ask_stop(c, release=True)
    world.destroyed(c)
    [removed] = world.events("container.removed")
    assert removed.details["why"] == "removed from outside"


def test_one_removed_on_request_says_by_whom() -> None:
    world = Written()
    c = world.with_parked()
    world.ask_remove(c)
    world.oblige()
    [removed] = world.events("container.removed")
    assert removed.details["why"] == "removed by alice"


def test_one_whose_removal_waited_for_proof_still_says_by_whom() -> None:
    world = Written()
    c = world.with_stopped()
    world.ask_remove(c)
    world.oblige(until=lambda w: isinstance(w.orders.get(c.id), do.LookAt))
    world.looks(c, EngineStatus.STOPPED, cgroup=CgroupStatus.OCCUPIED)
    assert "waiting for proof" in world.fresh(c).why
    world.wait(2)
    world.oblige()
    [removed] = world.events("container.removed")
    assert removed.details["why"] == "removed by alice"


def test_slots_that_are_free_once_their_container_is_gone_are_told_of_it() -> None:
    world = Written()
    world.destroyed(world.with_running())
    [released] = world.events("gpu.released")
    assert released.details["container"] == "c"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (137, "was killed (exit code 137)"),
        (143, "was terminated (exit code 143)"),
        (3, "ended by itself with exit code 3"),
    ],
)
def test_how_a_run_ended_is_said_once(code: int, words: str) -> None:
    world = Written()
    c = world.with_running()
    world.ends(c.engine_id, code)
    world.hint(c, "die")
    world.looks(c, EngineStatus.STOPPED, exit_code=code, finished_at=world.now)
    [stopped] = world.events("container.stopped")
    view = visible(stopped, actor("alice"))
    assert view is not None
    assert shown(view, Page(now=world.now, me="alice")).endswith(f"  {words}")
    assert world.told() == [f"c {words}"]


def test_a_start_refused_for_another_reason_than_gpus_is_of_the_container_and_by_its_name() -> None:
    world = Written()
    c = world.with_running()
    world.ask_stop(c)
    world.ask_start(c)
    [refused] = world.events("container.rejected")
    assert (refused.user, refused.details["container"], refused.details["id"]) == ("alice", "c", c.id)
    assert [x.container for x in world.rejected()] == ["c"]
    assert not world.events("gpu.rejected")


def test_a_stranger_finds_no_name_in_what_is_written_down_of_his_refusal() -> None:
    world = Written()
    c = world.with_created(name="secret")
    world.ask_start(c, "bob")
    assert "secret" not in str([x for x in world.lines if isinstance(x, EventLine) and x.user == "bob"])


def test_a_create_for_which_no_gpu_is_free_is_of_the_gpus() -> None:
    world = Written()
    world.ask_create(spec=ContainerSpec(image="i", gpus=GpuRequest(count=2)))
    world.ask_create("bob")
    [refused] = world.events("gpu.rejected")
    assert refused.details["kind"] == "none_free"
    assert len(world.rejected()) == 1


def test_a_create_without_gpus_is_never_refused_because_of_them() -> None:
    policy = Policy(groups={"student": Limits(max_containers_per_user=0)})
    world = Written(policy=policy)
    world.ask_create(spec=ContainerSpec(image="i", gpus=None))
    [refused] = world.events("container.rejected")
    assert refused.details["kind"] == "quota_exceeded"


def test_what_was_only_asked_leaves_no_refusal() -> None:
    world = Written()
    world.ask_create(spec=ContainerSpec(image="i", gpus=GpuRequest(count=2)))
    assert world.ask_create("bob", dry_run=True).refused is not None
    assert world.ask_create("alice", dry_run=True).refused is not None
    assert not world.rejected()
    assert not world.events("gpu.rejected") + world.events("container.rejected")


def test_to_act_for_another_is_written_down_as_denied_even_if_it_was_only_asked() -> None:
    world = Written()
    assert world.ask_create("bob", owner=owner("alice"), dry_run=True).refused is not None
    assert len(world.events("auth.denied")) == 1
    assert not world.rejected()


def test_a_start_that_failed_is_told_its_owner_in_words() -> None:
    world = Written()
    c = world.with_created()
    world.ask_start(c)
    while not world.events("container.failed"):
        if isinstance(world.order(c), do.StartContainer):
            world.failed(c, "no space left on device")
        world.looks(c, EngineStatus.CREATED)
        world.wait(31)
    [failed] = world.events("container.failed")
    view = visible(failed, actor("alice"))
    assert view is not None
    assert "  start failed: cannot start c: no space left on device" in shown(view, Page(now=world.now, me="alice"))
