"""Which slots a request gets, or in whose hands they are. Pure: the same inputs give the same answer, always."""

from collections.abc import Iterable

import msgspec

from ds01d.core.state import State
from ds01d.model.allocation import NEVER, Claim
from ds01d.model.facts import ForeignContainer
from ds01d.model.gpu import GpuRequest, Kind, Slot
from ds01d.model.ids import GpuUuid, Uid
from ds01d.model.policy import Strategy

#: Memory left on a slot counts from this (MiB), or from this share of the slot's memory if that is more.
LEFT_MIB = 512
LEFT_SHARE = 0.02


class Obstacle(msgspec.Struct, frozen=True, kw_only=True):
    """Why a slot is not free, in words that a stranger may read."""

    slot: str
    words: str
    #: When it may be over, epoch seconds; None: nobody knows.
    until: float | None = None
    #: Which container it is, where one outside ds01d is in the way: for operators only.
    foreign: str | None = None
    #: It comes from outside ds01d: nothing that its users do here ends it.
    outside: bool = False


def offered(state: State, slot: Slot) -> bool:
    """Whether a slot is one that this machine gives at all: there, healthy, and in the mode its card is in."""
    if slot.lost:
        return False
    gpu = state.gpus.get(slot.gpu)
    if gpu is None or gpu.lost or gpu.trouble is not None:
        return False
    return gpu.mig == (slot.profile is not None) and (slot.profile is None or state.policy.gpu_allocation.enable_mig)


def matches(state: State, slot: Slot, request: GpuRequest) -> bool:
    """Whether a slot is of the kind and size that is asked for."""
    if slot.memory_mib < request.memory_mib:
        return False
    match request.kind:
        case Kind.ANY:
            return True
        case Kind.FULL:
            return slot.profile is None
        case Kind.MIG:
            return slot.profile == state.policy.gpu_allocation.mig_profile
        case profile:
            return slot.profile == profile


def left_there(slot: Slot, used_mib: int | None, *, net_of_reserved: bool) -> int | None:
    """Memory (MiB) that somebody left on a slot without a process; 0: none that counts, None: not known."""
    if used_mib is None:
        return None
    least = 0 if net_of_reserved else (slot.idle_mib if slot.idle_mib is not None else used_mib)
    left = used_mib - least
    return left if left >= max(LEFT_MIB, int(slot.memory_mib * LEFT_SHARE)) else 0


def obstacle(state: State, slot: Slot) -> Obstacle | None:
    """What stands between a slot and a new holder, or None: it is free."""
    if slot.drained is not None:
        return Obstacle(slot=slot.name, words=f"drained: {slot.drained}")
    holder = state.allocations.one("slot", slot.id)
    if holder is not None:
        match holder.claim:
            case Claim.HELD:
                never = holder.deadline is None or holder.deadline >= NEVER
                return Obstacle(
                    slot=slot.name,
                    words=f"held by {holder.user}" + (" without an end" if never else ""),
                    until=None if never else holder.deadline,
                )
            case Claim.RELEASING:
                return Obstacle(slot=slot.name, words=holder.lingering or f"being released by {holder.user}")
            case _:
                return Obstacle(slot=slot.name, words=f"in use by {holder.user}")
    if state.containers.count("blocks", slot.id):
        return Obstacle(slot=slot.name, words="blocked until a leftover permission is proved unused")
    for other in state.excluded_by(slot):
        if state.allocations.count("slot", other.id):
            return Obstacle(slot=slot.name, words=f"{other.name} of the same card is given")
        if state.containers.count("blocks", other.id):
            return Obstacle(slot=slot.name, words=f"{other.name} of the same card is blocked")
    found = _foreign(state, slot)
    return None if found is None else msgspec.structs.replace(found, outside=True)


def called(foreign: ForeignContainer) -> str:
    """A container outside ds01d as operators look for it: name and short id."""
    return f"{foreign.name} ({foreign.engine_id[:12]})"


def spans(names: Iterable[str]) -> str:
    """Slots as people write them, neighbouring cards in one: `0-3,4:1`."""
    said: list[str] = []
    first = last = -2
    for name in names:
        index = int(name) if name.isdecimal() else -2
        if index >= 0 and index == last + 1:
            said[-1] = f"{first}-{index}"
        else:
            said.append(name)
            first = index
        last = index
    return ",".join(said)


def _foreign(state: State, slot: Slot) -> Obstacle | None:
    sight = state.sight
    named = sight.foreign_slots.get(slot.id)
    if named is not None:
        foreign = sight.foreign.get(named)
        whose = f" of {foreign.user}" if foreign is not None and foreign.user is not None else ""
        return Obstacle(
            slot=slot.name,
            words=f"in use by a container outside ds01d{whose}",
            foreign=called(foreign) if foreign is not None else named[:12],
        )
    use = sight.slots.get(slot.id)
    if use is None:
        return Obstacle(slot=slot.name, words="not seen by NVML")
    if use.processes:
        p = use.processes[0]
        whose = p.user or (str(p.uid) if p.uid is not None else "an unknown user")
        kind = "a host process" if p.container is None else "a container process"
        foreign = sight.foreign.get(p.container) if p.container is not None else None
        which = called(foreign) if foreign is not None else None
        return Obstacle(slot=slot.name, words=f"in use by {kind} of {whose}", foreign=which)
    left = left_there(slot, use.used_mib, net_of_reserved=use.net_of_reserved)
    if left is None:
        return Obstacle(slot=slot.name, words="its memory use cannot be read")
    if left:
        return Obstacle(slot=slot.name, words=f"{left} MiB are still in use there by nobody visible")
    return None


def choose(
    state: State, candidates: Iterable[Slot], count: int, *, priority: int, gpueq_left: float | None
) -> tuple[Slot, ...] | None:
    """The slots to give, all or none. Slices go before whole GPUs; several lie close together where they can."""
    free = list(candidates)
    slices = [s for s in free if s.profile is not None]
    whole = [s for s in free if s.profile is None]
    for group in (slices, whole, slices + whole):
        found = _choose_among(state, group, count, priority, gpueq_left)
        if found is not None:
            return found
    return None


def _choose_among(
    state: State, free: list[Slot], count: int, priority: int, gpueq_left: float | None
) -> tuple[Slot, ...] | None:
    if len(free) < count:
        return None
    scores = {gpu: _score(state, gpu, priority) for gpu in {s.gpu for s in free}}
    ranked = sorted(free, key=lambda s: (*scores[s.gpu], s.start if s.start is not None else -1, s.id))
    if count == 1:
        for slot in ranked:
            if _fits([slot], gpueq_left):
                return (slot,)
        return None
    by_gpu: dict[str, list[Slot]] = {}
    for slot in ranked:
        by_gpu.setdefault(slot.gpu, []).append(slot)
    for near in by_gpu.values():
        if len(near) >= count and _fits(near[:count], gpueq_left):
            return tuple(near[:count])
    best: tuple[int, tuple[Slot, ...]] | None = None
    for seed in ranked:
        together = _grow(state, seed, ranked, count)
        if not _fits(together, gpueq_left):
            continue
        apart = _apart(state, together)
        if best is None or apart < best[0]:
            best = (apart, tuple(together))
    if best is not None:
        return best[1]
    light = sorted(ranked, key=lambda s: s.gpueq)[:count]
    return tuple(light) if _fits(light, gpueq_left) else None


def _fits(slots: list[Slot], gpueq_left: float | None) -> bool:
    return gpueq_left is None or sum(s.gpueq for s in slots) <= gpueq_left + 1e-9


def _grow(state: State, seed: Slot, ranked: list[Slot], count: int) -> list[Slot]:
    """The seed and the slots nearest to it, in rank order."""
    near = sorted((s for s in ranked if s is not seed), key=lambda s: _distance(state, seed, s))
    return [seed, *near[: count - 1]]


def _distance(state: State, one: Slot, other: Slot) -> int:
    if one.gpu == other.gpu:
        return 0
    a, b = state.gpus.get(one.gpu), state.gpus.get(other.gpu)
    linked = a is not None and b is not None and (b.index in a.nvlink or a.index in b.nvlink)
    return 1 if linked else 2


def _apart(state: State, slots: list[Slot]) -> int:
    return sum(_distance(state, one, other) for i, one in enumerate(slots) for other in slots[:i])


def _score(state: State, uuid: GpuUuid, priority: int) -> tuple[float, float, float, int]:
    """Of a card, lowest wins: (neighbours' highest priority minus mine, containers, memory used in percent, index)."""
    gpu = state.gpus.get(uuid)
    index = gpu.index if gpu is not None else 0
    neighbours: dict[str, Uid] = {}
    used, total = 0, 0
    for other in state.slots.of("gpu", uuid):
        holder = state.allocations.one("slot", other.id)
        if holder is not None:
            neighbours[holder.id] = holder.uid
        use = state.sight.slots.get(other.id)
        used += (use.used_mib or 0) if use is not None else 0
        total += other.memory_mib
    memory = round(100 * used / total, 1) if total else 0.0
    if state.policy.gpu_allocation.strategy is Strategy.PACK:
        return (-len(neighbours), -memory, 0.0, index)
    highest = max((state.policy.limits(uid).priority for uid in neighbours.values()), default=0)
    return (highest - priority, len(neighbours), memory, index)
