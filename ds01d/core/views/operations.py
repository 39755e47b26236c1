"""Operations as those who asked for them are shown them."""

import msgspec

from ds01d.core.state import State
from ds01d.model.allocation import Claim
from ds01d.model.ids import Uid
from ds01d.model.operation import Failure, Operation, OperationState, Verb


class OperationView(msgspec.Struct, frozen=True, kw_only=True):
    """A request on its way, or what came of it."""

    id: str
    verb: Verb
    container: str
    state: OperationState
    created_at: float
    stage: str = ""
    finished_at: float | None = None
    outcome: str = ""
    failure: Failure | None = None
    request_id: str | None = None


def view(o: Operation) -> OperationView:
    """One operation."""
    return OperationView(
        id=o.id,
        verb=o.verb,
        container=o.container_name,
        state=o.state,
        created_at=o.created_at,
        stage=o.stage,
        finished_at=o.finished_at,
        outcome=o.outcome,
        failure=o.failure,
        request_id=o.request_id,
    )


def list_of(state: State, uid: Uid, *, everybody: bool) -> tuple[OperationView, ...]:
    """One user's operations, or everybody's, the newest first."""
    chosen = state.operations if everybody else state.operations.of("uid", uid)
    return tuple([view(o) for o in sorted(chosen, key=lambda o: -o.created_at)])


class Hindrance(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation waits for that does not depend on us, and what can be done about it."""

    why: str
    do: str = ""


#: An engine that is restarted is silent for a few seconds, which is no reason to give anybody up.
RESTART_S = 6.0


def hindrance(state: State, o: Operation, now: float) -> Hindrance | None:
    """What stands in the way of an operation for as long as it may last; None: nothing that we know of."""
    sight, a = state.sight, state.allocation_of(o.container)
    c = state.containers.get(o.container)
    if c is not None and c.frozen:
        return Hindrance(
            why=f"its record was set aside: {c.why}", do=f"an operator looks with `ds01ctl story {c.name}`"
        )
    if sight.silent_since is not None and now >= sight.silent_since + RESTART_S:
        why = f"the engine does not answer: {sight.silent_why}"
        return Hindrance(why=why, do="`systemctl status docker` tells an operator why")
    if c is None or a is None or a.claim is not Claim.RELEASING:
        return None
    if sight.blind is not None:
        why = f"its GPU is not free before that is proved, and the GPUs cannot be seen: {sight.blind}"
        return Hindrance(why=why, do="`ds01ctl status` tells an operator more")
    if a.lingering is not None:
        return Hindrance(
            why=f"its GPU is not free yet: {a.lingering}", do="an operator sees more with `fuser -v /dev/nvidia*`"
        )
    return Hindrance(why=c.why) if c.attempts > 1 else None
