"""A world held still: kept as bytes, brought back, and known again when another way leads to it.

Two worlds count as the same when nothing that may still happen could tell them apart: what only counts up (ids,
revisions, serial numbers) is compared by its order, and so are times; what is to come comes at no time of its own.
Finished operations are left out, because no move of the explorer asks for one again.
"""

import hashlib
import io
import pickle
import re
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec

from ds01d.core import effects as do
from ds01d.core.snapshot import load
from ds01d.core.state import State
from ds01d.core.table import Table
from ds01d.model.ids import EngineId, OperationId
from ds01d.model.operation import OperationState
from tests.sim.daemon import Copy, Daemon, Listing, void
from tests.sim.engine import Call, Made, Starting
from tests.sim.hands import Hands, Task
from tests.sim.machine import Grant, Proc
from tests.sim.play import Play

#: Lines and values that need not be taken apart again.
_REMEMBERED = 200_000
_encode = msgspec.json.Encoder().encode
#: Values that never change once made: a still refers to them, and does not copy them.
_LASTING = (msgspec.Struct, Enum, State, Copy, Grant)


class Still(NamedTuple):
    """A world as bytes, and the values that they refer to."""

    body: bytes
    lasting: list[object]


class _Pickler(pickle.Pickler):
    def __init__(self, out: io.BytesIO) -> None:
        super().__init__(out, protocol=5)
        self.lasting: list[object] = []
        self._numbers: dict[int, int] = {}

    def reducer_override(self, thing: object) -> Any:  # noqa: ANN401  # what pickle asks for
        if not isinstance(thing, _LASTING):
            return NotImplemented
        number = self._numbers.get(id(thing))
        if number is None:
            number = self._numbers[id(thing)] = len(self.lasting)
            self.lasting.append(thing)
        return _fetch, (number,)


#: What the still that is being brought back refers to.
_fetched: list[object] = []


def _fetch(number: int) -> object:
    return _fetched[number]


_OF_DAEMON = frozenset({"machine", "engine", "disk", "watch", "hands"})
#: What every part knows of the others.
_OF_WORLD = frozenset({"machine", "engine", "disk", "watch"})
_OF_HANDS = ("tasks", "ghosts", "written")
_OF_SCENE = ("asked", "foreigners", "words", "last")


def keep(play: Play) -> Still:
    """The world as it is now. Its state must not be changed after that: a world that was brought back has its own."""
    d = play.daemon
    daemon = None
    if d is not None:
        daemon = (
            type(d),
            {k: v for k, v in vars(d).items() if k not in _OF_DAEMON},
            [getattr(d.hands, name) for name in _OF_HANDS],
        )
    parts = (
        vars(play.machine),
        {k: v for k, v in vars(play.engine).items() if k != "machine"},
        vars(play.disk),
        {k: v for k, v in vars(play.judge).items() if k not in _OF_WORLD},
        [getattr(play, name) for name in _OF_SCENE],
        daemon,
    )
    out = io.BytesIO()
    pickler = _Pickler(out)
    pickler.dump(parts)
    return Still(out.getvalue(), pickler.lasting)


def bring_back(play: Play, still: Still, *, for_the_core: bool = True) -> None:
    """Make this world what that one was; what the core does not hear of needs no state of its own."""
    machine, engine, disk, judge, scene, daemon = _loads(still)
    vars(play.machine).update(machine)
    vars(play.engine).update(engine)
    vars(play.disk).update(disk)
    vars(play.judge).update(judge)
    for name, value in zip(_OF_SCENE, scene, strict=True):
        setattr(play, name, value)
    play.daemon = None
    if daemon is None:
        return
    kind, fields, hands = daemon
    d = play.daemon = object.__new__(kind)
    vars(d).update(fields, machine=play.machine, engine=play.engine, disk=play.disk, watch=play.judge.watch)
    if for_the_core:
        d.state = _copy(d.state)
    d.hands = Hands(play.machine, play.engine, lambda answer: void(d.tell(answer)), odd_cgroups=play.setup.odd_cgroups)
    for name, value in zip(_OF_HANDS, hands, strict=True):
        setattr(d.hands, name, value)


def _loads(still: Still) -> Any:  # noqa: ANN401  # what pickle gives
    _fetched[:] = still.lasting
    return pickle.loads(still.body)  # noqa: S301  # made by `keep` above


def _copy(state: State) -> State:
    new = object.__new__(State)
    vars(new).update(vars(state))
    new.tables = {name: _copy_table(table) for name, table in state.tables.items()}
    vars(new).update(new.tables)
    new.changed_at = dict(state.changed_at)
    new._deadlines = list(state._deadlines)  # a copy is the same thing again
    return new


def _copy_table(table: "Table[Any, Any]") -> "Table[Any, Any]":
    new: Table[Any, Any] = object.__new__(Table)
    for slot in Table.__slots__:
        setattr(new, slot, getattr(table, slot))
    new.rows, new.encoded, new._words = dict(table.rows), dict(table.encoded), dict(table._words)
    new._buckets = {
        name: {word: dict(ids) for word, ids in buckets.items()} for name, buckets in table._buckets.items()
    }
    return new


# ---- known again

#: What is due later than this is not due while a world is explored.
SOON_S = 0.05
_TOKEN = re.compile(r"L\d+[-.]\d+|1[89]\d{8}\.\d+|[RP]\d+;")


def mark(play: Play, *, mortal: bool) -> bytes:
    """The same for two worlds that nothing can tell apart; otherwise another one.

    What is saved matters only where the daemon is mortal: nobody else ever reads it.
    """
    skeletons: list[int] = []
    tokens: list[str] = []
    for line in _lines(play, mortal=mortal):
        skeleton, found = _cut(line)
        skeletons.append(skeleton)
        tokens += found
    d = play.daemon
    next_id = _lowest(play) if mortal or d is None else d.state.counter
    names = _names(set(tokens), play.machine.now, next_id)
    whole = f"{skeletons}{[names[token] for token in tokens]}"
    return hashlib.blake2b(whole.encode(), digest_size=12).digest()


#: Said to people and decided upon by nobody.
_SAID = re.compile(r'"(?:why|outcome)":"(?:[^"\\\\]|\\\\.)*"|"exit_code":\w+')

#: After so many failures in a row only the time until the next attempt differs, and no time passes.
_MANY = re.compile(r'"attempts":(?:[6-9]|\d\d+)')

_skeletons: dict[str, int] = {}


@lru_cache(maxsize=_REMEMBERED)
def _cut(line: str) -> tuple[int, tuple[str, ...]]:
    """A line without its tokens, as a number, and the tokens."""
    line = _MANY.sub('"attempts":many', _SAID.sub("", line))
    bare = _TOKEN.sub("?", line)
    return _skeletons.setdefault(bare, len(_skeletons)), tuple(_TOKEN.findall(line))


def _lowest(play: Play) -> int:
    """The counter from which a successor would go on."""
    main = play.disk.main
    return 0 if main is None else _saved(main.body).counter


def _names(tokens: set[str], now: float, saved: int) -> dict[str, str]:
    """What stands for each token. An id above the saved counter may come round again: it keeps its distance."""
    names: dict[str, str] = {}
    ids: list[tuple[int, str]] = []
    ranked: dict[str, list[tuple[float, str]]] = {"R": [], "P": [], "1": []}
    for token in tokens:
        if token[0] == "L":
            ids.append((_number(token), token))
        else:
            ranked[token[0]].append((_value(token), token))
    for kind, found in ranked.items():
        found.sort()
        for rank, (value, token) in enumerate(found):
            names[token] = "later" if kind == "1" and value - now > SOON_S else f"{kind}{rank}"
    below = sorted({n for n, _ in ids if n <= saved})
    rank_of = {n: str(rank) for rank, n in enumerate(below)}
    for n, token in ids:
        names[token] = f"{_lineage(token)}{rank_of.get(n) or f'+{n - saved}'}"
    return names


@lru_cache(maxsize=_REMEMBERED)
def _number(token: str) -> int:
    return int(re.split("[-.]", token)[1])


@lru_cache(maxsize=_REMEMBERED)
def _lineage(token: str) -> str:
    """The lineage, and whether it is a record's id or a generation."""
    return token.rstrip("0123456789")


@lru_cache(maxsize=_REMEMBERED)
def _value(token: str) -> float:
    return float(token) if token[0] == "1" else float(token[1:-1])


def _lines(play: Play, *, mortal: bool) -> list[str]:
    m, e, d = play.machine, play.engine, play.daemon
    calls = {id(call): n for n, call in enumerate(e.calls)}
    lines = [
        *(f"proc P{p.serial}; {p.container} {p.slots} {p.guarded}{p.visible}{p.obeyed}" for p in m.procs.values()),
        f"now {m.now} {play.asked}",
        f"known {[f'P{n};' for n in sorted(m.known)]} {m.blind} {m.boots} {m.lingering} {m.foreign}",
        *(f"card {c.n} {c.minor} {c.mig} {c.lost}" for c in m.cards),
        *(f"grant {k} {_grant(g)}" for k, g in sorted(m.grants.items())),
        *(f"spec {k} {_grant(g)}" for k, g in sorted(m.specs.items())),
        *(f"cache {k} {m.specs.get(k) is g} {_grant(g)}" for k, g in sorted(e.cache.items())),
        f"engine {e.up} {e.restarts} {e.installed} {_hearsay(play)}",
        *(_made(made) for made in e.made.values()),
        *(f"starting {_starting(s, calls)}" for s in e.starting),
        *(f"call {_call(call)}" for call in e.calls),
    ]
    if mortal or d is None:
        lines += _disk(play)
    if d is None:
        return [*lines, f"wanted {sorted(play.judge.to_stop)} {sorted(play.judge.to_remove)}"]
    return [*lines, *_daemon(play, d, calls, mortal=mortal)]


def leeway(play: Play) -> tuple[int, ...]:
    """In what worlds with the same mark may differ: where each is as much or more, the same and more can go wrong.

    That is how many hints each container of ours still has on their way, for they may be lost; and whether nobody wants
    it stopped, or removed, for then the judge allows less.
    """
    d, hints, judge = play.daemon, play.engine.hints, play.judge
    if d is None:
        return ()
    said: list[EngineId | None] = [who for who, _ in hints]
    ours = list(d.state.containers)
    unheard = [said.count(c.engine_id) for c in ours]
    return (*unheard, *(c.id not in judge.to_stop for c in ours), *(c.id not in judge.to_remove for c in ours))


def _hearsay(play: Play) -> list[tuple[str, str]]:
    """Hints about what the ledger does not know; of those about what it knows what they say is not heard."""
    ours = {c.engine_id for c in play.daemon.state.containers} if play.daemon is not None else set()
    return sorted(hint for hint in play.engine.hints if hint[0] not in ours)


def _grant(g: Grant) -> str:
    return f"{g.engine_id} {g.generation} {g.slots} {g.devices}"


def _made(made: Made) -> str:
    proc = _proc(made.proc)
    times = f"{made.started_at} {made.finished_at} {made.exit_code}"
    return f"made {made.id} {made.name} {made.key} {made.status} {times} {proc} {made.unread}"


def _proc(proc: Proc | None) -> str:
    return "-" if proc is None else f"P{proc.serial};" if proc.alive else "dead"


def _starting(s: Starting, calls: dict[int, int]) -> str:
    call = calls.get(id(s.call)) if s.call is not None else None
    return f"{s.made.id} {call} {_grant(s.spec)} {s.slots} {_proc(s.proc)} {s.orphan}"


def _call(call: Call) -> str:
    return f"{call.kind} {call.order} {call.engine_id} {call.name} {call.key} {call.executed} {call.result}"


def _disk(play: Play) -> list[str]:
    disk = play.disk
    main = None if disk.main is None else _copied(disk.main)
    kept = frozenset[OperationId]() if disk.main is None else _saved(disk.main.body).finished
    promised = [operation for operation in disk.answered if operation not in kept]
    return [f"disk {main} {disk.broken} {disk.restored} {disk.full} {disk.lineages} {promised}"]


def _copied(copy: Copy) -> str:
    return f"{copy.lineage} {copy.boot_id} R{copy.revision}; {_saved(copy.body).told}"


class _Saved(NamedTuple):
    """What a saved state may still mean to anybody."""

    counter: int
    told: str
    finished: frozenset[OperationId]


@lru_cache(maxsize=_REMEMBERED)
def _saved(body: bytes) -> _Saved:
    state = load(body, lineage="")
    finished = frozenset(o.id for o in state.operations if o.state is not OperationState.PENDING)
    return _Saved(state.counter, told(state), finished)


def _daemon(play: Play, d: Daemon, calls: dict[int, int], *, mortal: bool) -> list[str]:
    ahead = d.state.counter - _lowest(play) if mortal else 0
    silent = (do.Tell, do.Alert) if mortal else (do.Tell, do.Alert, do.Finished)
    lines = [
        f"daemon {ahead} {d.up} {d.failing} {d.silent} {d.knows} R{d.saved}; {d.foreign_told}",
        f"saving {None if d.saving is None else _copied(d.saving) if mortal else f'R{d.saving.revision};'}",
        f"listing {None if d.listing is None else _listing(d.listing)}",
        *(f"queue R{revision}; {_effect(effect)}" for revision, effect in d.queue if not isinstance(effect, silent)),
        *(_task(task, calls) for task in d.hands.tasks.values()),
        *(f"ghost {c} {order} {[_proc(p) for p in procs]}" for c, (order, procs) in d.hands.ghosts.items()),
        *(f"written {who} {when}" for who, when in d.hands.written.items()),
        f"state {d.state.lineage} {d.state.lineages} R{d.state.revision}; {d.state.settled}",
        *_records(d.state),
        _encode(d.state.sight).decode(),
        *(f"changed {c} R{revision};" for c, revision in d.state.changed_at.items()),
    ]
    if not d.up:
        lines.append(f"first {d.first_engine} {d.first_listing}")
    return lines


def _listing(listing: Listing) -> str:
    return f"R{listing.revision}; {listing.seen} {listing.foreign} {listing.permissions}"


def _effect(effect: msgspec.Struct) -> str:
    return f"{type(effect).__name__} {_encode(effect).decode()}"


def _task(t: Task, calls: dict[int, int]) -> str:
    call = calls.get(id(t.call)) if t.call is not None else None
    sent = None if t.call is None else (call, t.call.executed, t.call.result, t.call.engine_id, t.unheard)
    look = (t.engine_id, t.astray, [_proc(p) for p in t.held], t.status, t.made, t.cgroup, t.seen)
    return f"task {_effect(t.order)} {t.due} {t.stage} {t.answered} {t.stuck} {t.recent} {sent} {look}"


def told(state: State) -> str:
    """The records, without those that nobody asks for any more."""
    return " ".join(_records(state))


def _records(state: State) -> list[str]:
    tables = (state.containers, state.allocations, state.slots)
    lines = [record.decode() for table in tables for record in table.encoded.values()]
    return [*lines, *(_encode(o).decode() for o in state.operations if o.state is OperationState.PENDING)]
