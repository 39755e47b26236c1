"""Left alone, everything comes home: all faults are off, time passes, and nothing may be left over."""

from ds01d.core import events as ev
from ds01d.model.allocation import Claim
from ds01d.model.container import Phase
from ds01d.model.facts import EngineStatus
from ds01d.model.ids import EngineId
from tests.sim.play import Play
from tests.sim.scene import OPERATOR

#: Rounds of calm, of four seconds first and of five minutes later: longer than every hold, back-off and pause.
ROUNDS, SHORT = 60, 30
#: After these a ghost has been found and ended, not only because a hold was over.
GHOST_ROUNDS = 8


class Restless(AssertionError):
    """Something did not come to its end."""


def leave_alone(play: Play) -> int:
    """Let the world calm down; give the steps that took."""
    steps = _calm(play)
    m, e = play.machine, play.engine
    quiet = 0
    for n in range(ROUNDS):
        for made in list(e.made.values()):
            e.raw_kill(made)
        _operator(play)
        steps += work(play)
        play.do("ask listing", 0)
        steps += work(play)
        play.do("picture", 0)
        if n == GHOST_ROUNDS and (ghosts := _ghosts(play)):
            raise Restless("; ".join(ghosts))
        if not _left(play):
            quiet += 1
            if quiet == 2:
                return steps
        else:
            quiet = 0
        m.now += 4.0 if n < SHORT else 300.0
        play.do("soon", 0)
    raise Restless("; ".join(_left(play)[:4]))


def _operator(play: Play) -> None:
    """What ds01d reports and leaves alone, a ghost without a record, an operator ends."""
    assert play.daemon is not None
    play.daemon.trips = False
    play.thaw()
    for c in play.left_behind():
        if not c.engine_gone:
            play.take_for_gone(c)
    if play.setup.hold_s is None:
        for a in [a for a in play.daemon.state.allocations if a.claim is Claim.HELD]:
            play.ask(ev.ReleaseRequested(actor=OPERATOR, container=a.container))
    for c in play.daemon.state.containers:
        strange = c.engine != play.engine.name
        if (c.stray or strange) and c.engine_id is not None:
            for proc in list(play.machine.cgroups.get(c.engine_id, {}).values()):
                play.machine.end(proc)
            if strange:
                # Made by an engine whose name was not known yet; the operator clears it away.
                play.engine.made.pop(c.engine_id, None)

    for engine_id in play.daemon.state.sight.unaccounted:
        for proc in list(play.machine.cgroups.get(engine_id, {}).values()):
            play.machine.end(proc)


def _calm(play: Play) -> int:
    """All that does harm is over."""
    m, e = play.machine, play.engine
    m.blind = False
    play.disk.full = False
    m.foreign.clear()
    for task in play.stuck():
        task.stuck = False
    for card in m.cards:
        card.lost = False
    if not e.up:
        e.come_up()
    e.made = {made.id: made for made in e.made.values() if made.label is not None}
    play.do("boot", 0)
    play.do("settle", 0)
    return 2


def work(play: Play, *, without: str = "") -> int:
    """Everything that can go on goes on, but for one thing perhaps."""
    moves = (
        *("settle", "end save", "begin save", "execute", "advance", "obeys", "notice", "answer", "step", "refresh"),
        *("reconnect", "hint", "let go", "listing", "wake"),
    )
    for steps in range(3000):
        if not any(name != without and play.do(name) for name in moves):
            return steps
    raise Restless(f"it never comes to rest: {play.daemon and play.daemon.restless()[:3]}")


def _left(play: Play) -> list[str]:
    """What is not at home yet, in words."""
    d = play.daemon
    assert d is not None
    s, m = d.state, play.machine
    left = d.restless()
    left += [f"{o.verb} of {o.container} is pending" for o in s.operations if o.finished_at is None]
    left += [f"{a.container} keeps {a.slots} as {a.claim}" for a in s.allocations]
    left += [f"{c.id} blocks {c.blocks}" for c in s.containers if c.blocks]
    left += [f"{c.id} is {c.phase}" for c in s.containers if c.phase is not Phase.STOPPED or c.frozen or c.stray]
    gpus = {c.key for c in s.containers if c.wants_gpu or c.engine_id is None}
    known = {c.key for c in s.containers}
    left += [f"{slot.name} is drained" for slot in s.slots if slot.drained is not None]
    left += [f"a stray permission {k}" for k in {**m.grants, **m.specs} if k in gpus or k not in known]
    cpu = [c for c in s.containers if not c.wants_gpu]
    left += [f"{c.id} has no permission" for c in cpu if c.key not in m.grants or c.key not in m.specs]
    return left + _ghosts(play)


def _ghosts(play: Play) -> list[str]:
    return [f"{p.container} runs on as a ghost" for p in play.machine.procs.values() if not _runs(play, p.container)]


def _runs(play: Play, engine_id: EngineId) -> bool:
    made = play.engine.made.get(engine_id)
    return made is not None and made.status is EngineStatus.RUNNING
