"""Waiting for an operation on behalf of a caller who may hang up; the operation goes on without him."""

import asyncio
from typing import NamedTuple

from ds01d.api import people
from ds01d.api.desk import Caller, Desk
from ds01d.core.views import operations
from ds01d.core.views.operations import Hindrance
from ds01d.model.errors import EngineDown, Pending
from ds01d.model.ids import Uid
from ds01d.model.image import Image
from ds01d.model.operation import Failure, Operation, OperationState, Verb

#: Seconds after which it is looked whether the caller is still there, and whether there is any hope.
_SLICE_S = 2.0
#: For so long (seconds) a caller waits although something stands in the way that may last.
HINDERED_S = 4.0


_IMAGES = "cannot list the images"
#: What a person calls it, where that is another word than the verb.
_NOUN = {Verb.CREATE: "creation", Verb.REMOVE: "removal"}


class Patience(NamedTuple):
    """How long a caller waits."""

    seconds: float
    #: He said so himself, and waits for so long whatever stands in the way.
    firm: bool = False


class StillGoing(Pending):
    """Not finished in the time the caller gave it; carries the operation that goes on."""

    def __init__(self, operation: Operation, hindrance: Hindrance | None) -> None:
        why = hindrance.why if hindrance is not None else operation.stage
        do = f"{hindrance.do}; " if hindrance is not None and hindrance.do else ""
        what = _NOUN.get(operation.verb, operation.verb)
        super().__init__(
            f"cannot say yet what came of it: the {what} of {operation.container_name} goes on"
            f"{f' ({why})' if why else ''}",
            hint=f"{do}`container-why {operation.container_name}` says how far it is; "
            f"programs wait with operation.wait {operation.id}",
        )
        self.operation = operation.id


def silence(desk: Desk, what: str, *, grace_s: float = operations.RESTART_S) -> EngineDown | None:
    """The refusal of what needs the engine while that has been silent for longer than a restart takes; else None."""
    sight = desk.mind.state.sight
    if sight.silent_since is None or desk.mind.now() < sight.silent_since + grace_s:
        return None
    words = f"{what}: the engine does not answer: {sight.silent_why}"
    return EngineDown(words, hint="try again later; `systemctl status docker` tells an operator why")


async def images(desk: Desk, uid: Uid) -> tuple[Image, ...]:
    """The images there are; an engine that is known to be silent is not waited for, nor one that falls silent."""
    if (down := silence(desk, _IMAGES)) is not None:
        raise down
    asking = asyncio.ensure_future(desk.images.names(uid))
    try:
        while not (await asyncio.wait([asking], timeout=_SLICE_S))[0]:
            if (down := silence(desk, _IMAGES)) is not None:
                raise down
        there = asking.result()
    finally:
        asking.cancel()
    if isinstance(there, Failure):
        raise people.refusal(there)
    return there


async def for_end(desk: Desk, caller: Caller, operation: Operation, patience: Patience) -> Operation:
    """The operation as it is after its end, or after that time, or when the caller hung up or waits in vain."""
    mind = desk.mind
    began = mind.now()
    until = began + patience.seconds
    while operation.state is OperationState.PENDING and not caller.gone():
        now = mind.now()
        if now >= until:
            break
        if (
            not patience.firm
            and now >= began + HINDERED_S
            and operations.hindrance(mind.state, operation, now) is not None
        ):
            break
        operation = await mind.finished(operation.id, min(until - now, _SLICE_S))
    return operation


async def for_success(desk: Desk, caller: Caller, operation: Operation, patience: Patience) -> Operation:
    """The operation once it went well; refuses with its own words where it failed, and says so where it goes on."""
    ended = await for_end(desk, caller, operation, patience)
    if ended.failure is not None:
        raise people.refusal(ended.failure)
    if ended.state is OperationState.PENDING and patience.seconds > 0:
        raise StillGoing(ended, operations.hindrance(desk.mind.state, ended, desk.mind.now()))
    return ended
