"""Every history of a tiny world: breadth first over the real core, with nothing left to chance.

A world has a few requests of its people, and so many crashes, raw starts and other harm as its bounds allow; everything
else may happen at any time and in any order. What is reached is judged at every move, and at the end of every way all
must come home. `python -m tests.sim.explorer` goes through the worlds and prints what each came to.
"""

import argparse
import sys
import time
from typing import NamedTuple

import msgspec

from tests.sim.daemon import Setup
from tests.sim.ending import leave_alone, work
from tests.sim.engine import Starting
from tests.sim.play import Play
from tests.sim.still import bring_back, forget, keep, mark
from tests.sim.swarm import Failure, describe
from tests.sim.telling import tell
from tests.sim.worlds import LARGE, WORLDS, Tiny

#: What may happen as often as it can.
ALWAYS = (
    *("boot", "settle", "step", "answer", "end save", "wake", "listing", "silence", "reconnect", "hint"),
    *("execute", "advance", "refresh", "notice", "obeys", "engine comes"),
)
#: Of these the core does not hear.
OUTSIDE = frozenset({"execute", "advance", "refresh", "notice", "obeys", "engine comes", "raw start"})
#: After these another daemon reads what was saved.
DEADLY = "crash"
#: Two runs of a container never begin at the same instant.
TICK_S = 0.001

Way = tuple[tuple[str, int], ...]


class Explored(Play):
    """A world in which every start has an instant of its own, and every save begins as soon as it can.

    A save that begins later, and then holds more, ends in the same world as one that begins at once and a second one
    after it: nothing need happen between the two.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        #: What has happened so far; None: nobody wants to know.
        self.way: list[tuple[str, int]] | None = []

    def do(self, name: str, n: int = 0) -> bool:
        happened = super().do(name, n)
        if happened and self.way is not None:
            self.way.append((name, n))
        super().do("begin save")
        return happened

    def advance(self, s: Starting) -> None:
        self.machine.now += TICK_S
        super().advance(s)


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

    still: bytes
    left: tuple[int, ...]
    number: int


class _Wrong(Exception):  # what was looked for
    """A way that went wrong, and why."""

    def __init__(self, way: Way, fault: Exception) -> None:
        super().__init__(describe(fault))
        self.way = way


class Explorer:
    """One tiny world, and every world that can come of it."""

    def __init__(self, tiny: Tiny, *, made: type[Explored] = Explored) -> None:
        forget()
        self._tiny = tiny
        self._names = tuple(tiny.bounds)
        self._play = begin(tiny, made)
        assert self._play.way is not None
        self._before, self._play.way = tuple(self._play.way), None
        self._met: set[bytes] = set()
        #: Whence each was reached first, and by which move.
        self._came: list[tuple[int, str, int]] = []
        self._moves = self._depth = 0

    def explore(self, *, limit: int | None = None) -> Found:
        """Go every way there is, the short ones first; no further once more than `limit` worlds were met."""
        began = time.monotonic()
        failure = None
        front = [self._node(-1, ("", 0), tuple(self._tiny.bounds.values()))]
        try:
            while front and not (cut_short := limit is not None and len(self._met) > limit):
                front = [node for old in front if old is not None for node in self._following(old)]
                self._depth += bool(front)
        except _Wrong as wrong:
            history = (*self._before, *wrong.way)
            failure = Failure(words=str(wrong), where="", history=history, setup=self._tiny.setup)
            cut_short = True
        return Found(
            worlds=len(self._met),
            moves=self._moves,
            depth=self._depth,
            seconds=time.monotonic() - began,
            cut_short=cut_short,
            failure=failure,
        )

    def _following(self, node: _Node) -> list[_Node]:
        play, found = self._play, []
        bring_back(play, node.still, for_the_core=False)
        moves = self._open(node.left)
        self._moves += len(moves)
        for move in moves:
            bring_back(play, node.still, for_the_core=move[0] not in OUTSIDE)
            try:
                play.do(*move)
            except Exception as fault:  # whatever it is, it is what is looked for
                raise _Wrong((*self._way(node.number), move), fault) from fault
            left = tuple(n - (name == move[0]) for name, n in zip(self._names, node.left, strict=True))
            new = self._node(node.number, move, left)
            if new is not None:
                found.append(new)
        if not moves:
            self._end(node)
        return found

    def _end(self, node: _Node) -> None:
        bring_back(self._play, node.still)
        try:
            leave_alone(self._play)
        except Exception as fault:  # as above
            raise _Wrong(self._way(node.number), fault) from fault

    def _open(self, left: tuple[int, ...]) -> list[tuple[str, int]]:
        may = (*ALWAYS, *(name for name, n in zip(self._names, left, strict=True) if n))
        return [(name, n) for name in may for n in range(len(self._play.moves[name].subjects()))]

    def _node(self, before: int, move: tuple[str, int], left: tuple[int, ...]) -> _Node | None:
        """The world as it is now, if it was never met."""
        mortal = any(n for name, n in zip(self._names, left, strict=True) if name == DEADLY)
        seen = mark(self._play, mortal=mortal) + bytes(left)
        if seen in self._met:
            return None
        self._met.add(seen)
        self._came.append((before, *move))
        return _Node(keep(self._play), left, len(self._came) - 1)

    def _way(self, number: int) -> Way:
        way = []
        while number > 0:
            number, name, n = self._came[number]
            way.append((name, n))
        return tuple(reversed(way))


def begin(tiny: Tiny, made: type[Explored]) -> Explored:
    """The world as it is when the exploration begins: at rest."""
    play = made(tiny.setup)
    for name, n in (("boot", 0), *tiny.before):
        if not play.do(name, n):
            raise ValueError(f"{name} cannot happen")
        work(play)
    return play


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.explorer", description=__doc__)
    parser.add_argument("world", nargs="*", help="only these; without a name all that are not large")
    parser.add_argument("--limit", type=int, help="no more states of one world than this")
    args = parser.parse_args()
    worlds = {**WORLDS, **LARGE}
    for name in args.world:
        if name not in worlds:
            parser.error(f"no world is called {name!r}; there are: {'; '.join(worlds)}")
    wrong = 0
    for name in args.world or WORLDS:
        tiny = worlds[name]
        found = Explorer(tiny).explore(limit=args.limit)
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
