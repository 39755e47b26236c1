"""Waiting for an operation on behalf of a caller who may hang up; the operation goes on without him."""

from ds01d.api import people
from ds01d.api.desk import Caller, Desk
from ds01d.model.errors import Pending
from ds01d.model.operation import Operation, OperationState

#: Seconds after which it is looked whether the caller is still there.
_SLICE_S = 2.0


class StillGoing(Pending):
    """Not finished in the time the caller gave it; carries the operation that goes on."""

    def __init__(self, operation: Operation) -> None:
        super().__init__(
            f"cannot say yet what came of it: the {operation.verb} of {operation.container_name} goes on"
            f" as operation {operation.id}{f' ({operation.stage})' if operation.stage else ''}",
            hint=f"it goes on by itself, and `container-why {operation.container_name}` says how far it is;"
            f" programs wait with operation.wait and the id {operation.id}",
        )
        self.operation = operation.id


async def for_end(desk: Desk, caller: Caller, operation: Operation, patience_s: float) -> Operation:
    """The operation as it is after its end, or after that time, or when the caller hung up."""
    mind = desk.mind
    until = mind.now() + patience_s
    while operation.state is OperationState.PENDING and not caller.gone():
        left = until - mind.now()
        if left <= 0:
            break
        operation = await mind.finished(operation.id, min(left, _SLICE_S))
    return operation


async def for_success(desk: Desk, caller: Caller, operation: Operation, patience_s: float) -> Operation:
    """The operation once it went well; refuses with its own words where it failed, and says so where it goes on."""
    ended = await for_end(desk, caller, operation, patience_s)
    if ended.failure is not None:
        raise people.refusal(ended.failure)
    if ended.state is OperationState.PENDING and patience_s > 0:
        raise StillGoing(ended)
    return ended
