"""Everything that can happen next, as a table of moves: a history is a list of (move, number) and replays exactly.

Which one comes next is the player's choice: a swarm's by weights, an explorer's one after the other. A move names its
subjects, in order; the number picks one of them, and a move without subjects does nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ds01d.core import events as ev
from ds01d.model.container import Phase
from ds01d.model.facts import EngineStatus
from tests.sim.daemon import Daemon, Setup
from tests.sim.scene import OPERATOR, Scene, actor, cut_anew, leave_unread, loosen, open_cards, stick


class Move(NamedTuple):
    """One kind of thing that can happen."""

    name: str
    #: How often it is chosen, compared with the others.
    weight: float
    subjects: Callable[[], Sequence[Any]]
    do: Callable[[Any], object]
    #: It does harm; a swarm turns some of these up and others off, and at the end they are all over.
    fault: bool = False


class Play(Scene):
    """A world with its table of moves."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        table = (*self._daemon(), *self._world(), *self._people(), *self._past(), *self._faults())
        self.moves = {move.name: move for move in table}

    def do(self, name: str, n: int = 0) -> bool:
        """Make a move; False: there was nothing to make it with."""
        move = self.moves[name]
        subjects = move.subjects()
        if not subjects:
            return False
        move.do(subjects[n % len(subjects)])
        return True

    def _daemon(self) -> tuple[Move, ...]:
        """The daemon at work."""
        m, e, up = self.machine, self.engine, self.up
        return (
            Move("boot", 20, lambda: when(self.daemon is None), lambda _: self.boot()),
            Move("settle", 20, lambda: [d for d in (self.daemon,) if d is not None and not d.up], lambda d: d.settle()),
            Move("step", 60, self.local, self.step),
            Move("answer", 30, lambda: self.tasks(lambda d: d.hands.answerable()), self.answer),
            Move("begin save", 25, lambda: up(lambda d: d.unsaved and d.saving is None), lambda d: d.begin_save()),
            Move("end save", 25, lambda: up(lambda d: d.saving is not None), lambda d: d.end_save()),
            Move("wake", 15, lambda: up(lambda d: d.may_wake), lambda d: d.tell(ev.Woke())),
            Move(
                "ask listing", 0.7, lambda: up(lambda d: d.listing is None and not d.silent), lambda d: d.ask_listing()
            ),
            Move("listing", 6, lambda: up(lambda d: d.listing is not None and e.up), lambda d: d.list_step()),
            Move("picture", 2, lambda: up(lambda _: not m.blind), lambda d: d.tell(d.take_picture())),
            Move("blinded", 2, lambda: up(lambda _: m.blind), lambda d: d.tell(ev.Blinded(reason="no driver"))),
            Move("silence", 4, lambda: up(lambda d: not d.silent and not e.up), lambda d: d.notice_silence()),
            Move("reconnect", 4, lambda: up(lambda d: e.up and d.out_of_touch), lambda d: d.reconnect()),
            Move("hint", 12, self.hints, self.hear),
        )

    def _world(self) -> tuple[Move, ...]:
        """The engine, processes and time."""
        m, e = self.machine, self.engine
        return (
            Move("execute", 40, lambda: [c for c in e.calls if e.can_execute(c)], self.execute),
            Move("advance", 40, lambda: e.starting, self.advance),
            Move("refresh", 12, self.stale, self.refresh),
            Move("notice", 10, self.unnoticed, self.notice),
            Move("opens", 2, lambda: [p for p in self.guarded() if not p.visible], open_cards),
            Move("ends", 2, self.guarded, m.end),
            Move("obeys", 8, self.stopping, m.obey),
            Move("let go", 3, lambda: list(m.lingering), m.lingering.pop),
            Move("engine comes", 6, lambda: when(not e.up), lambda _: e.come_up()),
            Move("soon", 4, lambda: (0.1,), self.wait),
            Move("later", 1, lambda: (2.0,), self.wait),
            Move("much later", 0.4, lambda: (40.0,), self.wait),
            Move("deadline", 1.5, self.next_deadline, self.wait_until),
        )

    def _people(self) -> tuple[Move, ...]:
        """People who ask the daemon."""
        known, ask = self.known, self.ask
        runs = (Phase.STARTING, Phase.RUNNING, Phase.STOPPING)
        start, stop, remove, release = ev.StartRequested, ev.StopRequested, ev.RemoveRequested, ev.ReleaseRequested
        return (
            Move("create", 3, self.creators, self.create),
            Move("start", 6, lambda: known(Phase.STOPPED), lambda c: ask(start(actor=actor(c.uid), container=c.id))),
            Move("stop", 1.2, lambda: known(*runs), lambda c: ask(stop(actor=actor(c.uid), container=c.id))),
            Move(
                "park",
                0.7,
                lambda: known(Phase.STOPPED, *runs),
                lambda c: ask(stop(actor=actor(c.uid), container=c.id, release=True)),
            ),
            Move("remove", 0.4, lambda: known(*Phase), lambda c: ask(remove(actor=actor(c.uid), container=c.id))),
            Move(
                "force",
                0.3,
                lambda: known(*Phase),
                lambda c: ask(remove(actor=actor(c.uid), container=c.id, force=True)),
            ),
            Move(
                "release",
                0.3,
                lambda: known(Phase.STOPPED, Phase.REMOVING),
                lambda c: ask(release(actor=OPERATOR, container=c.id)),
            ),
            Move("engine gone", 1, self.left_behind, self.take_for_gone),
            Move("again", 0.3, self.asked_before, self.ask_again),
        )

    def _past(self) -> tuple[Move, ...]:
        """People who go past the daemon."""
        m, e = self.machine, self.engine
        not_running = (EngineStatus.CREATED, EngineStatus.STOPPED)
        return (
            Move("raw start", 1, self.startable, self.raw_start, fault=True),
            Move("raw kill", 0.7, lambda: self.raw(EngineStatus.RUNNING), e.raw_kill, fault=True),
            Move("raw rm", 0.2, lambda: self.raw(*not_running), e.raw_remove, fault=True),
            Move("borrow", 0.1, self.keys, e.borrow, fault=True),
            Move("unread", 0.5, lambda: self.raw(EngineStatus.RUNNING), leave_unread, fault=True),
            Move("stranger", 0.15, lambda: sorted(m.here() - set(m.foreign)), self.stranger, fault=True),
            Move("stranger leaves", 2, lambda: list(m.foreign), m.foreign.pop, fault=True),
        )

    def _faults(self) -> tuple[Move, ...]:
        """What goes wrong."""
        m, e, disk = self.machine, self.engine, self.disk
        return tuple(
            Move(name, weight, subjects, do, fault=not name.startswith("mended: "))
            for name, weight, subjects, do in (
                ("crash", 0.5, lambda: when(self.daemon is not None), lambda _: self.crash()),
                ("engine dies", 0.2, self.mortal, lambda _: self.engine_dies()),
                ("engine dies in a start", 3, self.begun, lambda _: self.engine_dies()),
                ("engine made anew", 0.03, lambda: when(e.up), lambda _: self.engine_made_anew()),
                ("old engine back", 0.05, self.old_engines, self.old_engine_back),
                ("wipe", 0.05, self.files, self.wipe),
                ("fault of ours", 0.1, lambda: self.up(lambda d: not d.trips), trip),
                ("reconnect unaware", 3, self.unaware, lambda d: d.reconnect(aware=False)),
                ("lose hint", 1, self.hints, e.hints.pop),
                ("break", 0.5, self.sent, self.lose_answer),
                ("repeat", 0.5, lambda: self.tasks(lambda d: d.last), self.tell_again),
                ("write fails", 0.5, self.writes, self.fail_to_write),
                ("ends, lingering", 1, self.guarded, lambda p: m.end(p, 9000)),
                ("disk full", 0.15, lambda: when(not disk.full), lambda _: self.set_full(True)),
                ("mended: disk", 3, lambda: when(disk.full), lambda _: self.set_full(False)),
                ("blind", 0.15, lambda: when(not m.blind), lambda _: self.set_blind(True)),
                ("mended: sight", 3, lambda: when(m.blind), lambda _: self.set_blind(False)),
                ("write hangs", 1, self.writes, stick),
                ("mended: write", 1, self.stuck, loosen),
                ("restore", 1, self.backups, disk.restore),
                ("file breaks", 3, self.breakable, lambda _: self.file_breaks()),
                ("reboot", 0.05, lambda: when(True), lambda _: self.reboot()),
                ("card lost", 0.05, lambda: [c for c in m.cards if not c.lost], lambda c: self.set_lost(c, True)),
                ("mended: card", 1, lambda: [c for c in m.cards if c.lost], lambda c: self.set_lost(c, False)),
                ("recut", 0.08, self.idle_cards, cut_anew),
                ("minors", 0.3, self.driver_idle, lambda _: m.swap_minors()),
            )
        )


def trip(daemon: Daemon) -> None:
    """The next record that is handled meets a fault of ours."""
    daemon.trips = True


def when(true: bool) -> Sequence[None]:
    """The one nameless subject, if so."""
    return (None,) if true else ()
