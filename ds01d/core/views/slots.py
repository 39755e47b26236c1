"""GPUs and slots as people are shown them. Of other people's use: slot, user name and until-when, nothing else."""

from enum import StrEnum

import msgspec

from ds01d.core.placing import obstacle, offered
from ds01d.core.state import State
from ds01d.model.actor import Actor
from ds01d.model.allocation import NEVER, Allocation, Claim
from ds01d.model.gpu import Gpu, Slot
from ds01d.model.ids import SlotId, Uid


class SlotState(StrEnum):
    """What is the matter with a slot, in a word."""

    FREE = "free"
    #: Its container is being created.
    RESERVED = "reserved"
    #: Its container is stopped and keeps it for a while.
    HELD = "held"
    #: Its container is starting, running or stopping.
    IN_USE = "in use"
    #: Being taken back: not free until that is proved.
    RELEASING = "releasing"
    #: Its last holder's processes or memory are still there.
    LINGERING = "lingering"
    #: Its card, or the slice, is not there any more.
    LOST = "lost"
    #: Nothing new is put there.
    DRAINED = "drained"
    #: Used by somebody without an allocation, or not known to be unused.
    OCCUPIED = "occupied"
    #: Not given in this card's mode, or its card has trouble.
    NOT_OFFERED = "not offered"
    #: The GPUs cannot be seen, so nobody can say that it is free.
    UNSEEN = "unseen"


class SlotView(msgspec.Struct, frozen=True, kw_only=True):
    """One slot, as its reader may see it."""

    slot: str
    gpu: int
    gpu_name: str
    memory_mib: int
    gpueq: float
    state: SlotState
    profile: str | None = None
    user: str | None = None
    #: When it may be free, epoch seconds; None: not known.
    until: float | None = None
    #: Held without an end.
    for_ever: bool = False
    #: Only for its owner and operators.
    container: str | None = None
    #: Why it is as it is, where the state does not say it all.
    reason: str = ""
    #: Memory in use there; None: not known.
    used_mib: int | None = None


class GpuView(msgspec.Struct, frozen=True, kw_only=True):
    """One card."""

    index: int
    uuid: str
    name: str
    memory_mib: int
    mig: bool
    lost: bool
    trouble: str | None = None


class AllocationView(msgspec.Struct, frozen=True, kw_only=True):
    """The promise of slots to one container, for its owner and operators."""

    id: str
    user: str
    container: str
    slots: tuple[str, ...]
    gpueq: float
    claim: Claim
    since: float
    until: float | None = None
    for_ever: bool = False
    lost: bool = False
    reason: str = ""


def all_slots(state: State, actor: Actor) -> tuple[SlotView, ...]:
    """Every slot of the machine, by card and place."""
    return tuple([slot_view(state, slot, actor) for slot in in_order(state)])


def all_gpus(state: State) -> tuple[GpuView, ...]:
    """Every card, by index."""
    return tuple([_gpu_view(g) for g in sorted(state.gpus, key=lambda g: (g.index, g.uuid))])


def allocations(state: State, uid: Uid, *, everybody: bool) -> tuple[AllocationView, ...]:
    """One user's allocations, or everybody's."""
    chosen = state.allocations if everybody else state.allocations.of("uid", uid)
    views = [_allocation_view(state, a) for a in chosen]
    return tuple(sorted(views, key=lambda v: (v.user, v.container)))


def in_order(state: State) -> list[Slot]:
    """The slots by card and place; those of a card's other mode only while they are held."""
    shown = [s for s in state.slots if _shown(state, s)]
    return sorted(shown, key=lambda s: (_index(state, s), s.start if s.start is not None else -1, s.id))


def slot_view(state: State, slot: Slot, actor: Actor) -> SlotView:
    """One slot, as this reader may see it."""
    gpu = state.gpus.get(slot.gpu)
    holder = state.allocations.one("slot", slot.id)
    word, reason = _state_of(state, slot, holder, operator=actor.operator)
    container = None
    if holder is not None and (actor.operator or holder.uid == actor.uid):
        record = state.containers.get(holder.container)
        container = record.name if record is not None else None
    use = state.sight.slots.get(slot.id)
    return SlotView(
        slot=slot.name,
        gpu=gpu.index if gpu is not None else -1,
        gpu_name=gpu.name if gpu is not None else "",
        memory_mib=slot.memory_mib,
        gpueq=slot.gpueq,
        profile=slot.profile,
        state=word,
        user=holder.user if holder is not None else None,
        until=until(holder),
        for_ever=for_ever(holder),
        container=container,
        reason=reason,
        used_mib=use.used_mib if use is not None else None,
    )


def names_of(state: State, slots: tuple[SlotId, ...]) -> tuple[str, ...]:
    """Slots as people write them."""
    found = [state.slots.get(s) for s in slots]
    return tuple([slot.name for slot in found if slot is not None])


def until(holder: Allocation | None) -> float | None:
    """When an allocation's hold ends, if that is known."""
    if holder is None or holder.deadline is None or holder.deadline >= NEVER:
        return None
    return holder.deadline


def for_ever(holder: Allocation | None) -> bool:
    """Whether an allocation is a hold without an end."""
    return holder is not None and holder.deadline is not None and holder.deadline >= NEVER


def _state_of(state: State, slot: Slot, holder: Allocation | None, *, operator: bool) -> tuple[SlotState, str]:
    gpu = state.gpus.get(slot.gpu)
    if slot.lost or gpu is None or gpu.lost or (holder is not None and holder.lost):
        return SlotState.LOST, "its GPU or slice is gone from NVML"
    if holder is not None:
        match holder.claim:
            case Claim.RESERVED:
                return SlotState.RESERVED, slot.drained or ""
            case Claim.HELD:
                return SlotState.HELD, slot.drained or ""
            case Claim.BOUND:
                return SlotState.IN_USE, slot.drained or ""
            case Claim.RELEASING if holder.lingering is not None:
                return SlotState.LINGERING, holder.lingering
            case Claim.RELEASING:
                return SlotState.RELEASING, ""
    if slot.drained is not None:
        return SlotState.DRAINED, slot.drained
    if not offered(state, slot):
        return SlotState.NOT_OFFERED, gpu.trouble or "its card is not in this mode"
    if state.sight.blind is not None:
        return SlotState.UNSEEN, state.sight.blind
    found = obstacle(state, slot)
    if found is not None:
        which = f": {found.foreign}" if operator and found.foreign is not None else ""
        return SlotState.OCCUPIED, f"{found.words}{which}"
    return SlotState.FREE, ""


def _shown(state: State, slot: Slot) -> bool:
    gpu = state.gpus.get(slot.gpu)
    right_mode = gpu is None or gpu.mig == (slot.profile is not None)
    return right_mode or state.allocations.count("slot", slot.id) > 0


def _index(state: State, slot: Slot) -> int:
    gpu = state.gpus.get(slot.gpu)
    return gpu.index if gpu is not None else 2**31


def _gpu_view(g: Gpu) -> GpuView:
    return GpuView(
        index=g.index, uuid=g.uuid, name=g.name, memory_mib=g.memory_mib, mig=g.mig, lost=g.lost, trouble=g.trouble
    )


def _allocation_view(state: State, a: Allocation) -> AllocationView:
    container = state.containers.get(a.container)
    return AllocationView(
        id=a.id,
        user=a.user,
        container=container.name if container is not None else a.container,
        slots=names_of(state, a.slots),
        gpueq=a.gpueq,
        claim=a.claim,
        since=a.since,
        until=until(a),
        for_ever=for_ever(a),
        lost=a.lost,
        reason=a.lingering or a.reason,
    )
