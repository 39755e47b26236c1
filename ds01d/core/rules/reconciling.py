"""The ledger is held against what is seen, outside of releases: after every hint, listing and restart.

Hints and listings only say where to look; a look moves the record, and none of the moves in here frees a slot.
"""

from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core.events import EngineAnswered, EngineHinted, EngineSilent, Looked, Relisted
from ds01d.core.moves import back_off, bind, fail, remove_when_free, run_ended, seen_running, under_another_engine
from ds01d.core.moves import engine_failure as failure_of
from ds01d.core.state import State
from ds01d.core.tx import Tx
from ds01d.model.allocation import Allocation
from ds01d.model.container import Container, Permission, Phase, Then
from ds01d.model.facts import CgroupStatus, EngineStatus, Look
from ds01d.model.ids import ContainerId

#: What a container that is not ours does before it uses a GPU: a listing tells which, before the slot is given away.
_BEGINS = frozenset({"start", "restart", "unpause"})
#: Until a listing tells of it, operators are shown a container that is no more, and its slots go to nobody.
_ENDS = frozenset({"die", "destroy"})
_GHOSTLY = frozenset({EngineStatus.ABSENT, EngineStatus.CREATED, EngineStatus.STOPPED})
#: What the engine says of a container in each phase when nothing has happened.
_EXPECTED = {
    Phase.STOPPED: frozenset({EngineStatus.CREATED, EngineStatus.STOPPED}),
    Phase.RUNNING: frozenset({EngineStatus.RUNNING}),
}


def doubted(tx: Tx, container: ContainerId, *, at_once: bool = True) -> None:
    """Something was said about a container: look, and after a hint do not wait with it."""
    c = tx.state.containers.get(container)
    if c is not None:
        tx.change(c, look=True, retry_at=None if at_once else c.retry_at)


def strange(tx: Tx, e: EngineHinted) -> None:
    """One that is not ours begins to run, or one that operators are told of ends: a listing at once, not in turn."""
    sight = tx.state.sight
    told_of = e.engine_id in sight.unaccounted or e.engine_id in sight.foreign_on
    if e.action in _BEGINS or (told_of and e.action in _ENDS):
        tx.emit(do.Relist())


def doubtful(state: State, e: Relisted) -> list[ContainerId]:
    """Where the listing and the ledger do not agree; what changed since it was asked for is skipped."""
    listed = {x.engine_id: x for x in e.containers}
    found = []
    for c in state.containers:
        if c.order is not None or c.engine_id is None or state.changed_at.get(c.id, 0) > e.revision:
            continue
        seen = listed.get(c.engine_id)
        status = EngineStatus.ABSENT if seen is None else seen.status
        cgroup = CgroupStatus.UNKNOWN if seen is None else seen.cgroup
        running = status is EngineStatus.RUNNING
        ghost = not running and cgroup is CgroupStatus.OCCUPIED
        dead = running and cgroup is CgroupStatus.EMPTY
        if ghost or dead or status not in _EXPECTED.get(c.phase, _EXPECTED[Phase.STOPPED]):
            found.append(c.id)
    return found


def torn(state: State, e: Relisted) -> list[ContainerId]:
    """Whose permission does not lie on disk as it was written, whoever took it away."""
    if e.permissions is None:
        return []
    whole = {
        (p.key, p.container_id, p.generation) for p in e.permissions if p.has_grant and p.has_spec and not p.trouble
    }
    return [
        c.id
        for c in state.containers
        if c.permission is Permission.PRESENT
        and c.order is None
        and state.changed_at.get(c.id, 0) <= e.revision
        and (c.key, c.engine_id, c.generation) not in whole
    ]


def write_again(tx: Tx, container: ContainerId) -> None:
    """Its permission is completed as it was."""
    c = tx.state.containers.get(container)
    if c is not None:
        tx.change(c, permission=Permission.UNSURE)


def silent(tx: Tx, e: EngineSilent) -> None:
    """Nothing is concluded from silence; it is only noted since when, and why it lasts."""
    sight = tx.state.sight
    since = sight.silent_since if sight.silent_since is not None else tx.now
    if (since, e.reason) != (sight.silent_since, sight.silent_why):
        tx.see(replace(sight, silent_since=since, silent_why=e.reason))


def answered(tx: Tx, e: EngineAnswered) -> None:
    """The engine is back, or another one is there in its place."""
    before = tx.state.sight.engine
    sight = tx.state.sight
    heard_until = sight.silent_since if before is not None and e.restarted else sight.heard_until
    tx.see(replace(sight, engine=e.engine, silent_since=None, silent_why="", heard_until=heard_until))
    if before is not None and before.name != e.engine.name:
        tx.emit(
            do.Alert(text=f"another engine answers ({e.engine.name}): it proves nothing about what {before.name} made")
        )


def interrupted(tx: Tx, container: ContainerId) -> None:
    """Its engine was down: what ran may have gone down with it, and is to run again."""
    c = tx.state.containers.get(container)
    if c is not None and c.engine_id is not None:
        tx.change(c, look=True, retry_at=None, interrupted=c.interrupted or c.phase is Phase.RUNNING)


def looked(tx: Tx, c: Container, a: Allocation | None, e: Looked) -> None:
    """A look moves the record to what is true."""
    look = e.look
    if look.status is EngineStatus.STRANGE and c.stray and not c.blocks:
        # Its engine is no more, and nothing of ours hangs on it: it was only remembered to be removed.
        tx.change(c, engine_id=None)
        return
    if look.status in {EngineStatus.SILENT, EngineStatus.STRANGE} and not (
        look.status is EngineStatus.STRANGE and c.engine_gone
    ):
        tx.change(c, look=True, attempts=c.attempts + 1, retry_at=tx.now + back_off(c.attempts))
        return
    if look.ghost and not c.stray:
        tx.change(c, ghost=e.order)
        tx.emit(
            do.Alert(container=c.id, text=f"{c.name} of {c.user} runs on while the engine says {look.status}: ended")
        )
        return
    over = look.status in _GHOSTLY or look.status is EngineStatus.STRANGE
    if look.cgroup is not CgroupStatus.EMPTY and over and c.phase is not Phase.CREATING:
        # Its last processes are going, or cannot be read: neither the one nor the other yet.
        tx.change(c, look=True, attempts=c.attempts + 1, retry_at=tx.now + back_off(c.attempts, least=0.1))
        return
    match look.status:
        case EngineStatus.RUNNING:
            _running(tx, c, a, look)
        case EngineStatus.ABSENT | EngineStatus.STRANGE:
            _absent(tx, c)
        case EngineStatus.CREATED | EngineStatus.STOPPED:
            _not_running(tx, c, look)


def _running(tx: Tx, c: Container, a: Allocation | None, look: Look) -> None:
    match c.phase:
        case Phase.RUNNING | Phase.STARTING:
            attempts = c.attempts
            c = seen_running(tx, c, look, "running" if c.phase is Phase.STARTING else "")
            nobody = look.cgroup is CgroupStatus.EMPTY or look.init_alive is False
            if nobody:
                assert c.engine_id is not None
                tx.emit(do.CutSessions(engine_id=c.engine_id))
            if nobody or c.cgroup is None:
                # Between two rounds of a restart loop there is no process, and so no cgroup that could be told.
                tx.change(c, look=True, attempts=attempts + 1, retry_at=tx.now + back_off(attempts))
        case Phase.STOPPED:
            _raw_start(tx, c, a, look)
        case Phase.REMOVING:
            tx.change(c, phase=Phase.STOPPING, then=Then.REMOVE, attempts=0, retry_at=None, kill=False, grace_s=10.0)
        case Phase.CREATING | Phase.STOPPING:
            pass


def _raw_start(tx: Tx, c: Container, a: Allocation | None, look: Look) -> None:
    if a is not None:
        bind(tx, a)
        seen_running(tx, c, look, "started from outside")
    elif c.wants_gpu and not c.stray:
        words = "runs without an allocation: only root of the host can do that"
        if c.violation is None:
            tx.emit(do.Alert(container=c.id, text=f"{c.name} of {c.user} {words}"))
        tx.change(seen_running(tx, c, look, words), violation=words)
    else:
        seen_running(tx, c, look, "started from outside")


def _not_running(tx: Tx, c: Container, look: Look) -> None:
    match c.phase:
        case Phase.RUNNING if look.status is EngineStatus.CREATED and not c.interrupted:
            tx.emit(do.Alert(container=c.id, text=f"{c.name} was running, and the engine says that it never ran"))
            run_ended(tx, c, look)
        case Phase.RUNNING | Phase.STOPPING:
            run_ended(tx, c, look)
        case Phase.STARTING:
            if under_another_engine(look):
                words = f"{c.name} went down with the engine, which was restarted in the middle of its start"
                hint = f"start it again: `container-start {c.name}`"
            else:
                words = f"{c.name} started and ended at once, exit code {look.exit_code}"
                hint = f"`container-why {c.name}` tells more"
            fail(tx, c, failure_of("engine", words, hint))
            run_ended(tx, c, look)
        case Phase.REMOVING if c.stray and look.status is EngineStatus.STOPPED:
            # It has run meanwhile, and what ran is never removed unasked.
            tx.change(c, phase=Phase.STOPPED)
        case Phase.STOPPED if c.attempts or c.engine_gone:
            # The engine that made it says so: an operator's word that it is gone was too early.
            tx.change(c, attempts=0, engine_gone=False)
        case _:
            pass


def _absent(tx: Tx, c: Container) -> None:
    """Destroyed from outside. That alone frees nothing."""
    if c.phase is Phase.CREATING:
        return
    a = tx.state.allocation_of(c.id)
    if c.phase is not Phase.REMOVING:
        fail(tx, c, failure_of("not_found", f"{c.name} was removed from outside"))
        tx.emit(do.Tell(uid=c.uid, container=c.id, text=f"{c.name} was removed from outside"))
        c = remove_when_free(tx, c, "removed from outside")
    if a is None and not c.blocks:
        tx.change(c, engine_id=None)
