"""The lines between the probe and its child: one JSON value each. No behaviour, no pynvml."""

import msgspec

from ds01d.model.probe import GpuSeen


class Poll(msgspec.Struct, frozen=True, kw_only=True, tag="poll"):
    """Look at everything now, but leave out the cards (by index) that hung when last asked."""

    skip: tuple[int, ...] = ()


class Reading(msgspec.Struct, frozen=True, kw_only=True, tag="reading"):
    """A sign of life: the child is about to read this card, or (None) to initialise the driver."""

    gpu: int | None


class Unidentified(msgspec.Struct, frozen=True, kw_only=True):
    """A card that the driver counts but that does not say who it is."""

    index: int
    trouble: str
    lost: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True, tag="seen"):
    """A finished look."""

    #: How often this child initialised the driver.
    init: int
    driver: str
    gpus: tuple[GpuSeen, ...]
    unidentified: tuple[Unidentified, ...] = ()


class Unseen(msgspec.Struct, frozen=True, kw_only=True, tag="unseen"):
    """The driver as a whole does not answer."""

    reason: str
    #: Only a new process can do better: this one has the old library in memory. The child ends after saying so.
    fresh: bool = False


def unread(gpu: GpuSeen, trouble: str, *, lost: bool = False) -> GpuSeen:
    """Keep who the card is, and say that nothing else is known."""
    return msgspec.structs.replace(
        gpu,
        memory_used_mib=None,
        processes=None,
        utilisation_pct=None,
        slices=tuple(msgspec.structs.replace(part, memory_used_mib=None) for part in gpu.slices),
        trouble=trouble,
        lost=lost,
    )
