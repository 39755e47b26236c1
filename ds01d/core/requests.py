"""What every request has in common: who may ask, the same request asked twice, and the operation it becomes."""

from ds01d.core.moves import refuse_stranger
from ds01d.core.tx import Tx
from ds01d.model.actor import Actor
from ds01d.model.container import Container
from ds01d.model.errors import Frozen, TooMany
from ds01d.model.ids import ContainerId, OperationId
from ds01d.model.operation import Operation, OperationState, Verb

#: Finished operations kept per user, so that an outcome can be asked for again.
KEPT_PER_UID = 50
#: Unfinished ones at once; more than anybody needs, and few enough to be gone through at every step.
PENDING_PER_UID = 100


def repeated(tx: Tx, actor: Actor, request_id: str | None) -> OperationId | None:
    """The operation that this very request became before, if it did."""
    if request_id is None:
        return None
    earlier = tx.state.operations.one("request", (actor.uid, request_id))
    return earlier.id if earlier is not None else None


def target(tx: Tx, actor: Actor, container: ContainerId) -> Container:
    """The container that a request is about: the caller's own, or anybody's for an operator; not a frozen one."""
    c = refuse_stranger(actor.uid, tx.state.containers.get(container), operator=actor.operator, name=str(container))
    if c.frozen:
        raise Frozen(
            f"cannot change {c.name}: its record was set aside after three faults of ours",
            hint=f"an operator can take it up again with `ds01ctl thaw {c.name} --user {c.user}`",
        )
    return c


def open_operation(
    tx: Tx, actor: Actor, verb: Verb, c: Container, request_id: str | None, *, stage: str = ""
) -> OperationId:
    """Write an operation down; the oldest finished ones of its owner make room."""
    operations = tx.state.operations
    his = operations.of("uid", actor.uid)
    finished = [o for o in his if o.state is not OperationState.PENDING]
    if len(his) - len(finished) >= PENDING_PER_UID:
        raise TooMany(
            f"cannot {verb} {c.name}: {PENDING_PER_UID} requests of yours are not over yet",
            hint="`container-why NAME` says what they wait for",
        )
    for old in finished[: max(0, len(finished) - KEPT_PER_UID + 1)]:
        tx.put(operations, old.id, None)
    op = Operation(
        id=OperationId(tx.new_id()),
        uid=actor.uid,
        verb=verb,
        container=c.id,
        container_name=c.name,
        created_at=tx.now,
        request_id=request_id,
        stage=stage,
    )
    tx.put(operations, op.id, op)
    return op.id
