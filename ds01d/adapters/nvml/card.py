"""One card, asked one question at a time: what it has of memory, use and processes. Talks to the driver, and may hang.

Whatever concerns all cards, or the driver's coming and going, is the child's matter; how a card is cut, is in `slices`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import pynvml as nvml

from ds01d.model.probe import GpuSeen, ProcessSeen, SliceSeen, SliceUnread

MIB: Final = 2**20
#: The kernel's highest possible pid; beyond it the rows are of another size than we think.
PID_MAX: Final = 4_194_304
NO_MIG: Final = 0xFFFFFFFF
#: pynvml's NVML_P2P_CAPS_INDEX_NVLINK.
P2P_NVLINK: Final = 2

#: Codes for "this driver or card has no such thing".
NO_SUCH_THING: Final = (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_FUNCTION_NOT_FOUND)
#: Codes that are a verdict on the card or the driver, whatever was asked.
VERDICTS: Final = (nvml.NVML_ERROR_UNINITIALIZED, nvml.NVML_ERROR_GPU_IS_LOST)

ProcessList = Callable[[object], Sequence[nvml.c_nvmlProcessInfo_t]]

WORDS: Final = {
    nvml.NVML_ERROR_LIBRARY_NOT_FOUND: "libnvidia-ml.so.1 is not there; install the NVIDIA driver",
    nvml.NVML_ERROR_DRIVER_NOT_LOADED: "the NVIDIA driver is not loaded; try `modprobe nvidia`",
    nvml.NVML_ERROR_UNINITIALIZED: "the NVIDIA driver was unloaded",
    nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
        "the NVIDIA driver was updated but its kernel module is the old one; reboot, or reload the driver"
    ),
    nvml.NVML_ERROR_NO_PERMISSION: "the NVIDIA driver refuses to answer us; ds01d has to run as root",
    nvml.NVML_ERROR_GPU_IS_LOST: "the GPU fell off the bus; reboot, or reset it",
    nvml.NVML_ERROR_RESET_REQUIRED: "the GPU needs a reset",
    nvml.NVML_ERROR_UNKNOWN: "the driver says `unknown error`; look for Xid lines in the kernel log",
}


def words(error: nvml.NVMLError) -> str:
    """Say an NVML code in a sentence."""
    return WORDS.get(error.value) or f"the driver says `{error}` (code {error.value})"


@dataclass(slots=True)
class Part:
    """A slice and its handle."""

    handle: object
    uuid: str
    seen: SliceSeen | SliceUnread


@dataclass(frozen=True, slots=True)
class Profile:
    """A row of a card's table of slices."""

    name: str
    compute: int


@dataclass(slots=True)
class Card:
    """A card, its handle and what was learned of it."""

    handle: object
    seen: GpuSeen
    memory_v2: bool = True
    #: Profile id → row; None: not read yet.
    profiles: dict[int, Profile] | None = None
    places: int = 0
    parts: dict[int, Part] = field(default_factory=dict)
    lists: list[ProcessList] = field(
        default_factory=lambda: [
            nvml.nvmlDeviceGetComputeRunningProcesses,
            nvml.nvmlDeviceGetGraphicsRunningProcesses,
            nvml.nvmlDeviceGetMPSComputeRunningProcesses,
        ]
    )


def joined(one: object, other: object) -> bool:
    """Whether two cards have NVLink to each other, through a switch or not."""
    try:
        return bool(nvml.nvmlDeviceGetP2PStatus(one, other, P2P_NVLINK) == nvml.NVML_P2P_STATUS_OK)
    except nvml.NVMLError as error:
        if error.value == nvml.NVML_ERROR_UNINITIALIZED:
            raise
        return False  # a card that is cut, or lost: placing several slots together simply does without


def memory_used_mib(card: Card, handle: object) -> int:
    """Memory in use; by the second call, which leaves the driver's own part out, where there is one."""
    if card.memory_v2:
        try:
            return int(nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2).used) // MIB
        except nvml.NVMLError as error:
            if error.value not in (*NO_SUCH_THING, nvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH):
                raise
            card.memory_v2 = False
    return int(nvml.nvmlDeviceGetMemoryInfo(handle).used) // MIB


def slice_memory_mib(card: Card, part: Part) -> int | None:
    """Memory in use on a slice; None when only this slice does not say."""
    try:
        return memory_used_mib(card, part.handle)
    except nvml.NVMLError as error:
        if error.value in VERDICTS:
            raise
        return None


def utilisation_pct(card: Card) -> int | None:
    """Share of the last window in which a kernel ran."""
    try:
        return int(nvml.nvmlDeviceGetUtilizationRates(card.handle).gpu)
    except nvml.NVMLError as error:
        if error.value in VERDICTS:
            raise
        return None


def processes(card: Card) -> tuple[ProcessSeen, ...] | None:
    """Everything the card lists, slices included, each process once; None when any list is missing."""
    found: dict[tuple[int, int, int], ProcessSeen] = {}
    for ask in tuple(card.lists):
        try:
            rows = rows_of(ask, card.handle)
        except nvml.NVMLError as error:
            if error.value in VERDICTS:
                raise
            if error.value not in NO_SUCH_THING or ask is nvml.nvmlDeviceGetComputeRunningProcesses:
                return None
            card.lists.remove(ask)
            continue
        for row in rows:
            if not 0 < row.pid <= PID_MAX:
                return None  # the rows are not what we take them for; believe none of them
            key = (row.pid, row.gpuInstanceId, row.computeInstanceId)
            used = None if row.usedGpuMemory is None else row.usedGpuMemory // MIB
            before = found[key].used_mib if key in found else None
            found[key] = ProcessSeen(
                pid=row.pid,
                used_mib=used if before is None else max(before, used or 0),  # one figure, listed twice
                gi=None if row.gpuInstanceId in (None, NO_MIG) else row.gpuInstanceId,
                ci=None if row.computeInstanceId in (None, NO_MIG) else row.computeInstanceId,
            )
    return tuple(found.values())


def rows_of(ask: ProcessList, handle: object) -> Sequence[nvml.c_nvmlProcessInfo_t]:
    """Ask for a list, once more if so many processes appeared between its two calls that it did not fit."""
    try:
        return ask(handle)
    except nvml.NVMLError as error:
        if error.value != nvml.NVML_ERROR_INSUFFICIENT_SIZE:
            raise
        return ask(handle)
