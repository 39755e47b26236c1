"""No history of the tiny worlds goes wrong; and the explorer would have seen it."""

import pytest

from tests.sim.daemon import Copy, Daemon, Disk, Setup
from tests.sim.ending import work
from tests.sim.engine import Engine, Starting
from tests.sim.explorer import Explorer, begin
from tests.sim.hurry import Explored
from tests.sim.still import bring_back, keep, mark
from tests.sim.swarm import replay
from tests.sim.worlds import WORLDS, Tiny

#: Worlds of less than a second; the others are gone through by `make test`.
SMALL = ("a release, two crashes", "one slot for two")


@pytest.mark.parametrize("name", [n if n in SMALL else pytest.param(n, marks=pytest.mark.long) for n in WORLDS])
def test_no_history_of_a_tiny_world_goes_wrong(name: str) -> None:
    found = Explorer(WORLDS[name]).explore()
    print(f"{name}: {found}")
    assert found.failure is None, f"python -m tests.sim.explorer '{name}': {found.failure.words}"
    assert not found.cut_short
    assert found.worlds > 20


_ALONE = Setup(cards=(0,), users=1, each=1)
_HELD = (("create", 0),)
_PARKED = (("create", 0), ("park", 0))


class _Unguarded(Engine):
    def _guard(self, s: Starting) -> str:
        return "" if s.spec.engine_id == s.made.id else super()._guard(s)


class _NoGuard(Explored):
    """A world whose guard does not look at the grant."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.engine.__class__ = _Unguarded


class _Rash(Daemon):
    def _release(self) -> None:
        queue, self.queue = self.queue, []
        for _, effect in queue:
            self._let_go(effect)


class _ActsBeforeSaving(Explored):
    """A world whose daemon does not wait for the disk."""

    def boot(self) -> None:
        super().boot()
        assert self.daemon is not None
        self.daemon.__class__ = _Rash


class _Leaky(Disk):
    def keep(self, copy: Copy) -> None:
        super().keep(copy)
        if len(self.backups) > 1:
            self.main = self.backups[-2]


class _OneSaveBehind(Explored):
    """A world whose disk has only the save before the last after a crash."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.disk.__class__ = _Leaky


@pytest.mark.parametrize("patient", [False, True], ids=["hurried", "patient"])
@pytest.mark.parametrize(
    ("made", "before", "bounds", "words"),
    [
        (_NoGuard, _HELD, {"park": 1, "raw start": 1}, "which the ledger does not give it"),
        (_ActsBeforeSaving, _PARKED, {"start": 1, "crash": 1}, "a restart has forgotten it"),
        (_OneSaveBehind, _HELD, {"park": 1, "crash": 1}, "a restart has forgotten it"),
    ],
)
def test_a_fault_is_found_in_the_same_worlds_however_patiently_and_replays(
    made: type[Explored], before: tuple[tuple[str, int], ...], bounds: dict[str, int], words: str, patient: bool
) -> None:
    tiny = Tiny(setup=_ALONE, before=before, bounds=bounds)
    assert Explorer(tiny, patient=patient).explore().failure is None
    found = Explorer(tiny, made=made, patient=patient).explore()
    assert found.failure is not None
    assert words in found.failure.words
    assert isinstance(replay(found.failure.setup, found.failure.history, made=made), AssertionError)
    assert replay(found.failure.setup, found.failure.history, made=Explored) is None


def _told(*names: str) -> Explored:
    play = Explored(Setup(cards=(0, 0), users=2, each=1))
    for name in names:
        assert play.do(name)
    return play


def test_a_world_that_was_brought_back_goes_on_as_it_would_have() -> None:
    play = _told("boot", "settle", "end save", "create", "end save", "execute")
    still, before = keep(play), mark(play, mortal=True)
    bring_back(play, still)
    onward = ("answer", "end save", "step", "crash", "boot")
    for name in onward:
        assert play.do(name)
    after = mark(play, mortal=True)
    assert after != before
    bring_back(play, still)
    assert mark(play, mortal=True) == before
    for name in onward:
        assert play.do(name)
    assert mark(play, mortal=True) == after


def test_what_only_counts_up_does_not_tell_worlds_apart_and_what_matters_does() -> None:
    once, twice = (begin(Tiny(setup=_ALONE, before=_HELD, bounds={}), Explored) for _ in range(2))
    for play, times in ((once, 1), (twice, 3)):
        for _ in range(times):
            for name in ("start", "stop"):
                assert play.do(name)
                work(play)
    assert once.machine.serial != twice.machine.serial
    assert mark(once, mortal=True) == mark(twice, mortal=True)
    assert twice.do("park")
    work(twice)
    assert mark(once, mortal=True) != mark(twice, mortal=True)
