"""What a picture of the driver shows of single slots. Pure; an unread figure is trouble, never a free slot."""

from ds01d.model.facts import SlotSeen
from ds01d.model.gpu import slot_id
from ds01d.model.ids import GpuUuid, SlotId
from ds01d.model.probe import GpuSeen, Picture, ProcessSeen, SliceSeen


def slot_seen(picture: Picture, slot: SlotId) -> SlotSeen:
    """One slot as the picture has it."""
    uuid = slot.partition("/")[0]
    gpu = next((gpu for gpu in picture.gpus if gpu.uuid == uuid), None)
    if gpu is None:
        # A card that does not even say who it is may be this one.
        unknown = "; ".join(picture.unidentified)
        return SlotSeen(slot=slot, trouble=unknown) if unknown else SlotSeen(slot=slot, lost=True)
    if gpu.lost:
        return SlotSeen(slot=slot, lost=True, trouble=gpu.trouble)
    if gpu.trouble is not None:
        return SlotSeen(slot=slot, trouble=gpu.trouble)
    if slot == uuid and not gpu.mig:
        return _seen(slot, gpu, gpu.processes, gpu.memory_used_mib)
    part = next((part for part in gpu.slices if _id(gpu, part) == slot), None)
    if part is not None:
        # On a card that is cut the driver may leave out where a process runs: then it may run in any slice.
        inside = None if gpu.processes is None else tuple(p for p in gpu.processes if p.gi in (None, part.gi))
        return _seen(slot, gpu, inside, part.memory_used_mib)
    if gpu.unread and slot != uuid:
        return SlotSeen(slot=slot, trouble="; ".join(part.trouble for part in gpu.unread))
    return SlotSeen(slot=slot, lost=True)


def _seen(slot: SlotId, gpu: GpuSeen, processes: tuple[ProcessSeen, ...] | None, used_mib: int | None) -> SlotSeen:
    return SlotSeen(
        slot=slot,
        trouble="the driver did not say which processes it has" if processes is None else None,
        pids=tuple(sorted({process.pid for process in processes or ()})),
        used_mib=used_mib,
        net_of_reserved=gpu.memory_v2,
    )


def _id(gpu: GpuSeen, part: SliceSeen) -> SlotId:
    return slot_id(GpuUuid(gpu.uuid), part.profile, part.start)
