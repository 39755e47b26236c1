"""One container's life from end to end, in a world where everything goes well."""

from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.model.allocation import Claim
from ds01d.model.container import Permission, Phase
from ds01d.model.operation import OperationState
from tests.core.world import ENGINE, World


def test_a_container_is_created_started_stopped_held_parked_started_again_and_removed() -> None:
    world = World()
    created = world.ask_create("alice")
    c = world.named("alice")
    assert (c.phase, world.allocation(c).claim) == (Phase.CREATING, Claim.RESERVED)  # type: ignore[union-attr]
    assert [type(o) for o in world.orders.values()] == [do.CreateContainer]

    world.oblige()
    assert world.operation(created).state is OperationState.DONE
    assert (world.fresh(c).phase, world.allocation(c).claim) == (Phase.STOPPED, Claim.HELD)  # type: ignore[union-attr]
    assert world.fresh(c).permission is Permission.PRESENT
    assert world.allocation(c).deadline == world.now + 1800  # type: ignore[union-attr]
    first = world.slots(c)

    started = world.ask_start(c)
    world.oblige()
    assert world.operation(started).state is OperationState.DONE
    assert (world.fresh(c).phase, world.allocation(c).claim) == (Phase.RUNNING, Claim.BOUND)  # type: ignore[union-attr]
    assert world.slots(c) == first

    stopped = world.ask_stop(c)
    world.oblige()
    assert world.operation(stopped).state is OperationState.DONE
    assert (world.fresh(c).phase, world.allocation(c).claim) == (Phase.STOPPED, Claim.HELD)  # type: ignore[union-attr]

    world.wait(3700)
    assert world.allocation(c).claim is Claim.RELEASING  # type: ignore[union-attr]
    world.oblige()
    assert world.allocation(c) is None
    assert world.disk == {}
    assert any("parked" in words for words in world.told())

    world.see()
    again = world.ask_start(c)
    world.oblige()
    assert world.operation(again).state is OperationState.DONE
    assert world.fresh(c).phase is Phase.RUNNING

    removed = world.ask_remove(c, force=True)
    world.oblige()
    assert world.operation(removed).state is OperationState.DONE
    assert world.gone(c)
    assert not world.state.allocations.rows
    assert world.disk == {}
    assert world.engine == {}


def test_an_engine_that_reads_no_cdi_specs_makes_nothing_and_the_refusal_says_what_it_needs() -> None:
    world = World()
    world.tell(ev.EngineAnswered(engine=replace(ENGINE, cdi=False, version="20.10.24"), restarted=False))

    refused = world.ask_create().refused

    assert refused is not None
    assert "Docker 20.10.24" in refused.message
    assert "daemon.json" in refused.hint


def test_a_container_whose_last_shell_was_left_stops_and_its_hold_begins() -> None:
    world = World()
    c = world.with_running("alice")

    world.tell(ev.ShellsLeft(engine_id=c.engine_id or ""))  # type: ignore[arg-type]  # a running one has an id
    world.oblige()

    assert world.fresh(c).phase is Phase.STOPPED
    assert world.allocation(c).claim is Claim.HELD  # type: ignore[union-attr]
    assert "shell" in world.fresh(c).why
