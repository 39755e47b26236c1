"""`operation.*`: what became of a request that took longer than its caller waited."""

import msgspec

from ds01d.api import people, waiting
from ds01d.api.desk import Caller, Desk
from ds01d.api.params import Id, Listing, Params, Patience
from ds01d.core.views import operations
from ds01d.core.views.operations import OperationView
from ds01d.model.errors import NotFound
from ds01d.model.ids import OperationId
from ds01d.model.operation import Operation


class OperationParams(Params, frozen=True, kw_only=True):
    """Which operation."""

    id: Id


class WaitParams(OperationParams, frozen=True, kw_only=True):
    """Which operation, and how long to wait for its end."""

    timeout_s: Patience = 70.0


class OperationList(msgspec.Struct, frozen=True, kw_only=True):
    """Operations, the newest first."""

    operations: tuple[OperationView, ...]


async def get(desk: Desk, caller: Caller, wish: OperationParams) -> OperationView:
    """Say how an operation is."""
    return operations.view(_find(desk, caller, wish.id))


async def wait(desk: Desk, caller: Caller, wish: WaitParams) -> OperationView:
    """Wait for an operation's end, and say what came of it; unfinished after that time, it is shown as it is."""
    patience = waiting.Patience(wish.timeout_s, firm=True)
    return operations.view(await waiting.for_end(desk, caller, _find(desk, caller, wish.id), patience))


async def list_(desk: Desk, caller: Caller, wish: Listing) -> OperationList:
    """List operations of the last day."""
    state, actor = desk.mind.state, caller.actor
    everybody = wish.all or (actor.uid == 0 and wish.user is None)
    uid = people.uid_named(state, actor, wish.user)
    return OperationList(operations=operations.list_of(state, uid, everybody=everybody))


def _find(desk: Desk, caller: Caller, id_: str) -> Operation:
    found = desk.mind.state.operations.get(OperationId(id_))
    if found is None or (found.uid != caller.actor.uid and not caller.actor.operator):
        raise NotFound(f"cannot find the operation {id_}", hint="they are kept for a day, the last 50 of each user")
    return found
