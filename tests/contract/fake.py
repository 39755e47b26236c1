"""The simulation's engine as the contract asks for it: its hands and its eyes without a mind, in its own time.

Nothing is left to chance here. Whatever can happen happens at once, but the engine reads a new permission only when
time passes.
"""

from collections.abc import Callable
from typing import Final

from ds01d.core import events as ev
from ds01d.core.core import Outcome
from ds01d.core.effects import AnyOrder
from ds01d.core.events import Answer, Event
from ds01d.model.ids import EngineId, Key, OrderId
from ds01d.model.policy import Policy
from tests.sim.daemon import Daemon, Setup
from tests.sim.engine import Call, CallKind, Starting
from tests.sim.machine import Grant
from tests.sim.play import Play

#: Seconds that pass when nothing can happen without them.
TICK_S: Final = 0.05
#: What happens by itself, in the order in which it is looked for; `advance` and `refresh` have rules of their own.
_BY_ITSELF: Final = ("execute", "obeys", "notice", "step", "answer", "hint", "silence", "listing")


class Mindless(Daemon):
    """What a daemon would be told is written down instead."""

    def __init__(self, play: Play) -> None:
        self.told: list[Event] = []
        super().__init__(
            play.machine, play.engine, play.disk, Policy(groups={}), setup=play.setup, watch=play.judge.watch
        )
        self.up = True

    def tell(self, event: Event) -> Outcome:
        self.told.append(event)
        return Outcome()


class FakeWorld:
    """A machine without cards, an engine and the hands on it, all of the simulation's making."""

    def __init__(self) -> None:
        self.play = Play(Setup(cards=()))
        self.daemon = self.play.daemon = Mindless(self.play)
        self._hangs: dict[Key, float] = {}
        #: When the processes of a start appeared.
        self._began: dict[Starting, float] = {}

    # --- what happens

    def wait(self, seconds: float) -> None:
        end = self.play.machine.now + seconds
        self._settle()
        while self.play.machine.now < end:
            self._tick()

    def _until(self, done: Callable[[], bool]) -> None:
        self._settle()
        while not done():
            self._tick()

    def _tick(self) -> None:
        self.play.wait(TICK_S)
        while self.play.do("refresh"):
            pass
        self._settle()

    def _settle(self) -> None:
        while self._advance() or self._reconnect() or any(self.play.do(name) for name in _BY_ITSELF):
            pass

    def _advance(self) -> bool:
        """One step of a start that does not hang."""
        now = self.play.machine.now
        for s in self.play.engine.starting:
            began = self._began.setdefault(s, now) if s.proc is not None and s.proc.alive else now
            if s.proc is None or not s.proc.alive or now >= began + self._hangs.get(s.made.key, 0.0):
                self.play.advance(s)
                return True
        return False

    def _reconnect(self) -> bool:
        """A stream that opens again asks for a listing."""
        came = self.play.do("reconnect")
        if came:
            self.daemon.ask_listing()
        return came

    # --- the contract

    def perform(self, order: AnyOrder) -> Answer:
        return self.perform_while(order, None)

    def perform_while(self, order: AnyOrder, accident: Callable[[], None] | None) -> Answer:
        self.daemon.hands.take(order)
        if accident is not None:
            self.wait(1)
            accident()
        self._until(lambda: self._answer(order.order) is not None)
        answer = self._answer(order.order)
        assert answer is not None
        self.daemon.told.remove(answer)
        return answer

    def _answer(self, order: OrderId) -> Answer | None:
        answers = (e for e in self.daemon.told if isinstance(e, ev.Done | ev.Failed | ev.Uncertain | ev.Looked))
        return next((e for e in answers if e.order == order), None)

    def posted(self) -> list[Event]:
        self._settle()
        told, self.daemon.told = self.daemon.told, []
        return told

    def engine_id_of(self, name: str) -> EngineId:
        made = self.play.engine.by_name(name)
        assert made is not None
        return made.id

    def raw_start(self, engine_id: EngineId) -> str:
        call = Call(CallKind.START, None, engine_id)
        assert self.play.engine.send(call)
        self._until(lambda: call.result is not None)
        assert call.result is not None
        return call.result

    def raw_create(self, name: str, key: Key | None = None) -> EngineId:
        return self.play.engine.raw_create(name, key or Key("")).id

    def forge_generation(self, key: Key) -> None:
        grants = self.play.machine.grants
        old = grants[key]
        grants[key] = Grant(old.engine_id, f"{old.generation}9", old.slots, old.devices)

    def hold_starts(self, key: Key, seconds: float) -> None:
        self._hangs[key] = seconds
        self.wait(0.5)

    def kill_engine(self) -> None:
        self.play.engine_dies()
        self.wait(0.5)
        self.play.do("engine comes")

    def processes_in(self, engine_id: EngineId) -> int:
        return len(self.play.machine.cgroups.get(engine_id, {}))
