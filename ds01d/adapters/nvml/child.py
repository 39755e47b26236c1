"""The process that talks to the driver: reads one JSON line per request, answers with JSON lines.

It may hang for ever inside a call; its parent then abandons it. It is the only importer of pynvml. It decides nothing
and keeps one thing: identities, which cannot change while a handle lives, because on hardware each call costs up to a
millisecond (a poll of 8 cards with 56 slices and 56 processes makes at most 200).
"""

import contextlib
import ctypes
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import pynvml as nvml

from ds01d.adapters.nvml.wire import Poll, Reading, Seen, Unidentified, Unseen, unread
from ds01d.model.probe import GpuSeen, ProcessSeen, SliceSeen, SliceUnread

MIB: Final = 2**20
#: Every so many polls the slices are read anew even if their UUIDs did not change.
FULL_READ_POLLS: Final = 120
#: The kernel's highest possible pid; beyond it the rows are of another size than we think.
PID_MAX: Final = 4_194_304
NO_MIG: Final = 0xFFFFFFFF
#: pynvml's NVML_P2P_CAPS_INDEX_NVLINK.
P2P_NVLINK: Final = 2
PROFILE: Final = re.compile(r"(?:MIG )?([1-9][0-9]*g\.[1-9][0-9]*gb(?:[+-][a-z0-9.]+)*)")
PR_SET_PDEATHSIG: Final = 1

#: Codes for "there is no slice at this index"; both occur, and indices are sparse.
NOTHING_THERE: Final = (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT)
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


class Eyes:
    """One initialisation of the driver that lasts, and the cards seen through it."""

    def __init__(self, reading: Callable[[int | None], None]) -> None:
        self._reading = reading
        self._inits = 0
        self._ready = False
        self._driver = ""
        self._cards: dict[int, Card] = {}
        self._count = 0
        self._polls = 0

    def poll(self, skip: Sequence[int]) -> Seen | Unseen:
        """Look at every card; when the driver has gone and come back, do it through a new initialisation."""
        for _ in range(2):
            try:
                if not self._ready:
                    self._open()
                return self._look(frozenset(skip))
            except nvml.NVMLError as error:
                was_ready, self._ready = self._ready, False
                if error.value != nvml.NVML_ERROR_UNINITIALIZED or not was_ready:
                    return self._blind(error)
                with contextlib.suppress(nvml.NVMLError):
                    nvml.nvmlShutdown()
        return Unseen(reason=WORDS[nvml.NVML_ERROR_UNINITIALIZED])

    def _open(self) -> None:
        self._reading(None)
        nvml.nvmlInit()
        self._driver = nvml.nvmlSystemGetDriverVersion()
        self._inits += 1
        self._cards = {}
        self._ready = True

    def _blind(self, error: nvml.NVMLError) -> Unseen:
        """Give up this initialisation; pynvml counts references, so a shutdown too many does no harm."""
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()
        return Unseen(reason=words(error), fresh=error.value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

    def _look(self, skip: frozenset[int]) -> Seen:
        count = int(nvml.nvmlDeviceGetCount())
        if count != self._count:
            self._cards, self._count = {}, count
        self._polls += 1
        good: list[int] = []
        bad: list[GpuSeen] = []
        unidentified: list[Unidentified] = []
        for index in range(count):
            if index in skip:
                continue
            self._reading(index)
            try:
                if index not in self._cards:
                    self._identify(index)
                self._read(self._cards[index])
                good.append(index)
            except nvml.NVMLError as error:
                if error.value == nvml.NVML_ERROR_UNINITIALIZED:
                    raise
                lost = error.value == nvml.NVML_ERROR_GPU_IS_LOST
                known = self._cards.get(index)
                if known is None:
                    unidentified.append(Unidentified(index=index, trouble=words(error), lost=lost))
                else:
                    bad.append(unread(known.seen, words(error), lost=lost))
        # Only now, because a card identified late is a peer of those before it.
        gpus = sorted([*(self._cards[index].seen for index in good), *bad], key=lambda gpu: gpu.index)
        return Seen(init=self._inits, driver=self._driver, gpus=tuple(gpus), unidentified=tuple(unidentified))

    def _identify(self, index: int) -> None:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        card = Card(
            handle=handle,
            seen=GpuSeen(
                uuid=nvml.nvmlDeviceGetUUID(handle),
                index=index,
                minor=nvml.nvmlDeviceGetMinorNumber(handle),
                name=nvml.nvmlDeviceGetName(handle),
                memory_total_mib=nvml.nvmlDeviceGetMemoryInfo(handle).total // MIB,
            ),
        )
        for other in self._cards.values():
            if joined(card.handle, other.handle):
                card.seen = msgspec.structs.replace(card.seen, nvlink=(*card.seen.nvlink, other.seen.index))
                other.seen = msgspec.structs.replace(other.seen, nvlink=tuple(sorted((*other.seen.nvlink, index))))
        self._cards[index] = card

    def _read(self, card: Card) -> None:
        used = memory_used_mib(card, card.handle)
        if not card.parts or self._polls % FULL_READ_POLLS == 0 or cut_anew(card):
            read_slices(card)
        slices: list[SliceSeen] = []
        broken: list[SliceUnread] = []
        for part in card.parts.values():
            match part.seen:
                case SliceSeen():
                    slices.append(msgspec.structs.replace(part.seen, memory_used_mib=slice_memory_mib(card, part)))
                case SliceUnread():
                    broken.append(part.seen)
        card.seen = msgspec.structs.replace(
            card.seen,
            memory_used_mib=used,
            memory_v2=card.memory_v2,
            slices=tuple(sorted(slices, key=lambda part: part.start)),
            unread=tuple(broken),
            processes=processes(card),
            utilisation_pct=None if card.seen.mig else utilisation_pct(card),
        )


# --- one card, one question -------------------------------------------------------------------------------------------


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


# --- slices -----------------------------------------------------------------------------------------------------------


def cut_anew(card: Card) -> bool:
    """Whether the slices are others than before; handles may be re-used, so their UUIDs are what counts."""
    for place in range(card.places):
        part = card.parts.get(place)
        try:
            if part is None:
                nvml.nvmlDeviceGetMigDeviceHandleByIndex(card.handle, place)
                return True
            if nvml.nvmlDeviceGetUUID(part.handle) != part.uuid:
                return True
        except nvml.NVMLError as error:
            if error.value not in NOTHING_THERE:
                raise
            if part is not None:
                return True
    return False


def read_slices(card: Card) -> None:
    """Read anew how the card is cut, which may be not at all."""
    card.parts = {}
    try:
        mig = nvml.nvmlDeviceGetMigMode(card.handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE
    except nvml.NVMLError as error:
        if error.value not in NO_SUCH_THING:
            raise
        mig = False
    card.seen = msgspec.structs.replace(card.seen, mig=mig)
    if not mig:
        return
    card.places = card.places or int(nvml.nvmlDeviceGetMaxMigDeviceCount(card.handle))
    instances: set[int] = set()
    for place in range(card.places):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(card.handle, place)
            uuid = nvml.nvmlDeviceGetUUID(handle)
        except nvml.NVMLError as error:
            if error.value not in NOTHING_THERE:
                raise
            continue
        try:
            seen: SliceSeen | SliceUnread = slice_seen(card, handle, uuid)
        except nvml.NVMLError as error:
            if error.value in VERDICTS:
                raise
            seen = SliceUnread(uuid=uuid, trouble=words(error))
        if isinstance(seen, SliceSeen):
            if seen.gi in instances:
                # Two of them would be one slot by identity (card, profile, placement).
                trouble = f"GPU instance {seen.gi} is cut into several compute instances, which ds01d does not give"
                seen = SliceUnread(uuid=uuid, trouble=trouble)
            else:
                instances.add(seen.gi)
        card.parts[place] = Part(handle, uuid, seen)


def slice_seen(card: Card, handle: object, uuid: str) -> SliceSeen | SliceUnread:
    """Identify a slice: its handle knows the instance, the instance its profile id, the card's table the rest."""
    if card.profiles is None:
        card.profiles = profiles(card.handle)
    gi = int(nvml.nvmlDeviceGetGpuInstanceId(handle))
    instance = nvml.nvmlGpuInstanceGetInfo(nvml.nvmlDeviceGetGpuInstanceById(card.handle, gi))
    profile = card.profiles.get(instance.profileId)
    if profile is None:
        return SliceUnread(uuid=uuid, trouble=f"the card's own table has no profile with id {instance.profileId}")
    name = PROFILE.fullmatch(profile.name)
    if name is None or profile.compute <= 0:
        return SliceUnread(uuid=uuid, trouble=f"cannot read the MIG profile `{profile.name}`")
    return SliceSeen(
        profile=name[1],
        start=instance.placement.start,
        size=instance.placement.size,
        compute=profile.compute,
        compute_of=max(row.compute for row in card.profiles.values()),
        gi=gi,
        ci=nvml.nvmlDeviceGetComputeInstanceId(handle),
        uuid=uuid,
        memory_total_mib=nvml.nvmlDeviceGetMemoryInfo(handle).total // MIB,
    )


def profiles(handle: object) -> dict[int, Profile]:
    """Read the card's table, keyed by profile id: the number asked for is an enumerator, another thing."""
    table: dict[int, Profile] = {}
    for number in range(nvml.NVML_GPU_INSTANCE_PROFILE_COUNT):
        try:
            row = nvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, number, version=2)
        except nvml.NVMLError as error:
            if error.value not in (nvml.NVML_ERROR_NOT_SUPPORTED, nvml.NVML_ERROR_INVALID_ARGUMENT):
                raise
            continue
        table[row.id] = Profile(str(row.name), int(row.sliceCount))
    return table


# --- the process ------------------------------------------------------------------------------------------------------


def die_with_the_parent() -> None:
    """A parent that is killed takes us along, even while we hang in a call (as soon as that can be interrupted)."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Answer requests until the parent hangs up."""
    die_with_the_parent()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a library prints does not belong between our lines

    def say(line: Reading | Seen | Unseen) -> None:
        out.write(msgspec.json.encode(line) + b"\n")
        out.flush()

    eyes = Eyes(lambda gpu: say(Reading(gpu=gpu)))
    for line in sys.stdin.buffer:
        answer = eyes.poll(msgspec.json.decode(line, type=Poll).skip)
        say(answer)
        if isinstance(answer, Unseen) and answer.fresh:
            return


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent hung up in the middle of an answer
        main()
