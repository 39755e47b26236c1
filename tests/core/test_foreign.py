"""Containers outside ds01d that use GPUs: users hear that they do, operators which they are and how that ends."""

from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.placing import spans
from ds01d.core.views.machine import notices
from ds01d.core.views.slots import all_slots
from ds01d.model.container import ContainerSpec
from ds01d.model.facts import CgroupStatus, EngineStatus, ForeignContainer
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import EngineId
from tests.core.world import T0, World, actor, cut, piece, process, whole

PRIVILEGED = ForeignContainer(
    engine_id=EngineId("0123456789abcdef"),
    name="burn",
    origin="raw-docker",
    user=None,
    status=EngineStatus.RUNNING,
    cgroup=CgroupStatus.OCCUPIED,
    gpus=("all",),
)


def tell(world: World, *found: ForeignContainer) -> None:
    world.tell(ev.Relisted(revision=world.state.revision, containers=(), foreign=found))


def reasons(world: World, user: str) -> set[str]:
    return {view.reason for view in all_slots(world.state, actor(user))}


def test_operators_are_told_which_container_it_is_and_how_to_end_it_until_it_is_gone() -> None:
    world = World(whole(0), whole(1), cut(2, piece(0)))
    tell(world, PRIVILEGED)
    [warning] = [n.text for n in notices(world.state, actor("olga"), unsaved_since=None)]
    assert warning.startswith("burn (0123456789ab) runs outside ds01d with GPU 0-1,2:0")
    assert "`docker stop burn`" in warning
    assert reasons(world, "olga") == {"in use by a container outside ds01d: burn (0123456789ab)"}

    tell(world)
    assert not notices(world.state, actor("olga"), unsaved_since=None)
    assert reasons(world, "olga") == {""}


def test_the_end_of_one_that_keeps_a_gpu_is_looked_for_at_once() -> None:
    world = World()
    tell(world, PRIVILEGED)
    world.tell(ev.EngineHinted(engine_id=PRIVILEGED.engine_id, action="die", at=T0))
    assert len(list(world.heard(do.Relist))) == 1


def test_of_two_on_the_same_gpus_operators_are_told_both() -> None:
    world = World()
    tell(world, PRIVILEGED, replace(PRIVILEGED, engine_id=EngineId("e2"), name="other", gpus=("1",)))
    said = [n.text for n in notices(world.state, actor("olga"), unsaved_since=None)]
    assert [text.split(":")[0] for text in said] == [
        "burn (0123456789ab) runs outside ds01d with GPU 0-1",
        "other (e2) runs outside ds01d with GPU 1",
    ]


def test_users_are_not_told_which_container_it_is() -> None:
    world = World()
    tell(world, PRIVILEGED)
    assert not notices(world.state, actor("alice"), unsaved_since=None)
    assert reasons(world, "alice") == {"in use by a container outside ds01d"}


def test_operators_are_told_which_container_a_process_on_a_gpu_lives_in() -> None:
    world = World(whole(0))
    tell(world, replace(PRIVILEGED, gpus=()))
    world.see(processes=(process(0, container=PRIVILEGED.engine_id),))
    [said] = reasons(world, "olga")
    assert said.startswith("in use by a container process of")
    assert said.endswith(": burn (0123456789ab)")
    assert "burn" not in str(reasons(world, "alice"))


def test_a_refusal_says_once_what_stands_in_the_way_of_many_and_who_can_end_it() -> None:
    world = World(whole(0), whole(1), whole(2))
    tell(world, PRIVILEGED)
    refused = world.ask_create().refused
    assert refused is not None
    assert refused.message == "cannot give 1 GPU now: GPU 0-2 in use by a container outside ds01d"
    assert "tell an operator" in refused.hint
    assert "hold" not in refused.hint


def test_while_a_user_holds_one_of_the_gpus_the_hint_says_that_holds_end() -> None:
    world = World(whole(0), whole(1))
    world.with_stopped("bob")
    tell(world, replace(PRIVILEGED, gpus=("1",)))
    refused = world.ask_create(spec=ContainerSpec(image="i", gpus=GpuRequest())).refused
    assert refused is not None
    assert "GPU 1 in use by a container outside ds01d" in refused.message
    assert "a hold ends" in refused.hint


def test_neighbouring_cards_are_named_as_one() -> None:
    assert spans(["0", "1", "2", "3", "4:1", "4:2", "6", "8", "9"]) == "0-3,4:1,4:2,6,8-9"
