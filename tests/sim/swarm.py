"""Random histories: each seed has a world and weights of its own, and the same seed always tells the same story."""

import random
import time
import traceback
from itertools import accumulate

import msgspec
from msgspec.structs import replace

from tests.sim.daemon import Setup
from tests.sim.ending import leave_alone
from tests.sim.play import Play
from tests.sim.themes import THEMES, Theme

#: Steps of one history before the world is left alone; many short ones find more than a long one.
LENGTH = 400
#: What leaves ghosts; one in a cgroup that is looked for in the wrong place is two faults, and only NVML could see it.
GHOSTLY = frozenset({"engine dies in a start", "engine made anew"})
#: How long a failing history is made shorter at most.
SHRINKING_S = 40.0


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A history that went wrong."""

    words: str
    where: str
    history: tuple[tuple[str, int], ...]
    setup: Setup


def setup_of(rng: random.Random) -> Setup:
    return Setup(
        cards=rng.choice([(0,), (0, 0), (0, 2), (2,), (2, 0, 0), (0, 0, 2)]),
        users=rng.randint(1, 3),
        each=rng.randint(1, 3),
        keeps_running=rng.random() < 0.6,
        early_looks=rng.random() < 0.5,
        counts=rng.choice([(1,), (1,), (1, 2), (1, 0), (1, 2, 0)]),
        hold_s=rng.choice([60.0, 60.0, 3600.0, None]),
        odd_cgroups=rng.random() < 0.15,
    )


def weights_of(play: Play, theme: Theme, rng: random.Random) -> list[float]:
    """Some faults often, some never: a history in which everything happens at once hides as much as it finds."""
    weights = []
    slow_disk = rng.choice([1, 1, 0.2, 0.03])
    for move in play.moves.values():
        factor = rng.choice([0, 0, 0.3, 1, 1, 4]) if move.fault else rng.choice([0.5, 1, 1, 2])
        factor = max(factor, 0.3) * theme.moves[move.name] if move.name in theme.moves else factor
        if play.setup.odd_cgroups and move.name in GHOSTLY:
            factor = 0
        if move.name in {"begin save", "end save"}:
            factor *= slow_disk
        weights.append(move.weight * factor)
    return weights


def history(
    seed: str, length: int = LENGTH, *, theme: str | None = None, made: type[Play] = Play
) -> tuple[int, Failure | None]:
    """One random history, and what went wrong with it. Gives the steps made."""
    rng = random.Random(seed)
    # Half of the histories have no theme.
    chosen = THEMES[theme or rng.choice([*THEMES, *["none"] * (len(THEMES) - 2)])]
    setup = replace(setup_of(rng), **chosen.setup)
    play = made(setup)
    names = list(play.moves)
    cumulative = list(accumulate(weights_of(play, chosen, rng)))
    told: list[tuple[str, int]] = []
    steps = 0
    try:
        while steps < length:
            name = rng.choices(names, cum_weights=cumulative)[0]
            n = rng.randrange(8)
            told.append((name, n))
            if play.do(name, n):
                steps += 1
            else:
                told.pop()
        steps += leave_alone(play)
    except Exception as fault:  # noqa: BLE001  # whatever it is, it is what is looked for
        return steps, Failure(words=describe(fault), where=traceback.format_exc(), history=tuple(told), setup=setup)
    return steps, None


def replay(setup: Setup, told: tuple[tuple[str, int], ...], *, made: type[Play] = Play) -> BaseException | None:
    """Play a history again."""
    play = made(setup)
    try:
        for name, n in told:
            play.do(name, n)
        leave_alone(play)
    except Exception as fault:  # noqa: BLE001  # as above
        return fault
    return None


def describe(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {fault}"


def kind(words: str) -> str:
    """What sort of failure it is, without the names in it."""
    return "".join(c for c in words if not c.isdigit())[:60]


def shrink(failure: Failure, *, made: type[Play] = Play) -> Failure:
    """The shortest history found that goes wrong in the same way."""
    told, wanted = list(failure.history), kind(failure.words)
    size, end = len(told) // 2, time.monotonic() + SHRINKING_S
    while size:
        i = 0
        while i < len(told) and time.monotonic() < end:
            shorter = tuple(told[:i] + told[i + size :])
            fault = replay(failure.setup, shorter, made=made)
            if fault is not None and kind(describe(fault)) == wanted:
                told = list(shorter)
            else:
                i += size
        size //= 2
    fault = replay(failure.setup, tuple(told), made=made)
    words = failure.words if fault is None else describe(fault)
    return replace(failure, history=tuple(told), words=words)
