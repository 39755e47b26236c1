"""A small world with somebody who says what happens next: for histories with a plot."""

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.core import Outcome
from ds01d.core.state import State
from ds01d.model.allocation import Allocation, Claim
from ds01d.model.container import Container, Phase
from tests.sim.daemon import Setup
from tests.sim.ending import work
from tests.sim.hands import Task
from tests.sim.play import Play
from tests.sim.scene import actor


class Stage:
    """One card, one user, one container, and somebody who says what happens next."""

    def __init__(self, *, users: int = 1, cards: tuple[int, ...] = (0,), odd_cgroups: bool = False) -> None:
        self.play = Play(Setup(cards=cards, users=users, each=1, odd_cgroups=odd_cgroups))
        self.said: list[str] = []
        quiet = self.play.judge.watch

        def watch(state: State, event: ev.Event, outcome: Outcome) -> None:
            self.said += [e.text for e in outcome.effects if isinstance(e, do.Alert | do.Tell)]
            quiet(state, event, outcome)

        self.play.judge.watch = watch  # type: ignore[method-assign]  # the same judge, who also takes notes
        self.once("boot", "settle")
        self.work()

    def work(self) -> None:
        work(self.play)

    def work_without(self, move: str) -> None:
        """The same, with the engine or the disk behind in one thing."""
        work(self.play, without=move)

    def once(self, *moves: str) -> None:
        """These things happen, one after the other."""
        for move in moves:
            assert self.play.do(move), f"{move} cannot happen now"

    def save(self) -> None:
        self.once("begin save", "end save")

    def crash_and_recover(self) -> None:
        self.once("crash", "boot", "settle")
        self.settle_down()

    def settle_down(self) -> None:
        """A few seconds pass, with all work done."""
        for _ in range(6):
            self.work()
            self.play.wait(1.0)
        self.work()

    def task(self, kind: type) -> Task:
        assert self.play.daemon is not None
        return next(t for t in self.play.daemon.hands.tasks.values() if isinstance(t.order, kind))

    def step(self, kind: type, times: int = 1) -> None:
        """The hand that carries out an order of this kind makes so many steps."""
        for _ in range(times):
            self.play.step(self.task(kind))

    # ---- what is

    @property
    def container(self) -> Container:
        assert self.play.daemon is not None
        return next(iter(self.play.daemon.state.containers))

    @property
    def allocation(self) -> Allocation | None:
        assert self.play.daemon is not None
        return self.play.daemon.state.allocation_of(self.container.id)

    def stands(self) -> tuple[Phase, Claim | None]:
        a = self.allocation
        return self.container.phase, a.claim if a is not None else None

    @property
    def on_disk(self) -> tuple[bool, bool]:
        key, m = self.container.key, self.play.machine
        return key in m.grants, key in m.specs

    def running(self) -> int:
        """How many processes of it run."""
        return sum(p.guarded for p in self.play.machine.procs.values())

    # ---- given

    def created(self, user: int = 0) -> None:
        self.play.create(user)
        self.work()

    def parked(self) -> None:
        self.created()
        self.ask_start()
        self.work()
        assert self.stands() == (Phase.RUNNING, Claim.BOUND)
        c = self.container
        self.play.ask(ev.StopRequested(actor=actor(c.uid), container=c.id, release=True))
        self.work()
        assert self.stands() == (Phase.STOPPED, None)

    def ask_start(self) -> None:
        c = self.container
        self.play.once_seen()
        self.play.ask(ev.StartRequested(actor=actor(c.uid), container=c.id))
