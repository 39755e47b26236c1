"""Operations as those who asked for them are shown them."""

import msgspec

from ds01d.core.state import State
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
