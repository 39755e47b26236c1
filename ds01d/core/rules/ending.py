"""A container is stopped, parked or removed on request. What the engine shows afterwards is the success."""

from ds01d.core import effects as do
from ds01d.core.events import Failed, ReleaseRequested, RemoveRequested, ShellsLeft, StopRequested
from ds01d.core.moves import back_off, engine_failure, fail, release, remove_when_free
from ds01d.core.requests import open_operation, repeated, target
from ds01d.core.settling import CUT_AFTER_S
from ds01d.core.tx import Tx
from ds01d.model.allocation import Claim
from ds01d.model.container import Container, OrderName, Phase, Then
from ds01d.model.errors import Denied, WrongPhase
from ds01d.model.facts import CgroupStatus, Look
from ds01d.model.ids import OperationId
from ds01d.model.operation import Verb


def stop_requested(tx: Tx, e: StopRequested) -> OperationId:
    """Stop it; a stopped one is stopped, and only gives its slots back if that was asked."""
    earlier = repeated(tx, e.actor, e.request_id)
    if earlier is not None:
        return earlier
    c = target(tx, e.actor, e.container)
    a = tx.state.allocation_of(c.id)
    grace_s = tx.state.policy.sigterm_grace if e.grace_s is None else e.grace_s
    why = f"stopped by {e.actor.name}"
    match c.phase:
        case Phase.CREATING | Phase.REMOVING:
            raise WrongPhase(f"cannot stop {c.name}: it is {c.phase}")
        case Phase.STARTING | Phase.RUNNING | Phase.STOPPING:
            begin(tx, c, grace_s, Then.PARK if e.release else Then.HOLD, why)
        case Phase.STOPPED:
            if e.release and a is not None and a.claim is Claim.HELD:
                release(tx, a, f"released by {e.actor.name}")
    verb = Verb.RELEASE if e.release else Verb.STOP
    return open_operation(tx, e.actor, verb, c, e.request_id, stage="stopping")


def begin(tx: Tx, c: Container, grace_s: float, then: Then, why: str) -> Container:
    """Send a running container towards its end. What was asked for more strongly before is not forgotten."""
    again = c.phase is Phase.STOPPING
    if again and c.then is not Then.HOLD and then is Then.HOLD:
        then = c.then
    harder = again and grace_s < c.grace_s
    # The engine takes a second stop while it waits in the first: it is not waited for, and its answer tells nothing.
    waiting = harder and c.order is not None and c.order.name is OrderName.STOP
    return tx.change(
        c,
        phase=Phase.STOPPING,
        then=then,
        grace_s=min(grace_s, c.grace_s) if again else grace_s,
        order=None if waiting else c.order,
        # Counted from the new stop; an old one stands as it was.
        cut_at=None if harder or not again else c.cut_at,
        interrupted=False,
        attempts=0,
        retry_at=None,
        why=why,
    )


def shells_left(tx: Tx, e: ShellsLeft) -> None:
    """Everybody has left and nothing runs any more: stop it, so that its hold begins."""
    c = tx.state.containers.one("engine_id", e.engine_id)
    if c is not None and c.phase is Phase.RUNNING and not c.frozen and not c.stray:
        begin(tx, c, tx.state.policy.sigterm_grace, Then.HOLD, "its last shell was left, and nothing else ran")


def remove_requested(tx: Tx, e: RemoveRequested) -> OperationId:
    """Remove it; a running one only when that is said, and never before its slots are proved unused."""
    earlier = repeated(tx, e.actor, e.request_id)
    if earlier is not None:
        return earlier
    c = target(tx, e.actor, e.container)
    why = f"removed by {e.actor.name}"
    match c.phase:
        case Phase.CREATING:
            raise WrongPhase(f"cannot remove {c.name}: it is still being created", hint="try again in a moment")
        case Phase.STARTING | Phase.RUNNING | Phase.STOPPING:
            if not e.force:
                raise WrongPhase(
                    f"cannot remove {c.name}: it is {c.phase}",
                    hint=f"stop it with `container-stop {c.name}`, or do both with `container-cleanup -f {c.name}`",
                )
            begin(tx, c, tx.state.policy.sigterm_grace, Then.REMOVE, why)
        case Phase.STOPPED:
            remove_when_free(tx, c, why)
        case Phase.REMOVING:
            pass
    return open_operation(tx, e.actor, Verb.REMOVE, c, e.request_id, stage="removing")


def release_requested(tx: Tx, e: ReleaseRequested) -> OperationId:
    """An operator ends a hold; his word that an engine is gone counts only with the cgroup empty and NVML clean."""
    earlier = repeated(tx, e.actor, e.request_id)
    if earlier is not None:
        return earlier
    if not e.actor.operator:
        raise Denied("cannot end this hold: only operators may", hint="yours ends with `container-stop NAME --release`")
    c = target(tx, e.actor, e.container)
    a = tx.state.allocation_of(c.id)
    if c.phase in {Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.CREATING} and not e.engine_gone:
        raise WrongPhase(
            f"cannot release {c.name}: it is {c.phase}",
            hint=f"stop it and free its slots with `container-stop {c.name} --user {c.user} --release`",
        )
    if e.engine_gone:
        engine = tx.state.sight.engine
        if engine is None or engine.name == c.engine:
            raise WrongPhase(f"cannot take {c.name}'s engine for gone: it is the one that answers now")
        moved = Phase.STOPPED if c.phase is not Phase.REMOVING else c.phase
        if c.phase is Phase.CREATING:
            raise WrongPhase(f"cannot release {c.name}: it is still being created", hint="try again in a minute")
        c = tx.change(
            c,
            phase=moved,
            engine_gone=True,
            look=c.engine_id is not None,
            attempts=0,
            retry_at=None,
            why=f"released by {e.actor.name}",
        )
    if a is not None and a.claim is not Claim.RELEASING:
        release(tx, a, f"released by {e.actor.name}")
    return open_operation(tx, e.actor, Verb.RELEASE, c, e.request_id, stage="releasing")


def stop_failed(tx: Tx, c: Container, e: Failed) -> None:
    """The engine did not stop it: look first, then the harder way."""
    attempts = c.attempts + 1
    tx.change(c, look=True, kill=True, attempts=attempts, retry_at=tx.now + back_off(attempts - 1, least=0.5))
    if attempts == 3:  # noqa: PLR2004  # lifecycle.md §1, move 13
        tx.emit(do.Alert(container=c.id, text=f"cannot stop {c.name} of {c.user}: {e.message}"))


def stop_answered(tx: Tx, c: Container) -> None:
    """The engine says that it has stopped; a look has the last word."""
    tx.change(c, look=True, attempts=c.attempts + 1)


def still_running(tx: Tx, c: Container, look: Look) -> None:
    """A look at a container being stopped found it running: started again, held back by its sessions, or stubborn."""
    asked_at = None if c.cut_at is None else c.cut_at - c.grace_s - CUT_AFTER_S
    if asked_at is not None and look.started_at > asked_at:
        failure = engine_failure("wrong_phase", f"{c.name} was started again from outside while it was being stopped")
        fail(tx, c, failure, Verb.STOP, Verb.RELEASE, Verb.REMOVE)
        seen = tx.change(
            c, phase=Phase.RUNNING, then=Then.HOLD, kill=False, cut_at=None, attempts=0, why="started from outside"
        )
        tx.change(seen, started_at=look.started_at, cgroup=look.cgroup_path or c.cgroup)
    elif look.init_alive is False or look.cgroup is CgroupStatus.EMPTY:
        assert c.engine_id is not None
        tx.emit(do.CutSessions(engine_id=c.engine_id))
        tx.change(c, look=True, attempts=c.attempts + 1, retry_at=tx.now + back_off(c.attempts, least=0.5))
    elif c.attempts:
        tx.change(c, kill=True, retry_at=tx.now + back_off(c.attempts, least=0.5))


def remove_failed(tx: Tx, c: Container, e: Failed) -> None:
    """It holds no slot any more, so there is time: look, and try again."""
    attempts = c.attempts + 1
    tx.change(c, look=True, attempts=attempts, retry_at=tx.now + back_off(attempts - 1))
    if attempts == 3:  # noqa: PLR2004  # the same patience as for a stop
        fail(
            tx,
            c,
            engine_failure("engine", f"cannot remove {c.name} yet: {e.message}", "it is tried again until it goes"),
        )
        tx.emit(do.Alert(container=c.id, text=f"cannot remove {c.name} of {c.user}: {e.message}"))
