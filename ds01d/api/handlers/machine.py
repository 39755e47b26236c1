"""`gpu.*`, `allocation.*`, `image.*`: what the machine has, and who has it."""

import msgspec

from ds01d.api import images, people, waiting
from ds01d.api.desk import Caller, Desk
from ds01d.api.params import Listing, Nothing
from ds01d.core.views import machine, slots
from ds01d.core.views.machine import Notice
from ds01d.core.views.slots import AllocationView, GpuView, SlotView
from ds01d.model.image import shown


class GpuList(msgspec.Struct, frozen=True, kw_only=True):
    """Cards and their slots."""

    gpus: tuple[GpuView, ...]
    slots: tuple[SlotView, ...]
    notices: tuple[Notice, ...]
    #: The driver's version.
    driver: str = ""
    #: When the GPUs were last seen, epoch seconds.
    seen_at: float | None = None


class AllocationList(msgspec.Struct, frozen=True, kw_only=True):
    """Promises of slots, by user."""

    allocations: tuple[AllocationView, ...]
    #: How many others there are, where an operator asked for his own.
    others: int = 0


class ImageView(msgspec.Struct, frozen=True, kw_only=True):
    """One image that a container can be made from."""

    name: str
    #: As the engine knows it.
    reference: str
    #: Built by the caller.
    own: bool
    size_bytes: int = 0
    created_at: float = 0.0


class ImageList(msgspec.Struct, frozen=True, kw_only=True):
    """Images, one's own first."""

    images: tuple[ImageView, ...]


async def gpus(desk: Desk, caller: Caller, _wish: Nothing) -> GpuList:
    """List every card and slot: free, or whose and until when."""
    state, actor = desk.mind.state, caller.actor
    return GpuList(
        gpus=slots.all_gpus(state),
        slots=desk.board.slots(state, actor),
        notices=machine.notices(state, actor, unsaved_since=desk.mind.unsaved_since, recovering=desk.mind.recovering),
        driver=state.sight.driver,
        seen_at=state.sight.seen_at,
    )


async def allocations(desk: Desk, caller: Caller, wish: Listing) -> AllocationList:
    """List which container holds which slots, and until when."""
    state, actor = desk.mind.state, caller.actor
    everybody = wish.all or (actor.uid == 0 and wish.user is None)
    uid = people.uid_named(state, actor, wish.user)
    shown = slots.allocations(state, uid, everybody=everybody)
    own = actor.operator and wish.user is None and not everybody
    return AllocationList(allocations=shown, others=len(state.allocations) - len(shown) if own else 0)


async def list_images(desk: Desk, caller: Caller, wish: Listing) -> ImageList:
    """List the images that a container can be made from: one's own, and those that no user built."""
    actor = caller.actor
    uid = actor.uid
    if wish.user is not None:
        uid = (await people.owner(desk, caller, wish.user)).uid
    there = await waiting.images(desk, uid)
    everybody = wish.all or (actor.uid == 0 and wish.user is None)
    chosen = there if everybody else images.usable(there, uid)
    views = [
        ImageView(
            name=shown(i.reference),
            reference=i.reference,
            own=i.owner == uid,
            size_bytes=i.size_bytes,
            created_at=i.created_at,
        )
        for i in chosen
    ]
    return ImageList(images=tuple(sorted(views, key=lambda v: (not v.own, v.name))))
