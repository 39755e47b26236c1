"""How a card is cut: which slices there are, and what each of them is. Asks the driver, remembers nothing itself."""

import re
from typing import Final

import msgspec
import pynvml as nvml

from ds01d.adapters.nvml.card import MIB, NO_SUCH_THING, VERDICTS, Card, Part, Profile, words
from ds01d.model.probe import SliceSeen, SliceUnread

PROFILE: Final = re.compile(r"(?:MIG )?([1-9][0-9]*g\.[1-9][0-9]*gb(?:[+-][a-z0-9.]+)*)")
#: Codes for "there is no slice at this index"; both occur, and indices are sparse.
NOTHING_THERE: Final = (nvml.NVML_ERROR_NOT_FOUND, nvml.NVML_ERROR_INVALID_ARGUMENT)


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
