"""What a server goes through, as a list of events that can be replayed on a fresh state as often as one likes.

An obliging world makes it: containers that lie there, and lives that come and go among them, with hints, looks,
listings and pictures of the GPUs between. The core gives the same answers to the same events, so the list is made once.
"""

import random
from itertools import count
from typing import Final

import msgspec
from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core import events as ev
from ds01d.core.core import Outcome, handle
from ds01d.core.state import State
from ds01d.model.actor import Actor, Owner
from ds01d.model.container import Container, ContainerSpec, Mount
from ds01d.model.facts import Listed
from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import ContainerId, Key, Uid
from ds01d.model.policy import Policy
from ds01d.model.probe import GpuSeen, SliceSeen
from tests.core.world import FREE_HAND, World, cut, piece

GPUS: Final = 8
SLICES: Final = 7
#: Containers that run on slots, and that hold theirs, all the time.
RUNNING: Final = 20
HELD: Final = 12
#: Containers that live their lives at the same time, between one listing and the next.
ALIVE: Final = 12
#: How old a picture of the GPUs grows, seconds.
PICTURE_EVERY_S: Final = 5.0
#: A hold ends so long after a stop here, seconds.
HOLD_S: Final = 10.0

_POLICY: Final = Policy(
    groups={
        "kept": replace(FREE_HAND, gpu_hold_after_stop=None, created_timeout=None),
        "lively": replace(FREE_HAND, gpu_hold_after_stop=HOLD_S, created_timeout=None),
    },
    group_of={Uid(n): "kept" for n in range(2000, 3000)},
    default_group="lively",
)
_MOUNT: Final = Mount(source="/home/someone/workspace", target="/workspace", device=64769, inode=131_073)


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Events with their times: how the machine came to be as it is, and then what is measured."""

    given: list[tuple[float, ev.Event]]
    measured: list[tuple[float, ev.Event]]

    def fresh(self) -> State:
        """The state at which the measured part begins."""
        state = _state()
        replay(state, self.given)
        return state


def replay(state: State, events: list[tuple[float, ev.Event]]) -> None:
    """All of it, and a fault of the core is not taken for speed."""
    for at, event in events:
        if handle(state, event, at).faults:
            raise AssertionError(event)


def _state() -> State:
    state = State(lineage="L", boot_id="boot-1", policy=_POLICY)
    state.settled = True
    return state


def _slice(n: int) -> SliceSeen:
    return replace(piece(n, "1g.10gb", 1, 10_000), size=1)


def _cards() -> tuple[GpuSeen, ...]:
    return tuple(cut(n, *(_slice(s) for s in range(SLICES)), processes=()) for n in range(GPUS))


class _Scribe(World):
    """A world that writes down what it tells, and leaves the check of the whole state to the tests."""

    def __init__(self) -> None:
        self.told_so_far: list[tuple[float, ev.Event]] = []
        super().__init__(*_cards(), policy=_POLICY)
        self.dice = random.Random(4)

    def tell(self, event: ev.Event) -> Outcome:
        self.told_so_far.append((self.now, event))
        outcome = handle(self.state, event, self.now)
        for _, fault in outcome.faults:
            raise fault
        assert outcome.refused is None, outcome.refused
        self.orders |= {o.container: o for o in outcome.effects if isinstance(o, do.Order)}
        return outcome

    def make(self, uid: int, name: str, *, gpu: bool) -> Container:
        """A container that was created."""
        self._made += 1
        user = f"user{uid}"
        self.tell(
            ev.CreateRequested(
                actor=Actor(uid=Uid(uid), gid=uid, name=user, operator=False),
                owner=Owner(uid=Uid(uid), gid=uid, name=user, home=f"/home/{user}"),
                name=name,
                key=Key(f"{self._made:032x}"),
                spec=ContainerSpec(
                    image="ds01/pytorch:2.9",
                    gpus=GpuRequest() if gpu else None,
                    mounts=(_MOUNT,),
                    cgroup_parent=f"ds01-student-{user}.slice",
                ),
            )
        )
        self.oblige()
        made = self.state.containers.one("name", (uid, name))
        assert made is not None
        return made

    def run(self, c: Container) -> None:
        """Start it; the engine's stream tells of it too."""
        self.ask_start(c, c.user)
        self.oblige()
        self.look_at(c, "start")

    def end(self, c: Container, *, release: bool = False) -> None:
        """Stop it; the engine's stream tells of that too."""
        self.ask_stop(c, c.user, release=release)
        self.oblige()
        self.look_at(c, "die")

    def look_at(self, c: Container, action: str) -> None:
        """A hint, and the look that it leads to."""
        self.hint(self.fresh(c), action)
        self.oblige()

    def list_all(self) -> None:
        """A listing that agrees with the ledger."""
        listed = tuple(
            Listed(
                engine_id=c.engine_id,
                name=c.engine_name,
                status=self.engine[c.engine_id].status,
                image=c.spec.image,
                created_at=c.created_at,
                label_id=c.id,
                label_key=c.key,
                label_uid=c.uid,
                label_user=c.user,
                label_name=c.name,
            )
            for c in self.state.containers
            if c.engine_id is not None
        )
        self.tell(ev.Relisted(revision=self.state.revision, containers=listed, foreign=()))
        self.oblige()

    def _actor(self, c: Container | ContainerId, user: str | None) -> Actor:
        uid = self.fresh(c).uid
        return Actor(uid=uid, gid=int(uid), name=user or f"user{uid}", operator=False)

    def settle_in(self, containers: int) -> list[Container]:
        """The containers that are there all the time: some run, some hold, the rest is parked or without a GPU."""
        there = []
        for n in range(containers):
            c = self.make(2000 + n // 5, f"kept{n}", gpu=n % 2 == 0 or n < RUNNING + HELD)
            if n < RUNNING:
                self.run(c)
            elif n >= RUNNING + HELD:
                self.run(c)
                self.end(c, release=True)
            there.append(c)
            self.look_over()
        return there

    def lives(self, n: int, others: list[Container]) -> None:
        """Containers that are made, held over, started again and removed, and a stir among the others meanwhile."""
        made = [self.make(4000 + i, f"life{n}", gpu=True) for i in range(ALIVE)]
        for c in made:
            self.run(c)
        for c in made:
            self.look_at(self.dice.choice(others), "exec_die")
            self.end(c)
        self.now += HOLD_S
        self.look_over()
        for c in made:
            self.look_at(self.dice.choice(others), "exec_die")
            self.run(c)
        for c in made:
            self.end(c, release=True)
            self.ask_remove(c, c.user)
            self.oblige()
            self.look_over()
        self.list_all()

    def look_over(self) -> None:
        """What is due is due, and the GPUs are looked at when the last picture grows old."""
        while (due := self.state.next_deadline()) is not None and due <= self.now:
            self.tell(ev.Woke())
            self.oblige()
        seen_at = self.state.sight.seen_at
        if seen_at is not None and self.now - seen_at > PICTURE_EVERY_S:
            self.see()


def record(containers: int, events: int) -> Traffic:
    """So many containers that lie there, and so many events (or a few more) among them."""
    scribe = _Scribe()
    others = scribe.settle_in(containers)
    given, scribe.told_so_far = scribe.told_so_far, []
    for n in count():
        if len(scribe.told_so_far) >= events:
            break
        scribe.lives(n, others)
    return Traffic(given=given, measured=scribe.told_so_far)


def relisting(containers: int) -> tuple[State, ev.Relisted, float]:
    """A state with so many containers, a listing that agrees with it, and a moment for it to come."""
    scribe = _Scribe()
    scribe.settle_in(containers)
    scribe.list_all()
    listing = next(event for _, event in reversed(scribe.told_so_far) if isinstance(event, ev.Relisted))
    return scribe.state, listing, scribe.now
