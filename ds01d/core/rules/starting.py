"""A container is started: on the slots it holds, or on new ones, named in its permission before the engine is asked."""

from ds01d.core import effects as do
from ds01d.core.admitting import admit
from ds01d.core.events import DIRECTORY_GONE, DIRECTORY_MOVED, Failed, StartRequested, Uncertain
from ds01d.core.moves import HOLD_AFTER_FAILURE_S, back_off, bind, engine_failure, fail, hold, promise
from ds01d.core.requests import open_operation, repeated, target
from ds01d.core.settling import contested, pending
from ds01d.core.tx import Tx
from ds01d.model.allocation import Claim
from ds01d.model.container import Container, Permission, Phase, Then
from ds01d.model.errors import NoneFree, Refused, WrongPhase
from ds01d.model.facts import EngineStatus, Look
from ds01d.model.ids import OperationId
from ds01d.model.operation import Verb

#: How often a start is tried while the engine's view of a permission runs behind, and the pause between (seconds).
TRIES_MAX = 6
PAUSE_S = 0.25


def requested(tx: Tx, e: StartRequested) -> OperationId:
    """Refuse, or start; a start in the middle of a release waits for its end and then asks anew."""
    earlier = repeated(tx, e.actor, e.request_id)
    if earlier is not None:
        return earlier
    c = target(tx, e.actor, e.container)
    a = tx.state.allocation_of(c.id)
    match c.phase:
        case Phase.CREATING | Phase.STOPPING | Phase.REMOVING:
            raise WrongPhase(
                f"cannot start {c.name}: it is {c.phase}", hint=f"`container-why {c.name}` says what it waits for"
            )
        case Phase.RUNNING if c.wants_gpu and a is None:
            words = c.violation or "runs without an allocation"
            raise WrongPhase(f"cannot start {c.name}: it {words}", hint=f"stop it first: `container-stop {c.name}`")
        case Phase.RUNNING | Phase.STARTING:
            pass
        case Phase.STOPPED if c.stray:
            # What it may do and whose it is, nobody knows: no permission is written for it.
            raise WrongPhase(
                f"cannot start {c.name}: it has no record, and is here only until its slots are proved unused",
                hint="`docker inspect` tells an operator what it is",
            )
        case Phase.STOPPED:
            if a is None or a.claim is not Claim.RELEASING:
                begin(tx, c)
    waits = a is not None and a.claim is Claim.RELEASING
    stage = "waiting until its old slots are released" if waits else "starting"
    return open_operation(tx, e.actor, Verb.START, c, e.request_id, stage=stage)


def begin(tx: Tx, c: Container) -> None:
    """Send a stopped container on its way; a parked one asks for slots like anybody else."""
    a = tx.state.allocation_of(c.id)
    if a is not None:
        if contested(tx.state, c, a):
            raise NoneFree(
                f"cannot start {c.name}: its GPU is in use by a container that the ledger does not know",
                hint="an operator finds it in `ds01ctl status`",
            )
        bind(tx, a)
    elif c.spec.gpus is not None:
        slots = admit(tx.state, tx.now, c.uid, c.user, c.spec.gpus)
        promise(tx, c, tuple(slot.id for slot in slots), Claim.BOUND)
    tx.change(
        c,
        phase=Phase.STARTING,
        then=Then.HOLD,
        attempts=0,
        retry_at=None,
        trouble=None,
        renewed=False,
        why="being started",
    )


def waited(tx: Tx, c: Container) -> None:
    """Its release is over: whoever asked for a start meanwhile gets an answer now."""
    if c.phase is not Phase.STOPPED or not pending(tx.state, c.id, Verb.START):
        return
    try:
        begin(tx, c)
    except Refused as no:
        fail(tx, c, no.failure, Verb.START)


def failed(tx: Tx, c: Container, e: Failed) -> None:
    """The engine would not; what is true now, the next look tells."""
    if c.phase is not Phase.STARTING:
        tx.change(c, look=True)
    elif e.again and c.attempts < TRIES_MAX:
        tx.change(c, attempts=c.attempts + 1, retry_at=tx.now + PAUSE_S * (c.attempts + 1))
    elif e.kind == DIRECTORY_MOVED and not c.renewed:
        # A file system that was mounted anew has another number; a permission tells the one of the day it was written.
        tx.change(c, renewed=True, permission=Permission.UNSURE, generation="", withdraw=True)
    else:
        tx.change(c, trouble=_words(c, e), attempts=TRIES_MAX, look=True)


def unanswered(tx: Tx, c: Container, e: Uncertain) -> Container:
    """It may have been started, or not; if it comes to nothing, these are the words for it."""
    return tx.change(c, trouble=e.message or c.trouble)


def _words(c: Container, e: Failed) -> str:
    if e.kind in {DIRECTORY_MOVED, DIRECTORY_GONE}:
        hint = f"put it back, or `container-cleanup {c.name}` and create it anew; what is in the directory stays"
        return f"{_on_the_host(c, e.message)}\n{hint}"
    return f"{e.message}\n{e.hint}" if e.hint else e.message


def _on_the_host(c: Container, words: str) -> str:
    """What became of a directory, with its path on the host first, whichever side the engine spoke of."""
    for mount in c.spec.mounts:
        for path in (mount.target, mount.source):
            if words.startswith(f"{path} "):
                return f"{mount.source}, its {mount.target}, {words.removeprefix(path).lstrip()}"
    return words


def not_running(tx: Tx, c: Container, look: Look) -> None:
    """A look at a container that should be starting found it not running, and that it did not run meanwhile."""
    a = tx.state.allocation_of(c.id)
    if a is not None and a.lost:
        c = tx.change(c, trouble="its GPU is gone")
    elif c.attempts < TRIES_MAX:
        tx.change(c, attempts=c.attempts + 1, retry_at=None if c.attempts == 0 else tx.now + back_off(c.attempts - 1))
        return
    message, _, hint = (c.trouble or "the engine did not start it, and does not say why").partition("\n")
    failure = engine_failure(
        "engine", f"cannot start {c.name}: {message}", hint or f"`container-why {c.name}` tells more"
    )
    fail(tx, c, failure, Verb.START)
    why = f"could not be started: {message}"
    tx.change(c, phase=Phase.STOPPED, attempts=0, retry_at=None, trouble=None, interrupted=False, why=why)
    if a is not None:
        hold(tx, a, max(a.fallback or 0.0, tx.now + HOLD_AFTER_FAILURE_S))
    assert look.status is not EngineStatus.RUNNING


def permit_failed(tx: Tx, c: Container, e: Failed) -> None:
    """The permission cannot be written: a start waits for it a while, and is then called off; the write is not."""
    attempts = c.attempts + 1
    tx.change(c, attempts=attempts, retry_at=tx.now + back_off(attempts - 1))
    if attempts == 3:  # noqa: PLR2004  # the patience of every retry
        words = f"cannot write the permission of {c.name}: {e.message}"
        failure = engine_failure("cannot_save", words, e.hint or "an operator has to look at /run/cdi and /run/ds01")
        fail(tx, c, failure, Verb.CREATE, Verb.START)
        tx.emit(do.Alert(container=c.id, text=words))
        a = tx.state.allocation_of(c.id)
        now = tx.state.containers.rows[c.id]
        if now.phase is Phase.STARTING:
            tx.change(now, phase=Phase.STOPPED, why=words)
            if a is not None:
                hold(tx, a, max(a.fallback or 0.0, tx.now + HOLD_AFTER_FAILURE_S))
