"""Random histories without a fault, and proof that the net would have caught one."""

import pytest

from tests.sim.daemon import Setup
from tests.sim.mutants import MUTANTS, Mutant, run
from tests.sim.play import Play
from tests.sim.swarm import history, replay, shrink

#: Steps of `make quick`; `make sim` makes as many as are asked for.
STEPS = 40_000
#: Mutants that are caught within seconds; the others live longer, and run on demand.
QUICK = frozenset(
    {
        "acting before saving",
        "no second try after a failed remove",
        "looking before withdrawing",
        "a permission for BOUND only",
        "a session that nobody reads is not cut",
        "a whole GPU is given while a slice of it is",
        "the answer to an earlier order is taken for this one's",
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


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.name in QUICK], ids=lambda m: m.name)
def test_a_known_bad_edit_is_caught(mutant: Mutant) -> None:
    assert run(mutant, steps=60_000).words


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
