"""A world whose every history is gone through: what need not wait does not wait.

Two moves that do not see each other lead to the same world in either order, and one order is enough. So a move is made
at once where nothing that may still happen could come before it and make a difference. Nothing that a law is about is
ever made earlier in this way: what begins to run may begin at once, for then it runs the longer; what ends, and what a
permission withdrawn forbids, waits as long as it can.
"""

from collections.abc import Iterator, Mapping, Sequence

from ds01d.core import events as ev
from ds01d.core.core import Outcome
from ds01d.core.effects import LookAt, Permit, Withdraw
from ds01d.core.state import State
from ds01d.model.container import Container, OrderName, Outstanding
from ds01d.model.facts import EngineStatus
from ds01d.model.ids import EngineId, Key
from tests.sim.daemon import Broken, Setup
from tests.sim.engine import CallKind, Made, Starting
from tests.sim.hands import CALLS, Task
from tests.sim.judge import Judge
from tests.sim.play import Play

#: Two runs of a container never begin at the same instant.
TICK_S = 0.001
#: With these the daemon may lose interest in a stop that it has ordered.
_HARDER = ("stop", "park", "remove", "force")
#: All that may be bounded in a world that is hurried: of nothing else it is considered below what it feels.
CONSIDERED = frozenset({"create", "start", "release", "crash", "engine dies", "raw start", *_HARDER})
#: Looks: the cgroup is read, the engine is asked, the cgroup is read again, and the GPUs are if there are any.
_ASKS_ENGINE, _LOOKED = 1, 3
#: Of a permission first the grant is written, then the spec.
_SPEC = 1


class Watchful(Judge):
    """A judge who also sees to it that what hurrying rests upon is so."""

    def watch(self, state: State, event: ev.Event, outcome: Outcome) -> None:
        super().watch(state, event, outcome)
        for change in outcome.changes:
            if isinstance(change.old, Container) and change.old.order is not None:
                self._waited_for(change.old.order, change.new, event)

    def _waited_for(self, order: Outstanding, then: object, event: ev.Event) -> None:
        """An order is waited for until it is answered, or the daemon is another; a stop until a harder one is asked."""
        kept = isinstance(then, Container) and then.order is not None and then.order.id == order.id
        over = isinstance(event, ev.RealityObserved) or (isinstance(event, ev.Answer) and event.order == order.id)
        harder = order.name is OrderName.STOP and isinstance(event, ev.StopRequested | ev.RemoveRequested)
        if not (kept or over or harder):
            raise Broken(f"{order.name} was ordered, and {type(event).__name__} made nobody wait for it any more")


class Explored(Play):
    """A world in which every start has an instant of its own, and every save begins as soon as it can.

    A save that begins later, and then holds more, ends in the same world as one that begins at once and a second one
    after it: nothing need happen between the two.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.judge = Watchful(self.machine, self.engine, self.disk)
        #: What has happened so far; None: nobody wants to know.
        self.way: list[tuple[str, int]] | None = []
        #: How often what is bounded may still happen; None: nobody knows, and everything waits.
        self.left: Mapping[str, int] | None = None

    def do(self, name: str, n: int = 0) -> bool:
        happened = self._do(name, n)
        while self.left is not None and (move := next(self._timeless(self.left), None)) is not None:
            self._do(*move)
        return happened

    def _do(self, name: str, n: int) -> bool:
        if self.way is not None:
            self.way.append((name, self._in_all(name, n)))
        happened = super().do(name, n)
        if not happened and self.way is not None:
            self.way.pop()
        super().do("begin save")
        return happened

    def _in_all(self, name: str, n: int) -> int:
        """The same subject's number where nothing is left out."""
        keys = self.stale() if name == "refresh" else []
        return super().stale().index(keys[n % len(keys)]) if keys else n

    def advance(self, s: Starting) -> None:
        self.machine.now += TICK_S
        super().advance(s)

    # ---- hints

    def hints(self) -> Sequence[int]:
        """One of those about the same container: what was said of it tells nothing that a look does not."""
        first: dict[EngineId, int] = {}
        for n in super().hints():
            first.setdefault(self.engine.hints[n][0], n)
        return list(first.values())

    def stale(self) -> list[Key]:
        """A spec is read anew just before it is used, or overwritten: when before that, nobody can tell."""
        found = super().stale()
        return found if self.left is None else [key for key in found if self._matters(key, self.left)]

    def _matters(self, key: Key, left: Mapping[str, int]) -> bool:
        e = self.engine
        used = {c.engine_id for c in e.calls if c.kind is CallKind.START and not c.executed}
        if left.get("raw start"):
            used.update(made.id for made in self.startable())
        if any(made.key == key and made.id in used for made in e.made.values()):
            return True
        return any(
            t.order.key == key and t.stage <= _SPEC for t in self.local() if isinstance(t.order, Permit | Withdraw)
        )

    # ---- what need not wait

    def _timeless(self, left: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """What nobody can tell when it happens, by name and number."""
        d, e = self.daemon, self.engine
        lasting = e.up and not left.get("engine dies")
        harmless = lasting and not left.get("raw start")
        if d is None or not d.up:
            # Files and listing stay as they are, and a crash now is as good as one before.
            if harmless and not (e.calls or e.starting or self.unnoticed()):
                yield "boot" if d is None else "settle", 0
            return
        for n, task in enumerate(self.local()):
            if isinstance(task.order, LookAt) and self._may_look(task, task.order, left, lasting=lasting):
                yield "step", n
        if left.get("crash"):
            return
        # When an order is let go shows in its first step alone; a call is sent to the engine that is there then.
        if d.saving is not None and (lasting or not any(isinstance(effect, CALLS) for _, effect in d.queue)):
            yield "end save", 0
        if harmless:
            yield from self._unhindered(left)

    def _may_look(self, t: Task, o: LookAt, left: Mapping[str, int], *, lasting: bool) -> bool:
        """Whether what its next step sees stays as it is; a crash takes what was seen with it."""
        e = self.engine
        if t.stage >= _LOOKED:
            return bool(o.slots) and t.stage == _LOOKED  # no card is opened in an explored world
        by_name = t.stage == 0 and o.engine_id is None
        if (by_name or t.stage == _ASKS_ENGINE) and not lasting:
            return False
        named = e.by_name(o.name) if by_name else None
        engine_id = (named.id if named is not None else None) or t.engine_id or o.engine_id or EngineId("")
        if not e.keeps_running or self._busy(engine_id, o.name):
            return False
        made = e.made.get(engine_id)
        return made is None or (not made.starved and not (left.get("raw start") and self._could_start(made)))

    def _busy(self, engine_id: EngineId, name: str) -> bool:
        """Whether the engine was asked for anything about this container, or one before it, and has not ended that."""
        e = self.engine
        asked = any(c.engine_id == engine_id or c.name == name for c in e.calls)
        return asked or any(s.made.id == engine_id for s in e.starting)

    def _could_start(self, made: Made) -> bool:
        """Whether more than a refusal comes of a person's `docker start`, while its permission stays as it is."""
        there = made.key in self.machine.specs or made.key in self.engine.cache
        return made.status is not EngineStatus.RUNNING and there

    def _unhindered(self, left: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """What the daemon has ordered, where nobody else can do anything any more."""
        d, e = self.daemon, self.engine
        assert d is not None
        waited_for = {c.order.id for c in d.state.containers if c.order is not None}
        for n, call in enumerate(c for c in e.calls if e.can_execute(c)):
            others = [*(c.engine_id for c in e.calls if c is not call), *(s.made.id for s in e.starting)]
            alone = call.order in waited_for and call.engine_id not in others
            match call.kind:
                case CallKind.CREATE if alone:
                    yield "execute", n
                case CallKind.STOP if alone and not any(left.get(name) for name in _HARDER):
                    yield "execute", n
                case CallKind.START if alone and call.engine_id is not None:
                    made = e.made.get(call.engine_id)
                    if made is not None and self._fresh(made.key):
                        yield "execute", n
                case _:
                    pass
        for n, start in enumerate(e.starting):
            if start.call is not None and start.call.order in waited_for and not start.orphan:
                yield "advance", n

    def _fresh(self, key: Key) -> bool:
        """Whether the engine's cache holds what is on disk."""
        return self.engine.cache.get(key) is self.machine.specs.get(key)
