"""The moves that several rules make: to hold, to take back, to end a run; container and allocation stay in step."""

from ds01d.core import effects as do
from ds01d.core.settling import pending
from ds01d.core.tx import Tx
from ds01d.model.allocation import NEVER, Allocation, Claim
from ds01d.model.container import Container, Phase, Then
from ds01d.model.errors import BY_KIND, EngineTrouble, NotFound, Refused
from ds01d.model.facts import Look
from ds01d.model.ids import AllocationId, SlotId
from ds01d.model.operation import Failure, Verb

#: A hold of 0 still lasts this long, so that `docker restart` finds its slots; seconds.
HOLD_MIN_S = 10.0
#: An end so shortly (seconds) before an engine's silence may have come by what silenced it: an engine that is told to
#: stop gives containers 15 s, and then keeps open connections, our event stream among them, for another 5 s.
HEARD_SLACK_S = 22.0
#: Two readings of when the same engine came up differ by so many seconds at most: the clock is set meanwhile.
SAME_ENGINE_S = 0.2
#: What a failed start leaves of a hold at least; seconds.
HOLD_AFTER_FAILURE_S = 300.0
#: Exit codes of SIGKILL and SIGTERM: what `docker kill`, `docker stop` and the kernel short of memory leave.
_KILLED = {137: "was killed", 143: "was terminated"}


def hold_until(start: float, hold_s: float | None) -> float:
    """When a hold that begins at `start` ends; None: never."""
    return NEVER if hold_s is None else start + max(hold_s, HOLD_MIN_S)


def back_off(attempts: int, *, least: float = 1.0, most: float = 30.0) -> float:
    """Seconds to wait after so many failures in a row."""
    return float(min(most, least * 2 ** min(attempts, 10)))


def slot_names(tx: Tx, slots: tuple[SlotId, ...]) -> str:
    """Slots as people write them, joined."""
    found = [tx.state.slots.get(s) for s in slots]
    return ",".join(slot.name if slot is not None else "?" for slot in found)


def promise(tx: Tx, c: Container, slots: tuple[SlotId, ...], claim: Claim) -> None:
    """Write the promise of these slots to a container down."""
    made = Allocation(
        id=AllocationId(tx.new_id()),
        container=c.id,
        uid=c.uid,
        user=c.user,
        slots=slots,
        gpueq=sum(tx.state.slots.rows[s].gpueq for s in slots),
        claim=claim,
        since=tx.now,
    )
    tx.put(tx.state.allocations, made.id, made)


def hold(tx: Tx, a: Allocation, deadline: float) -> None:
    """Keep the slots for a stopped container until then; what is gone is not worth keeping."""
    if a.lost:
        release(tx, a, "its GPU is gone")
        return
    tx.claim(a, claim=Claim.HELD, deadline=deadline, fallback=None)


def bind(tx: Tx, a: Allocation) -> None:
    """The slots are in use, or about to be; remember the hold's end for a start that fails."""
    fallback = a.deadline if a.claim is Claim.HELD else a.fallback
    tx.claim(a, claim=Claim.BOUND, deadline=None, fallback=fallback, lingering=None, lingering_since=None)


def release(tx: Tx, a: Allocation, reason: str) -> None:
    """Begin to take the slots back; they are free only once it is proved that nobody can use them."""
    tx.claim(a, claim=Claim.RELEASING, deadline=None, fallback=None, reason=reason)


def freed(tx: Tx, a: Allocation) -> None:
    """It is proved that nobody can use these slots."""
    tx.put(tx.state.allocations, a.id, None)


def remove_when_free(tx: Tx, c: Container, why: str) -> Container:
    """Send a container towards its removal; one that holds slots gives them back first."""
    a = tx.state.allocation_of(c.id)
    c = tx.change(
        c, phase=Phase.REMOVING, then=Then.REMOVE, why=why, kill=False, cut_at=None, retry_at=None, attempts=0
    )
    if a is not None and a.claim is not Claim.RELEASING:
        release(tx, a, why)
    return c


def run_ended(tx: Tx, c: Container, look: Look) -> None:
    """A run is over, by whatever; what follows was asked for, or is the hold."""
    a = tx.state.allocation_of(c.id)
    policy = tx.state.policy
    again = c.phase is Phase.RUNNING and policy.containers.restart_after_boot
    went_down = c.interrupted or _over_before_engine(look) or _told_by_a_successor(tx, look)
    again = again and went_down and not _ended_before_silence(tx, look)
    then, phase = c.then, c.phase
    why = {Phase.STOPPING: c.why or "stopped"}.get(phase, _ended(look.exit_code))
    if phase is Phase.STARTING and under_another_engine(look):
        why = "ended with the engine, which was restarted"
    if again and (a is not None or not c.wants_gpu) and not (a is not None and a.lost):
        again_at = {"started_at": look.started_at, "attempts": 0, "renewed": False}
        tx.change(c, phase=Phase.STARTING, interrupted=False, cgroup=None, **again_at)
        return
    c = tx.change(
        c,
        phase=Phase.STOPPED,
        finished_at=look.finished_at,
        started_at=max(c.started_at, look.started_at),
        exit_code=look.exit_code,
        interrupted=False,
        kill=False,
        cut_at=None,
        grace_s=0.0,
        then=Then.HOLD,
        attempts=0,
        retry_at=None,
        trouble=None,
        violation=None,
        why=why,
    )
    if a is not None and a.claim is Claim.BOUND:
        if then is Then.PARK:
            release(tx, a, why)
        elif then is Then.HOLD:
            limits = policy.limits(c.uid)
            ended = look.finished_at or tx.now
            hold(tx, a, hold_until(min(ended, tx.now), limits.gpu_hold_after_stop))
            if phase is Phase.RUNNING:
                tx.emit(do.Tell(uid=c.uid, container=c.id, text=f"{c.name} {why}"))
    if then is Then.REMOVE:
        remove_when_free(tx, c, why)


def under_another_engine(look: Look) -> bool:
    """Whether a run began before the engine that tells of its end came up."""
    return 0 < look.started_at < look.engine_since


def _over_before_engine(look: Look) -> bool:
    """Whether a run was over before the engine that tells of it came up: a look may be quicker than that news."""
    return 0 < look.finished_at < look.engine_since


def _told_by_a_successor(tx: Tx, look: Look) -> bool:
    """Whether an engine tells of a run's end that came up after it began, and that we do not know of yet.

    An engine that finds containers running which it did not keep ends them itself, after it has come up.
    """
    sight = tx.state.sight
    known = sight.engine.since if sight.engine is not None and sight.silent_since is not None else 0.0
    return 0 < known < look.engine_since - SAME_ENGINE_S and under_another_engine(look)


def _ended_before_silence(tx: Tx, look: Look) -> bool:
    """Whether a run was over before its engine went down: then it ended by itself, and is not run again."""
    sight = tx.state.sight
    heard = sight.silent_since if sight.silent_since is not None else sight.heard_until
    return heard is not None and 0 < look.finished_at < heard - HEARD_SLACK_S


def _ended(code: int | None) -> str:
    """How a run ended that nobody asked us to end; 128 and the number of a signal: somebody else ended it."""
    if code is None:
        return "ended by itself"
    killed = _KILLED.get(code)
    return f"ended by itself with exit code {code}" if killed is None else f"{killed} (exit code {code})"


def seen_running(tx: Tx, c: Container, look: Look, why: str = "") -> Container:
    """The engine shows it running: note which run this is."""
    return tx.change(
        c,
        phase=c.phase if c.phase is Phase.STOPPING else Phase.RUNNING,
        started_at=look.started_at,
        cgroup=look.cgroup_path or c.cgroup,
        attempts=0,
        trouble=None,
        interrupted=False,
        engine_gone=False,
        why=why or c.why,
    )


def fail(tx: Tx, c: Container, failure: Failure, *verbs: Verb) -> None:
    """Tell those who wait for a container why it will not be."""
    for op in pending(tx.state, c.id, *verbs):
        tx.finish(op, "", failure)


def engine_failure(kind: str, message: str, hint: str = "") -> Failure:
    """The outside's words as a failure that a caller can be given."""
    known = BY_KIND.get(kind, EngineTrouble)
    return Failure(kind=known.kind, message=message, hint=hint)


def refuse_stranger(uid: int, c: Container | None, *, operator: bool, name: str) -> Container:
    """The container, if this person may know of it."""
    if c is None or (c.uid != uid and not operator):
        raise NotFound(f"cannot find a container called {name}", hint="see yours with `container-list`")
    return c


def refusal_of(failure: Failure) -> Refused:
    """A kept failure as the refusal that it was."""
    return BY_KIND.get(failure.kind, EngineTrouble)(failure.message, hint=failure.hint)
