"""What a look at the driver showed. Unknown is None, never 0; nothing here is concluded from it."""

import msgspec


class ProcessSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A process that the driver lists on a card; its pid is the host's."""

    pid: int
    used_mib: int | None = None
    #: The GPU and compute instance it runs in; None on a card that is not cut.
    gi: int | None = None
    ci: int | None = None


class SliceSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A MIG slice that can be used: a GPU instance with its one compute instance."""

    #: As the card's own table names it, `2g.20gb`.
    profile: str
    #: Its place, in memory slices.
    start: int
    size: int
    #: Its weight is compute / compute_of; compute_of is that of the card's largest profile.
    compute: int
    compute_of: int
    #: Live data: ids and UUID may belong to another slice after the card was cut anew.
    gi: int
    ci: int
    uuid: str
    memory_total_mib: int
    memory_used_mib: int | None = None


class SliceUnread(msgspec.Struct, frozen=True, kw_only=True):
    """A slice that is there but cannot be told from others; it is never given."""

    uuid: str | None
    trouble: str


class GpuSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One card. With `trouble` or `lost` its identity is what was read last, and its figures are None."""

    uuid: str
    #: NVML's order, for display; it may change over a reboot.
    index: int
    #: N of /dev/nvidiaN.
    minor: int
    name: str
    memory_total_mib: int
    memory_used_mib: int | None = None
    #: The figure leaves out what the driver reserves for itself (NVML's second memory call).
    memory_v2: bool = False
    mig: bool = False
    slices: tuple[SliceSeen, ...] = ()
    unread: tuple[SliceUnread, ...] = ()
    #: None: the driver did not say. An empty tuple means that it did, and there is none.
    processes: tuple[ProcessSeen, ...] | None = None
    #: Share of the last window in which a kernel ran; None on a card that is cut.
    utilisation_pct: int | None = None
    #: Fell off the bus.
    lost: bool = False
    #: Why this card could not be read.
    trouble: str | None = None
    #: Indices of the cards it has NVLink to.
    nvlink: tuple[int, ...] = ()


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """All cards, as one look showed them."""

    #: Monotonic seconds; the look began then.
    at: float
    #: Of the device map: raised when the driver was initialised anew, or a UUID, minor, index or slice changed.
    revision: int
    driver: str
    gpus: tuple[GpuSeen, ...]
    #: Cards that the driver counts but that say not even who they are. While there are any, a card missing from `gpus`
    #: may be one of them: its state is unknown, and it is not lost.
    unidentified: tuple[str, ...] = ()


class Blind(msgspec.Struct, frozen=True, kw_only=True):
    """The driver as a whole did not answer; nothing is known, least of all that something is free."""

    reason: str
