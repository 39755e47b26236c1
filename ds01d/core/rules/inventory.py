"""What is on the machine: GPUs and slots from NVML and nothing else, and who uses them besides us."""

from msgspec.structs import replace

from ds01d.core import effects as do
from ds01d.core.events import Blinded, Probed
from ds01d.core.moves import release
from ds01d.core.state import SlotUse
from ds01d.core.tx import Tx
from ds01d.model.allocation import Claim
from ds01d.model.facts import CgroupStatus, EngineStatus, ForeignContainer, GpuProcess
from ds01d.model.gpu import Gpu, Slot, slot_id
from ds01d.model.ids import EngineId, GpuUuid, SlotId
from ds01d.model.probe import GpuSeen, SliceSeen

#: How a container names a permission of ours.
_BORROWED = "ds01/gpu="


def probed(tx: Tx, e: Probed) -> None:
    """A picture of the GPUs: the tables follow it."""
    sight = tx.state.sight
    uses: dict[SlotId, SlotUse] = {}
    names: dict[str, list[SlotId]] = {}
    devices = dict(sight.devices)
    present: set[GpuUuid] = set()
    for seen in e.picture.gpus:
        gpu = _gpu(tx, seen)
        present.add(gpu.uuid)
        mine = [p for p in e.processes if p.gpu == gpu.uuid]
        for slot, piece in _slots(tx, gpu, seen):
            processes = _on(mine, piece)
            used = seen.memory_used_mib if piece is None else piece.memory_used_mib
            uses[slot.id] = SlotUse(processes=processes, used_mib=used, net_of_reserved=seen.memory_v2)
            devices[slot.id] = (seen.minor, None, None) if piece is None else (seen.minor, piece.gi, piece.ci)
            _remember_idle(tx, slot, used, quiet=not processes and seen.processes is not None)
            for word in _words(gpu, seen, slot, piece):
                names.setdefault(word, []).append(slot.id)
        if seen.processes is None:
            uses = {s: u for s, u in uses.items() if tx.state.slots.rows[s].gpu != gpu.uuid}
    for known in tuple(tx.state.gpus):
        if known.uuid not in present and not known.lost and not e.picture.unidentified:
            tx.put(tx.state.gpus, known.uuid, replace(known, lost=True))
    _mark_lost(tx)
    tx.see(
        replace(
            sight,
            seen_at=tx.now,
            good_for_s=e.good_for_s,
            blind=None,
            driver=e.picture.driver,
            devices=devices,
            slots=uses,
            names={word: tuple(ids) for word, ids in names.items()},
        )
    )
    _name_foreign(tx)


def blinded(tx: Tx, e: Blinded) -> None:
    """Nothing can be seen: what was seen before stays, marked, and nothing is given."""
    tx.see(replace(tx.state.sight, blind=e.reason))


def _gpu(tx: Tx, seen: GpuSeen) -> Gpu:
    gpu = Gpu(
        uuid=GpuUuid(seen.uuid),
        index=seen.index,
        name=seen.name,
        memory_mib=seen.memory_total_mib,
        mig=seen.mig,
        lost=seen.lost,
        trouble=seen.trouble,
        nvlink=seen.nvlink,
    )
    if tx.state.gpus.get(gpu.uuid) != gpu:
        tx.put(tx.state.gpus, gpu.uuid, gpu)
    return gpu


def _slots(tx: Tx, gpu: Gpu, seen: GpuSeen) -> list[tuple[Slot, SliceSeen | None]]:
    """The slots of a card, in order: its slices when it is cut, else itself."""
    found: list[tuple[Slot, SliceSeen | None]] = []
    pieces: list[SliceSeen | None] = [*sorted(seen.slices, key=lambda s: s.start)] if gpu.mig else [None]
    for n, piece in enumerate(pieces):
        sid = slot_id(gpu.uuid) if piece is None else slot_id(gpu.uuid, piece.profile, piece.start)
        old = tx.state.slots.get(sid)
        slot = Slot(
            id=sid,
            gpu=gpu.uuid,
            name=str(gpu.index) if piece is None else f"{gpu.index}:{n}",
            memory_mib=gpu.memory_mib if piece is None else piece.memory_total_mib,
            compute=1 if piece is None else piece.compute,
            compute_of=1 if piece is None else piece.compute_of,
            profile=None if piece is None else piece.profile,
            start=None if piece is None else piece.start,
            drained=old.drained if old is not None else None,
            lost=gpu.lost,
            idle_mib=old.idle_mib if old is not None else None,
        )
        if slot != old:
            tx.put(tx.state.slots, sid, slot)
        found.append((slot, piece))
    there = {slot.id for slot, _ in found}
    for other in tx.state.slots.of("gpu", gpu.uuid):
        if other.id not in there and gpu.trouble is None and not seen.unread:
            _gone(tx, other)
    return found


def _gone(tx: Tx, slot: Slot) -> None:
    """Not there any more; kept, marked lost, only as long as somebody holds it."""
    held = tx.state.allocations.count("slot", slot.id) or tx.state.containers.count("blocks", slot.id)
    if not held:
        tx.put(tx.state.slots, slot.id, None)
    elif not slot.lost:
        tx.put(tx.state.slots, slot.id, replace(slot, lost=True))


def _on(processes: list[GpuProcess], piece: SliceSeen | None) -> tuple[GpuProcess, ...]:
    if piece is None:
        return tuple(processes)
    return tuple([p for p in processes if p.gi is None or p.gi == piece.gi])


def _remember_idle(tx: Tx, slot: Slot, used: int | None, *, quiet: bool) -> None:
    """The least that was seen in use while nobody was there is the driver's own."""
    if quiet and used is not None and (slot.idle_mib is None or used < slot.idle_mib):
        tx.put(tx.state.slots, slot.id, replace(slot, idle_mib=used))


def _words(gpu: Gpu, seen: GpuSeen, slot: Slot, piece: SliceSeen | None) -> list[str]:
    """Everything that a container's own configuration may call this slot."""
    words = [str(gpu.index), gpu.uuid, f"/dev/nvidia{seen.minor}", slot.name]
    if piece is not None:
        words += [piece.uuid, f"MIG-{gpu.uuid}/{piece.gi}/{piece.ci}"]
    return words


def _mark_lost(tx: Tx) -> None:
    """Whoever holds what is gone is told; nothing is placed elsewhere silently."""
    for slot in tuple(tx.state.slots):
        gpu = tx.state.gpus.get(slot.gpu)
        if gpu is not None and gpu.lost and not slot.lost:
            tx.put(tx.state.slots, slot.id, replace(slot, lost=True))
        slot_now = tx.state.slots.rows[slot.id]
        holder = tx.state.allocations.one("slot", slot.id)
        if holder is not None and slot_now.lost and not holder.lost:
            gone = tx.claim(holder, lost=True)
            if gone.claim is Claim.HELD:
                release(tx, gone, "its GPU is gone")
            c = tx.state.containers.get(holder.container)
            words = f"GPU {slot.name} is gone: {c.name if c is not None else 'its container'} has lost it"
            tx.emit(do.Tell(uid=holder.uid, container=holder.container, text=words))
            tx.emit(do.Alert(container=holder.container, text=words))


def foreign(tx: Tx, seen: tuple[ForeignContainer, ...]) -> None:
    """Containers that are not ours, as the newest listing has them; one that names a permission of ours is reported."""
    before = tx.state.sight.foreign
    for f in seen:
        borrowed = [word for word in f.gpus if word.startswith(_BORROWED)]
        known = before.get(f.engine_id)
        if borrowed and _runs(f) and (known is None or not _runs(known)):
            whose = f" of {f.user}" if f.user is not None else ""
            text = f"{f.name}{whose} ({f.engine_id[:12]}) is not ours and runs with {', '.join(borrowed)}"
            tx.emit(do.Alert(text=text))
    tx.see(replace(tx.state.sight, foreign={f.engine_id: f for f in seen}))
    _name_foreign(tx)


def _runs(f: ForeignContainer) -> bool:
    return f.status is EngineStatus.RUNNING or f.cgroup is CgroupStatus.OCCUPIED


def _name_foreign(tx: Tx) -> None:
    """Which slots the running ones name; a name that we cannot read means all of them."""
    sight = tx.state.sight
    named: dict[SlotId, EngineId] = {}
    on: dict[EngineId, frozenset[SlotId]] = {}
    for f in sight.foreign.values():
        if not f.gpus or not _runs(f):
            continue
        found = frozenset([sid for word in f.gpus for sid in _resolve(tx, word)])
        if found:
            on[f.engine_id] = found
        for sid in found:
            named.setdefault(sid, f.engine_id)
    if on != sight.foreign_on or named != sight.foreign_slots:
        tx.see(replace(sight, foreign_slots=named, foreign_on=on))


def _resolve(tx: Tx, word: str) -> tuple[SlotId, ...]:
    device = word.rpartition("=")[2]
    if word.startswith(_BORROWED):
        owner = tx.state.containers.one("key", device)
        allocation = tx.state.allocation_of(owner.id) if owner is not None else None
        return allocation.slots if allocation is not None else ()
    return tx.state.sight.names.get(device, tuple(tx.state.slots.rows))
