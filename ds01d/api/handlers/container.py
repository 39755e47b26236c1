"""`container.*`: the caller's words become one event for the mind, and what came of it is shown."""

import asyncio

import msgspec

from ds01d.api import people, waiting
from ds01d.api.desk import Caller, Desk
from ds01d.api.params import Changing, Listing, Own, Seconds, Word
from ds01d.api.waiting import Patience
from ds01d.core.events import ReleaseRequested, RemoveRequested, Request, StartRequested, StopRequested, ThawRequested
from ds01d.core.views import containers, machine, operations
from ds01d.core.views.containers import ContainerView, WhyView
from ds01d.core.views.machine import Notice
from ds01d.core.views.operations import OperationView
from ds01d.core.views.slots import names_of
from ds01d.loop.port import Preview
from ds01d.model.container import Container, Phase
from ds01d.model.ids import ContainerId
from ds01d.model.operation import Verb

#: How long callers are kept waiting unless they say otherwise, seconds; a stop also has its grace.
PATIENCE_S = 70.0
#: How long after a shell's end it shows that the container stops, and how long that may take; seconds.
LEFT_NOTICED_S = 0.7
LEFT_STOPPED_S = 5.0


class ContainerList(msgspec.Struct, frozen=True, kw_only=True):
    """Containers, by user and age."""

    containers: tuple[ContainerView, ...]
    #: Not only the caller's own.
    all: bool = False
    wide: bool = False
    notices: tuple[Notice, ...] = ()


class ListParams(Listing, frozen=True, kw_only=True):
    """Which containers, and how much of them."""

    #: For the text: deadlines and more.
    wide: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a request, or would."""

    verb: str
    name: str
    user: str
    #: As it is now; None: it is gone, or was not made.
    container: ContainerView | None = None
    operation: OperationView | None = None
    #: Slots that are free again through this.
    freed: tuple[str, ...] = ()
    #: Slots that it held and that are gone from the machine.
    gone: tuple[str, ...] = ()
    #: Of a dry run: what would be done.
    would: tuple[str, ...] | None = None


class StartParams(Changing, frozen=True, kw_only=True):
    """Which container to start."""

    name: Word


class StopParams(Changing, frozen=True, kw_only=True):
    """Which container to stop, and how."""

    name: Word
    #: From SIGTERM to SIGKILL; the policy's where it is left out.
    grace_s: Seconds | None = None
    #: Give its slots back at once instead of holding them.
    release: bool = False


class RemoveParams(Changing, frozen=True, kw_only=True):
    """Which container to remove."""

    name: Word
    #: Stop a running one first.
    force: bool = False


class ReleaseParams(Changing, frozen=True, kw_only=True):
    """Which container's hold to end."""

    name: Word
    #: An operator's word that the engine which made it will not come back.
    engine_gone: bool = False


class WhichParams(Own, frozen=True, kw_only=True):
    """Which container is meant."""

    name: Word


async def start(desk: Desk, caller: Caller, wish: StartParams) -> Outcome:
    """Start a container on the slots it holds, or on new ones."""
    if (earlier := await _repeated(desk, caller, wish, patience(wish))) is not None:
        return earlier
    c = people.container(desk.mind.state, caller.actor, wish.name, wish.user)
    request = StartRequested(actor=caller.actor, container=c.id, request_id=wish.request_id, dry_run=wish.dry_run)
    return await _change(desk, caller, Verb.START, c, request, patience(wish))


async def stop(desk: Desk, caller: Caller, wish: StopParams) -> Outcome:
    """Stop a container; its slots are held for a while, or given back at once."""
    state = desk.mind.state
    grace = wish.grace_s if wish.grace_s is not None else state.policy.sigterm_grace
    if (earlier := await _repeated(desk, caller, wish, patience(wish, grace))) is not None:
        return earlier
    c = people.container(state, caller.actor, wish.name, wish.user)
    request = StopRequested(
        actor=caller.actor,
        container=c.id,
        grace_s=wish.grace_s,
        release=wish.release,
        request_id=wish.request_id,
        dry_run=wish.dry_run,
    )
    return await _change(desk, caller, Verb.STOP, c, request, patience(wish, grace))


async def remove(desk: Desk, caller: Caller, wish: RemoveParams) -> Outcome:
    """Remove a container and free what it holds; a running one only by force."""
    state = desk.mind.state
    grace = state.policy.sigterm_grace if wish.force else 0.0
    if (earlier := await _repeated(desk, caller, wish, patience(wish, grace))) is not None:
        return earlier
    c = people.container(state, caller.actor, wish.name, wish.user)
    request = RemoveRequested(
        actor=caller.actor, container=c.id, force=wish.force, request_id=wish.request_id, dry_run=wish.dry_run
    )
    return await _change(desk, caller, Verb.REMOVE, c, request, patience(wish, grace))


async def release(desk: Desk, caller: Caller, wish: ReleaseParams) -> Outcome:
    """End the hold of a stopped container: it is parked, its files stay."""
    if (earlier := await _repeated(desk, caller, wish, patience(wish))) is not None:
        return earlier
    c = people.anybodys(desk.mind.state, caller.actor, wish.name, wish.user)
    request = ReleaseRequested(
        actor=caller.actor,
        container=c.id,
        engine_gone=wish.engine_gone,
        request_id=wish.request_id,
        dry_run=wish.dry_run,
    )
    return await _change(desk, caller, Verb.RELEASE, c, request, patience(wish))


async def thaw(desk: Desk, caller: Caller, wish: WhichParams) -> Outcome:
    """Take a frozen record up again."""
    c = people.anybodys(desk.mind.state, caller.actor, wish.name, wish.user)
    await desk.mind.ask(ThawRequested(actor=caller.actor, container=c.id))
    return Outcome(verb="thaw", name=c.name, user=c.user, container=shown(desk, c.id))


async def list_(desk: Desk, caller: Caller, wish: ListParams) -> ContainerList:
    """List containers in any state."""
    state, actor = desk.mind.state, caller.actor
    everybody = wish.all or (actor.uid == 0 and wish.user is None)
    uid = people.uid_named(state, actor, wish.user)
    return ContainerList(
        containers=containers.list_of(state, uid, everybody=everybody),
        all=everybody or uid != actor.uid,
        wide=wish.wide,
        notices=machine.notices(state, actor, unsaved_since=desk.mind.unsaved_since, recovering=desk.mind.recovering),
    )


async def left(desk: Desk, caller: Caller, wish: WhichParams) -> Outcome:
    """Say what becomes of a container whose shell was left: it stops where nobody and nothing is in it any more."""
    c = people.container(desk.mind.state, caller.actor, wish.name, wish.user)
    time = asyncio.get_running_loop().time
    patience = {Phase.RUNNING: time() + LEFT_NOTICED_S, Phase.STOPPING: time() + LEFT_STOPPED_S}
    while (now := desk.mind.state.containers.get(c.id)) is not None and not caller.gone():
        if time() > patience.get(now.phase, 0.0):
            break
        await asyncio.sleep(0.02)
    return Outcome(verb="leave", name=c.name, user=c.user, container=shown(desk, c.id))


async def why(desk: Desk, caller: Caller, wish: WhichParams) -> WhyView:
    """Say why a container is as it is, what will happen to it, and what can be done."""
    state = desk.mind.state
    return containers.why(state, people.container(state, caller.actor, wish.name, wish.user), caller.actor)


def shown(desk: Desk, container: ContainerId) -> ContainerView | None:
    """A container as it is now."""
    c = desk.mind.state.containers.get(container)
    return containers.view(desk.mind.state, c) if c is not None else None


async def _change(
    desk: Desk, caller: Caller, verb: Verb, c: Container, request: Request, how_long: Patience
) -> Outcome:
    state = desk.mind.state
    held = state.allocation_of(c.id)
    slots = {s: name for s in held.slots for name in names_of(state, (s,))} if held is not None else {}
    answer = await desk.mind.ask(request)
    if isinstance(answer, Preview):
        return Outcome(verb=verb, name=c.name, user=c.user, container=shown(desk, c.id), would=answer.lines)
    operation = await waiting.for_success(desk, caller, answer, how_long) if answer is not None else None
    given_back = slots if state.allocation_of(c.id) is None else {}
    freed = tuple([name for s, name in given_back.items() if (now := state.slots.get(s)) is not None and not now.lost])
    return Outcome(
        verb=verb,
        name=c.name,
        user=c.user,
        container=shown(desk, c.id),
        operation=operations.view(operation) if operation is not None else None,
        freed=freed,
        gone=tuple([name for name in given_back.values() if name not in freed]),
    )


async def _repeated(
    desk: Desk, caller: Caller, wish: StartParams | StopParams | RemoveParams | ReleaseParams, how_long: Patience
) -> Outcome | None:
    """What came of this very request when it was first sent: by now its container may be gone, or another's name."""
    state, actor = desk.mind.state, caller.actor
    earlier = state.operations.one("request", (actor.uid, wish.request_id)) if wish.request_id is not None else None
    if earlier is None:
        return None
    operation = await waiting.for_success(desk, caller, earlier, how_long)
    c = state.containers.get(operation.container)
    return Outcome(
        verb=operation.verb,
        name=operation.container_name,
        user=c.user if c is not None else wish.user or actor.name,
        container=shown(desk, operation.container),
        operation=operations.view(operation),
    )


def patience(wish: Changing, more_s: float = 0.0) -> Patience:
    """How long the caller is kept waiting; who says so himself is, whatever stands in the way."""
    if wish.wait_s is not None:
        return Patience(wish.wait_s, firm=True)
    return Patience(PATIENCE_S + more_s)
