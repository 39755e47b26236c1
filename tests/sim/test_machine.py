"""The same moves as a Hypothesis machine: it chooses by what it has seen before, and shrinks what fails.

The swarm (`swarm.py`) makes many more steps; this one makes a short story of a fault that only a long one showed.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.sim.daemon import Setup
from tests.sim.ending import leave_alone, work
from tests.sim.play import Play

pytestmark = pytest.mark.long

_NAMES = tuple(Play(Setup()).moves)
#: A choice among few subjects; more than there are begin again at the first.
_which = st.integers(min_value=0, max_value=7)


class World(RuleBasedStateMachine):
    """A world to which anything may happen; it comes home in the end."""

    made: type[Play] = Play

    def __init__(self) -> None:
        super().__init__()
        self.play: Play | None = None

    @initialize(
        cards=st.sampled_from([(0,), (0, 0), (2,), (0, 2)]),
        users=st.integers(min_value=1, max_value=3),
        each=st.integers(min_value=1, max_value=2),
        keeps_running=st.booleans(),
        early_looks=st.booleans(),
        hold_s=st.sampled_from([60.0, None]),
    )
    def begin(
        self,
        cards: tuple[int, ...],
        users: int,
        each: int,
        *,
        keeps_running: bool,
        early_looks: bool,
        hold_s: float | None,
    ) -> None:
        self.play = self.made(
            Setup(
                cards=cards,
                users=users,
                each=each,
                keeps_running=keeps_running,
                early_looks=early_looks,
                hold_s=hold_s,
            )
        )

    @rule(name=st.sampled_from(_NAMES), which=_which)
    def something_happens(self, name: str, which: int) -> None:
        assert self.play is not None
        self.play.do(name, which)

    @rule(name=st.sampled_from(("create", "start", "park", "force", "raw start", "boot")), which=_which)
    def something_happens_with_all_that_follows(self, name: str, which: int) -> None:
        assert self.play is not None
        self.play.do(name, which)
        # A full disk is tried again and again.
        work(self.play, without="begin save" if self.play.disk.full else "")

    def teardown(self) -> None:
        if self.play is not None:
            leave_alone(self.play)


_HOW = settings(
    max_examples=150,
    stateful_step_count=60,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
TestWorld = World.TestCase
TestWorld.settings = _HOW


class _Careless(Play):
    """A world in which it goes wrong to fill a disk before a daemon was there."""

    def set_full(self, full: bool) -> None:
        super().set_full(full)
        if full and self.daemon is None:
            raise AssertionError("it went wrong")


class _CarelessWorld(World):
    made = _Careless


def test_a_fault_is_told_in_few_moves() -> None:
    with pytest.raises(AssertionError, match="it went wrong") as found:
        run_state_machine_as_test(_CarelessWorld, settings=_HOW)
    story = "\n".join(getattr(found.value, "__notes__", ()))
    assert "something_happens" in story
    assert story.count("state.something_happens") == 1
