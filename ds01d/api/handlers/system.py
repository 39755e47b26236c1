"""`system.*`: the machine as a whole, and how things came to be."""

import msgspec

from ds01d.api.desk import Caller, Desk
from ds01d.api.params import Nothing
from ds01d.core.views import containers, machine, slots
from ds01d.core.views.containers import ContainerView
from ds01d.core.views.machine import Notice, Share
from ds01d.core.views.slots import SlotView


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, and what the caller has of it."""

    notices: tuple[Notice, ...]
    slots: tuple[SlotView, ...]
    containers: tuple[ContainerView, ...]
    share: Share
    #: When the GPUs were last seen, epoch seconds.
    seen_at: float | None = None


async def status(desk: Desk, caller: Caller, _wish: Nothing) -> Status:
    """Show the machine: each slot, free or whose and until when; what is amiss; what the caller has."""
    state, actor = desk.mind.state, caller.actor
    return Status(
        notices=machine.notices(state, actor, unsaved_since=desk.mind.unsaved_since),
        slots=slots.all_slots(state, actor),
        containers=containers.list_of(state, actor.uid, everybody=False),
        share=machine.share(state, actor),
        seen_at=state.sight.seen_at,
    )
