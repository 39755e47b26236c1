"""`system.*`: the machine as a whole, and how things came to be."""

from collections import Counter
from collections.abc import Callable
from typing import Annotated

import msgspec
from msgspec import Meta

from ds01d import __version__
from ds01d.api import moments, people
from ds01d.api.desk import Caller, Desk
from ds01d.api.params import Nothing, Params, Word
from ds01d.core.views import chronicle, containers, machine, slots
from ds01d.core.views.chronicle import EventView
from ds01d.core.views.containers import ContainerView
from ds01d.core.views.machine import Notice, Share
from ds01d.core.views.slots import SlotView
from ds01d.model.actor import Actor
from ds01d.model.chronicle import EventLine
from ds01d.model.errors import NotFound
from ds01d.model.operation import Failure

#: Raised when a caller of the version before could misunderstand an answer.
API_LEVEL = 1

Moment = Annotated[str, Meta(min_length=1, max_length=40, description="2h ago, 3d, 2026-11-20 or 2026-11-20T14:20")]
Count = Annotated[int, Meta(ge=1, le=10000)]


class MachineStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, and what the caller has of it."""

    notices: tuple[Notice, ...]
    slots: tuple[SlotView, ...]
    containers: tuple[ContainerView, ...]
    share: Share
    #: When the GPUs were last seen, epoch seconds.
    seen_at: float | None = None
    #: Containers that carry our label and have no record; a notice tells operators of each.
    unaccounted: int = 0


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """Which daemon answers, and on what it stands."""

    version: str
    api_level: int
    engine: str | None = None
    driver: str | None = None


class EventsParams(Params, frozen=True, kw_only=True):
    """Which events."""

    user: Word | None = None
    type: Annotated[Word | None, Meta(description="how the type begins, such as gpu or container.stopped")] = None
    container: Word | None = None
    since: Moment | None = None
    until: Moment | None = None
    limit: Count = 100
    #: Only count them by type.
    summary: bool = False


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, the oldest first."""

    events: tuple[EventView, ...] = ()
    #: By type, the most frequent first; only where a summary was asked for.
    counts: dict[str, int] | None = None


class StoryParams(Params, frozen=True, kw_only=True):
    """Whose story."""

    thing: Annotated[Word, Meta(description="a container's name or id, or a slot such as 0:1")]
    user: Annotated[Word | None, Meta(description="whose container, where two have the name")] = None
    limit: Count = 200


class Story(msgspec.Struct, frozen=True, kw_only=True):
    """How a container or a slot came to be as it is."""

    thing: str
    events: tuple[EventView, ...]
    #: How it is now, in a sentence.
    now: tuple[str, ...] = ()


async def status(desk: Desk, caller: Caller, _wish: Nothing) -> MachineStatus:
    """Show the machine: each slot, free or whose and until when; what is amiss; what the caller has."""
    state, actor = desk.mind.state, caller.actor
    return MachineStatus(
        notices=machine.notices(state, actor, unsaved_since=desk.mind.unsaved_since, recovering=desk.mind.recovering),
        slots=desk.board.slots(state, actor),
        containers=containers.list_of(state, actor.uid, everybody=False),
        share=machine.share(state, actor),
        seen_at=state.sight.seen_at,
        unaccounted=len(state.sight.unaccounted),
    )


async def version(desk: Desk, _caller: Caller, _wish: Nothing) -> Version:
    """Say which version answers."""
    sight = desk.mind.state.sight
    return Version(
        version=__version__,
        api_level=API_LEVEL,
        engine=sight.engine.version if sight.engine is not None else None,
        driver=sight.driver or None,
    )


async def events(desk: Desk, caller: Caller, wish: EventsParams) -> Events:
    """Tell what happened: operators all, others their own, and of other people's slots no names."""
    now = desk.mind.now()
    since = moments.parse(wish.since, now) if wish.since is not None else None
    until = moments.parse(wish.until, now) if wish.until is not None else None

    def wanted(line: EventLine) -> bool:
        return (
            (wish.user is None or line.user == wish.user)
            and (wish.type is None or line.event_type.startswith(wish.type))
            and (wish.container is None or line.details.get("container") == wish.container)
        )

    found = await _read(desk, caller.actor, wanted, since=since, until=until, limit=wish.limit)
    if not wish.summary:
        return Events(events=found)
    return Events(counts=dict(Counter(e.event_type for e in found).most_common()))


async def story(desk: Desk, caller: Caller, wish: StoryParams) -> Story:
    """Tell how a container or a slot came to be as it is."""

    def wanted(line: EventLine) -> bool:
        return chronicle.concerns(line, wish.thing) and (wish.user is None or line.user == wish.user)

    found = await _read(desk, caller.actor, wanted, since=None, until=None, limit=wish.limit)
    now = _now(desk, caller.actor, wish)
    if not found and not now:
        whose = f" of {wish.user}" if wish.user is not None else ""
        raise NotFound(
            f"cannot find a container or GPU called {wish.thing}{whose}: nothing is written down about it",
            hint="`container-list` and `ds01ctl gpus` name what there is",
        )
    return Story(thing=wish.thing, events=found, now=now)


async def _read(
    desk: Desk,
    actor: Actor,
    wanted: Callable[[EventLine], bool],
    *,
    since: float | None,
    until: float | None,
    limit: int,
) -> tuple[EventView, ...]:
    def chosen(line: EventLine) -> bool:
        # What a reader may not see must not be found by its names either.
        view = chronicle.visible(line, actor)
        if view is None:
            return False
        return wanted(EventLine(at=line.at, event_type=line.event_type, user=view.user, details=view.details))

    found = await desk.chronicle.events(chosen, since=since, until=until, limit=limit)
    if isinstance(found, Failure):
        raise people.refusal(found)
    views = [chronicle.visible(line, actor) for line in found]
    return tuple([v for v in views if v is not None])


def _now(desk: Desk, actor: Actor, wish: StoryParams) -> tuple[str, ...]:
    state = desk.mind.state
    said = []
    for slot in state.slots.of("name", wish.thing):
        view = slots.slot_view(state, slot, actor)
        whose = f" by {view.user}" if view.user is not None else ""
        said.append(f"{view.slot} is {view.state}{whose}{f': {view.reason}' if view.reason else ''}")
    for c in state.containers:
        known = actor.operator or c.uid == actor.uid
        if known and wish.thing in {c.name, c.id} and wish.user in {None, c.user}:
            said += [f"{c.name} of {c.user}: {reason}" for reason in containers.why(state, c, actor).reasons]
    return tuple(said)
