"""Plays a story told in text: each block is what happens, then `----`, then what the core made of it.

What can happen: `create start stop remove release` by a user, `do` (the outstanding order is carried out as a healthy
world would), `do all`, `fail` and `lose` (an order fails, or its answer is lost), `wait`, `see`, `raw start`, `ends`,
`raw rm`, `hint`, `ghost`, `engine silent`, `engine answers`, `process`, `leaves`, `restart`.
"""

from collections.abc import Callable

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.core import Outcome
from ds01d.core.moves import slot_names
from ds01d.core.tx import Change, Tx
from ds01d.model.allocation import NEVER, Allocation
from ds01d.model.container import Container
from ds01d.model.gpu import Slot
from ds01d.model.ids import EngineId
from ds01d.model.operation import Operation
from tests.core.world import World, process, whole


class Told(World):
    """A world that writes down what the core makes of each event."""

    def __init__(self, cards: int) -> None:
        self.lines: list[str] = []
        super().__init__(*(whole(n) for n in range(cards)))
        self.lines.clear()

    def tell(self, event: ev.Event) -> Outcome:
        outcome = super().tell(event)
        if outcome.refused is not None:
            self.lines.append(f"refused  {outcome.refused.kind}: {outcome.refused.message}")
        self.lines += [line for change in outcome.changes if (line := self._change(change))]
        self.lines += [line for effect in outcome.effects if (line := self._effect(effect))]
        return outcome

    def _change(self, change: Change) -> str:
        match change.old, change.new:
            case Container(name=name), None:
                return f"save     {name}: gone"
            case Container(phase=before), Container(phase=now) if before is now:
                return ""
            case _, Container() as c:
                return f"save     {c.name}: {c.phase} ({c.why})"
            case Allocation() as a, None:
                return f"save     {self._slots(a)}: free"
            case Allocation(claim=before), Allocation(claim=now) if before is now:
                return ""
            case _, Allocation() as a:
                return f"save     {self._slots(a)}: {a.claim}{self._until(a)}"
            case _, Slot(drained=str() as why) as slot:
                return f"save     {slot.name}: drained ({why})"
            case Operation(state=before), Operation() as o if before is not o.state:
                words = o.failure.message if o.failure is not None else o.outcome
                return f"answer   {o.verb} {o.container_name}: {o.state} ({words})"
            case _:
                return ""

    def _slots(self, a: Allocation) -> str:
        return f"GPU {slot_names(Tx(self.state, self.now), a.slots)}"

    def _until(self, a: Allocation) -> str:
        if a.deadline is None:
            return ""
        return " without an end" if a.deadline >= NEVER else f" for {a.deadline - self.now:g} s"

    def _effect(self, effect: do.Effect) -> str:
        match effect:
            case do.Finished():
                return ""
            case do.Tell():
                return f"tell     {effect.text}"
            case do.Alert():
                return f"alert    {effect.text}"
            case do.CutSessions():
                return "order    cut sessions"
            case do.Relist():
                return "order    list"
            case do.Order():
                words = {"LookAt": "look at", "KillGhost": "end the ghost of"}
                verb = words.get(type(effect).__name__, type(effect).__name__.removesuffix("Container").lower())
                c = self.state.containers.get(effect.container)
                return f"order    {verb} {c.name if c is not None else effect.container}"


class Stage:
    """The words of a story, as acts on a world."""

    def __init__(self) -> None:
        self.world = Told(2)
        self.ids: dict[str, str] = {}

    def play(self, line: str) -> list[str]:
        """One line of a story; gives what came of it."""
        self.world.lines.clear()
        words = line.split()
        act = self._acts().get(words[0])
        if act is None:
            raise ValueError(f"a story cannot say {line!r}")
        act(*words[1:])
        return list(self.world.lines)

    def _acts(self) -> dict[str, Callable[..., object]]:
        world = self.world
        return {
            "gpus": self._gpus,
            "create": world.ask_create,
            "start": lambda user, name: world.ask_start(self._named(name), user),
            "stop": lambda user, name, *how: world.ask_stop(self._named(name), user, release="release" in how),
            "remove": lambda user, name, *how: world.ask_remove(self._named(name), user, force="force" in how),
            "release": lambda name: world.ask_release(self._named(name)),
            "do": self._do,
            "fail": lambda name, *why: world.failed(self._named(name), " ".join(why)),
            "lose": lambda name: world.uncertain(self._named(name)),
            "wait": lambda seconds: world.wait(float(seconds)),
            "see": world.see,
            "raw": self._raw,
            "ends": lambda name, code="0": self._ends(name, int(code)),
            "hint": lambda name, action: world.hint(self._named(name), action),
            "ghost": lambda name: world.ghosts.add(self._engine(name)),
            "engine": self._engine_is,
            "process": lambda gpu: world.see(processes=(process(int(gpu)),)),
            "restart": self._restart,
        }

    def _gpus(self, count: str) -> None:
        self.world = Told(int(count))

    def _do(self, how: str = "") -> None:
        world = self.world
        if how == "all":
            world.oblige()
            return
        assert world.orders, "nothing is outstanding"
        world.answer(next(iter(world.orders.values())))

    def _raw(self, what: str, name: str) -> None:
        if what == "start":
            self.world.starts(self._engine(name))
        else:
            self.world.engine.pop(self._engine(name))

    def _ends(self, name: str, code: int) -> None:
        self.world.ends(self._engine(name), code)

    def _engine_is(self, how: str) -> None:
        self.world.silent = how == "silent"
        event = ev.EngineSilent(reason="no answer within 5 s")
        if self.world.silent:
            self.world.tell(event)
        else:
            engine = self.world.state.sight.engine
            assert engine is not None
            self.world.tell(ev.EngineAnswered(engine=engine, restarted=False))

    def _restart(self) -> None:
        self.world.restart()

    def _named(self, name: str) -> Container:
        return next(c for c in self.world.state.containers if c.name == name)

    def _engine(self, name: str) -> EngineId:
        engine_id = self._named(name).engine_id
        assert engine_id is not None
        return engine_id


def play(text: str) -> str:
    """A whole story, with what comes of it now in the place of what stands there."""
    stage, out, skipping = Stage(), [], False
    answers: list[str] = []
    for line in text.splitlines():
        if line == "----":
            out += [line, *answers]
            answers, skipping = [], True
        elif not line.strip():
            out.append(line)
            skipping = False
        elif not skipping:
            out.append(line)
            if not line.startswith("#"):
                answers += stage.play(line)
    assert not answers, "the last block lacks its ----"
    return "\n".join(out) + "\n"
