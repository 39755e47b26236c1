"""What lets a container start: the values of a grant and a CDI spec. How they lie on disk is the adapter's matter."""

import msgspec

from ds01d.model.ids import EngineId, GpuUuid, Key, SlotId


class MountProof(msgspec.Struct, frozen=True, kw_only=True):
    """Which directory was checked, as the caller, for one bind mount of the user's."""

    dev: int
    inode: int
    #: Where it lies in the container: absolute, without a line break.
    target: str


class SlotDevice(msgspec.Struct, frozen=True, kw_only=True):
    """The devices of one slot, as the device map has them now; live data, never saved."""

    name: SlotId
    uuid: GpuUuid
    #: N of /dev/nvidiaN.
    minor: int
    gpu_index: int
    #: The GPU and compute instance of a slice; None: the whole card.
    gi: int | None = None
    ci: int | None = None


class Permission(msgspec.Struct, frozen=True, kw_only=True):
    """All that the two files of one container say. Without slots it is a container without a GPU."""

    key: Key
    container_id: EngineId
    #: `lineage.counter`: a higher one for every change of the content.
    generation: str
    uid: int
    gid: int
    slots: tuple[SlotDevice, ...] = ()
    mounts: tuple[MountProof, ...] = ()


class PermissionSeen(msgspec.Struct, frozen=True, kw_only=True):
    """What is on disk under one key, whoever put it there."""

    key: Key
    has_grant: bool
    has_spec: bool
    #: As the grant says, else as the spec says; None: neither can be read.
    container_id: EngineId | None = None
    generation: str | None = None
    #: Every slot that either file names.
    slots: tuple[SlotId, ...] = ()
    #: What is wrong with the files, in words: one cannot be read, or they disagree.
    trouble: str | None = None
