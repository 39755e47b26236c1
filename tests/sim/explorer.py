"""Every history of a tiny world: breadth first over the real core, with nothing left to chance.

A world has a few requests of its people, and so many crashes, raw starts and other harm as its bounds allow; everything
else may happen at any time and in any order. What is reached is judged at every move, and at the end of every way all
must come home. `python -m tests.sim.explorer` goes through the worlds and prints what each came to.
"""

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from operator import eq, ge
from typing import NamedTuple

import msgspec

from tests.sim.ending import leave_alone, work
from tests.sim.hurry import CONSIDERED, Explored
from tests.sim.still import Still, bring_back, keep, leeway, mark
from tests.sim.swarm import Failure, describe
from tests.sim.telling import tell
from tests.sim.worlds import LARGE, WORLDS, Tiny

#: What may happen as often as it can.
ALWAYS = (
    *("boot", "settle", "step", "answer", "end save", "wake", "listing", "silence", "reconnect"),
    *("execute", "advance", "refresh", "notice", "obeys", "engine comes"),
)
#: Hints may be lost: a world that waits for these alone is at rest, and with one more it does all that it does without.
HINT, LOST = "hint", "lose hint"
#: Of these the core does not hear.
OUTSIDE = frozenset({"execute", "advance", "refresh", "notice", "obeys", "engine comes", "raw start"})
#: After these another daemon reads what was saved.
DEADLY = "crash"

#: Seconds between two words on how far it is.
_QUIET_S = 20.0

Way = tuple[tuple[str, int], ...]
#: How often each of what is bounded may still happen.
Left = tuple[int, ...]


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What an exploration came to."""

    worlds: int
    moves: int
    depth: int
    seconds: float
    #: There were more worlds than were to be met.
    cut_short: bool = False
    failure: Failure | None = None

    def __str__(self) -> str:
        short = ", cut short" if self.cut_short else ""
        return f"{self.worlds} states, {self.moves} moves, depth {self.depth}{short}, {self.seconds:.0f} s"


class _Node(NamedTuple):
    """A world on the front: how it stands, what it may still do, and its place in the list of how all were reached."""

    still: Still
    left: Left
    number: int


class _Wrong(Exception):  # what was looked for
    """A way that went wrong, and why."""

    def __init__(self, way: Way, fault: Exception) -> None:
        super().__init__(describe(fault))
        self.way = way


class Explorer:
    """One tiny world, and every world that can come of it."""

    def __init__(self, tiny: Tiny, *, made: type[Explored] = Explored, patient: bool = False) -> None:
        self._tiny, self._made = tiny, made
        #: Nothing is hurried, and worlds are the same only if the very same may still happen: to check the rest by.
        self._patient = patient or not CONSIDERED.issuperset(tiny.bounds)
        self._names = tuple(tiny.bounds)
        self._play = begin(tiny, made)
        self._play.way = None
        #: Every world that was met, and how much could still happen in it.
        self._met: dict[bytes, list[Left]] = {}
        #: Whence each was reached first, and by which move.
        self._came: list[tuple[int, str, int]] = []
        self._moves = self._depth = 0

    def explore(self, *, limit: int | None = None, heard: Callable[[str], None] = lambda _: None) -> Found:
        """Go every way there is, the short ones first; no further once more than `limit` worlds were met.

        How far it is, is heard at every move deeper.
        """
        began = time.monotonic()
        failure = None
        front = [self._node(-1, ("", 0), tuple(self._tiny.bounds.values()))]
        try:
            while front and not (cut_short := limit is not None and len(self._came) > limit):
                front = [node for old in front if old is not None for node in self._following(old)]
                self._depth += bool(front)
                heard(f"depth {self._depth}: {len(self._came)} states, {len(front)} to go on from")
        except _Wrong as wrong:
            failure = Failure(words=str(wrong), where="", history=wrong.way, setup=self._tiny.setup)
            cut_short = True
        return Found(
            worlds=len(self._came),
            moves=self._moves,
            depth=self._depth,
            seconds=time.monotonic() - began,
            cut_short=cut_short,
            failure=failure,
        )

    def _following(self, node: _Node) -> list[_Node]:
        play, found = self._play, []
        bring_back(play, node.still)
        play.left = self._known(node.left)
        moves, at_rest = self._open(node.left)
        self._moves += len(moves)
        settles = play.daemon is not None and not play.daemon.up
        for move in moves:
            if move is not moves[0]:
                bring_back(play, node.still, for_the_core=settles or move[0] not in OUTSIDE)
            left = tuple(n - (name == move[0]) for name, n in zip(self._names, node.left, strict=True))
            play.left = self._known(left)
            try:
                play.do(*move)
            except Exception as fault:  # whatever it is, it is what is looked for
                raise _Wrong(self._way(node.number, move), fault) from fault
            new = self._node(node.number, move, left)
            if new is not None:
                found.append(new)
        if at_rest:
            self._end(node)
        return found

    def _known(self, left: Left) -> Mapping[str, int] | None:
        """What the world may know of what is to come."""
        return None if self._patient else dict(zip(self._names, left, strict=True))

    def _end(self, node: _Node) -> None:
        """All comes home, though every hint is lost."""
        bring_back(self._play, node.still)
        self._play.left = None
        lost = [(LOST, 0) for _ in self._play.engine.hints]
        self._play.engine.hints.clear()
        try:
            leave_alone(self._play)
        except Exception as fault:  # as above
            raise _Wrong(self._way(node.number, *lost), fault) from fault

    def _open(self, left: Left) -> tuple[list[tuple[str, int]], bool]:
        """The moves there are, and whether nothing would happen by itself."""
        bounded = (name for name, n in zip(self._names, left, strict=True) if n)
        by_itself, others = (
            [(name, n) for name in names for n in range(len(self._play.moves[name].subjects()))]
            for names in (ALWAYS, (HINT, *bounded))
        )
        return [*by_itself, *others], not by_itself

    def _node(self, before: int, move: tuple[str, int], left: Left) -> _Node | None:
        """The world as it is now, unless it was met, and as much or more could happen in it."""
        mortal = any(n for name, n in zip(self._names, left, strict=True) if name == DEADLY)
        seen = mark(self._play, mortal=mortal)
        may = left + leeway(self._play)
        enough = eq if self._patient else ge
        if any(all(map(enough, met, may)) for met in self._met.get(seen, ())):
            return None
        for known in {seen, mark(self._play, mortal=False)} if mortal else {seen}:
            self._met.setdefault(known, []).append(may)
        self._came.append((before, *move))
        return _Node(keep(self._play), left, len(self._came) - 1)

    def _way(self, number: int, *last: tuple[str, int]) -> Way:
        """Every single move on the way to a world, and some more, in a world that is made anew for it."""
        chosen = [*last]
        while number > 0:
            number, name, n = self._came[number]
            chosen.append((name, n))
        play = begin(self._tiny, self._made)
        assert play.way is not None
        left = dict(self._tiny.bounds)
        with suppress(Exception):  # known already
            for name, n in reversed(chosen):
                if name in left:
                    left[name] -= 1
                play.left = None if self._patient else left
                play.do(name, n)
        return tuple(play.way)


def begin(tiny: Tiny, made: type[Explored]) -> Explored:
    """The world as it is when the exploration begins: at rest."""
    play = made(tiny.setup)
    for name, n in (("boot", 0), *tiny.before):
        if not play.do(name, n):
            raise ValueError(f"{name} cannot happen")
        work(play)
    return play


class _Patience:
    """For who waits: now and then how far it is, apart from what is found."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def hear(self, words: str) -> None:
        if time.monotonic() - self._told >= _QUIET_S:
            self._told = time.monotonic()
            print(f"  … {words}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.explorer", description=__doc__)
    parser.add_argument("world", nargs="*", help="only these; without a name all that are not large")
    parser.add_argument("--limit", type=int, help="no more states of one world than this")
    parser.add_argument("--patient", action="store_true", help="hurry nothing: many more states, the same verdict")
    args = parser.parse_args()
    worlds = {**WORLDS, **LARGE}
    for name in args.world:
        if name not in worlds:
            parser.error(f"no world is called {name!r}; there are: {'; '.join(worlds)}")
    wrong = 0
    for name in args.world or WORLDS:
        tiny = worlds[name]
        found = Explorer(tiny, patient=args.patient).explore(limit=args.limit, heard=_Patience().hear)
        bounds = ", ".join(f"{what} {n}" for what, n in tiny.bounds.items())
        print(f"{name} ({bounds}): {found}", flush=True)
        if found.failure is not None:
            wrong += 1
            print(found.failure.words)
            tell(found.failure, made=Explored)
            print(f"\nagain: python -m tests.sim.explorer '{name}'")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
