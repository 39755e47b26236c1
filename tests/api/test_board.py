"""The board of slots shows what is, however long it was kept."""

from ds01d.api.board import Board
from ds01d.core import events as ev
from ds01d.core.state import State
from ds01d.core.views.slots import all_slots
from ds01d.model.actor import Actor
from ds01d.model.ids import Uid
from ds01d.model.policy import GpuPolicy, Policy
from tests.bench.traffic import record, replay

EVENTS = 250


def readers(state: State) -> list[Actor]:
    """A stranger, an operator, and everybody who has a slot now."""
    holders = sorted({a.uid for a in state.allocations})
    people = [Actor(uid=uid, gid=int(uid), name=f"user{uid}", operator=False) for uid in (Uid(7), *holders)]
    return [*people, Actor(uid=Uid(0), gid=0, name="root", operator=True)]


def test_the_board_shows_what_a_fresh_look_shows_after_every_event() -> None:
    traffic = record(10, EVENTS)
    state, board = traffic.fresh(), Board()
    shown = set()

    for event in traffic.measured:
        replay(state, [event])
        for reader in readers(state):
            assert board.slots(state, reader) == all_slots(state, reader)
            shown.add(board.slots(state, reader))

    assert len(shown) > EVENTS // 5, "nothing to speak of has changed"


def test_the_board_shows_what_is_seen_though_no_record_has_changed() -> None:
    traffic = record(10, 1)
    state, board = traffic.fresh(), Board()
    (at, _), reader = traffic.measured[-1], readers(state)[0]
    before, revision = board.slots(state, reader), state.revision

    replay(state, [(at, ev.Blinded(reason="the driver is gone"))])

    assert state.revision == revision
    assert before != board.slots(state, reader) == all_slots(state, reader)


def test_the_board_follows_the_policy() -> None:
    traffic = record(10, 1)
    state, board = traffic.fresh(), Board()
    (at, _), reader = traffic.measured[-1], readers(state)[0]
    before = board.slots(state, reader)

    replay(state, [(at, ev.ConfigLoaded(policy=Policy(gpu_allocation=GpuPolicy(enable_mig=False))))])

    assert before != board.slots(state, reader) == all_slots(state, reader)
