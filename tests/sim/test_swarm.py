"""Random histories without a fault, and proof that the net would have caught one."""

import pytest

from tests.sim.daemon import Setup
from tests.sim.mutants import MUTANTS, Mutant, run
from tests.sim.play import Play
from tests.sim.swarm import history, replay, shrink

#: Steps of `make quick`; `make sim` makes as many as are asked for.
STEPS = 40_000
#: Mutants that are caught within a second: enough to see in `make quick` that the net hangs where it should.
QUICK = frozenset(
    {
        "an effect released one revision too early",
        "a permission written for BOUND only",
        "a whole GPU given while a MIG slice of it is",
        "the answer to an earlier order taken for this one's",
        "the spec is not withdrawn with the grant",
    }
)


def test_random_histories_break_no_law_and_all_come_to_rest() -> None:
    steps, n = 0, 0
    while steps < STEPS:
        made, failure = history(f"pytest/{n}")
        assert failure is None, f"python -m tests.sim --seed pytest --history {n}: {failure.words}"
        steps, n = steps + made, n + 1


def test_the_same_seed_tells_the_same_story() -> None:
    assert history("same/1") == history("same/1")


def test_every_move_can_happen_in_some_history() -> None:
    play = Play(Setup())
    names = set(play.moves)
    done: set[str] = set()

    class Counting(Play):
        def do(self, name: str, n: int = 0) -> bool:
            happened = super().do(name, n)
            if happened:
                done.add(name)
            return happened

    for n in range(150):
        history(f"moves/{n}", made=Counting)
        if done == names:
            return
    assert names - done == set()


@pytest.mark.parametrize(
    "mutant", [pytest.param(m, id=m.name, marks=() if m.name in QUICK else pytest.mark.long) for m in MUTANTS]
)
def test_a_known_bad_edit_is_caught(mutant: Mutant) -> None:
    assert run(mutant).words, f"python -m tests.sim.mutants {mutant.name!r}"


def test_the_mutants_of_the_quick_run_are_there() -> None:
    assert {m.name for m in MUTANTS} >= QUICK


def test_a_failing_history_is_told_in_fewer_moves_and_fails_again() -> None:
    class Careless(Play):
        def create(self, user: int) -> None:
            super().create(user)
            raise AssertionError("it went wrong")

    _, failure = history("shrink/1", made=Careless)
    assert failure is not None
    short = shrink(failure, made=Careless)
    assert len(short.history) <= 3
    assert isinstance(replay(short.setup, short.history, made=Careless), AssertionError)
