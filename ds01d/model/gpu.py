"""GPUs and slots: what can be given to a container, and what a request may ask for. No device paths: those change."""

import re
from enum import StrEnum

import msgspec

from ds01d.model.ids import GpuUuid, SlotId

#: A MIG profile as NVIDIA writes it: compute slices, then memory; `+me` and the like are attributes of it.
PROFILE = re.compile(r"^[1-9][0-9]*g\.[1-9][0-9]*gb(\+[a-z0-9.]+)*$")


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """A physical card, known by its UUID and shown by its index."""

    uuid: GpuUuid
    index: int
    name: str
    memory_mib: int
    mig: bool
    #: Fell off the bus, or NVML no longer lists it.
    lost: bool = False
    #: What NVML said when it could not read this card; such a card is not given.
    trouble: str | None = None
    #: Indices of the cards it has NVLink to.
    nvlink: tuple[int, ...] = ()


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """What can be given to one container: a whole GPU, or one MIG slice of it."""

    id: SlotId
    gpu: GpuUuid
    #: As people write it: `0`, or `0:1` (the second slice by placement).
    name: str
    memory_mib: int
    #: The share of its card's compute slices, as the card's own tables say: 7 of 7 for a whole one, 2 of 7 for a 2g.
    compute: int
    compute_of: int
    profile: str | None = None
    start: int | None = None
    #: Why nothing new is put here, in words; None: it is in use as usual.
    drained: str | None = None
    #: Its card, or this slice of it, is not there any more.
    lost: bool = False
    #: The least memory (MiB) seen in use here while no process was: what the driver keeps for itself.
    idle_mib: int | None = None

    @property
    def gpueq(self) -> float:
        """Its weight in GPU-equivalents; a whole GPU is 1."""
        return self.compute / self.compute_of


class Kind(StrEnum):
    """What kind of slot a request wants; a profile such as `2g.20gb` is written instead of these."""

    ANY = "any"
    FULL = "full"
    MIG = "mig"


class GpuRequest(msgspec.Struct, frozen=True, kw_only=True):
    """How many slots, of which kind, with at least how much memory each."""

    count: int = 1
    kind: str = Kind.ANY
    memory_mib: int = 0


def slot_id(gpu: GpuUuid, profile: str | None = None, start: int | None = None) -> SlotId:
    """Make the identity of a slot; a slice's UUID is not part of it, because it is live data."""
    return SlotId(str(gpu) if profile is None else f"{gpu}/{profile}@{start}")
