"""What the outside was seen to be: answers of the engine, of cgroups and of NVML, as values. Never saved."""

from enum import StrEnum

import msgspec

from ds01d.model.ids import ContainerId, EngineId, EngineName, GpuUuid, Key, SlotId, Uid


class EngineStatus(StrEnum):
    """What the engine says of one container, reduced to what matters for a proof."""

    #: 404, from the engine whose ID we know.
    ABSENT = "absent"
    CREATED = "created"
    #: Running, paused, or between two rounds of a restart loop.
    RUNNING = "running"
    #: Exited or dead.
    STOPPED = "stopped"
    #: No answer within the deadline, or an error: nothing may be concluded.
    SILENT = "silent"
    #: Another engine answered: nothing may be concluded.
    STRANGE = "strange"


class CgroupStatus(StrEnum):
    """Whether a process lives in a container's cgroup or below it, over every hierarchy in which it exists."""

    EMPTY = "empty"
    OCCUPIED = "occupied"
    UNKNOWN = "unknown"


class SlotSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One slot in an NVML picture taken for a look."""

    slot: SlotId
    #: NVML answers and does not know it: its card or slice is gone.
    lost: bool = False
    #: Its own figures could not be read.
    trouble: str | None = None
    pids: tuple[int, ...] = ()
    used_mib: int | None = None
    #: The figure leaves the driver's own part out (NVML's memory v2).
    net_of_reserved: bool = False


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One careful look at one container: cgroup and pidfds first, then the engine's inspect, then NVML."""

    status: EngineStatus
    cgroup: CgroupStatus
    engine_id: EngineId | None = None
    #: Epoch seconds; 0: never.
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int | None = None
    #: When the engine that answered came up, epoch seconds; 0: not known.
    engine_since: float = 0.0
    #: The engine says running and its init process lives; None: not known.
    init_alive: bool | None = None
    #: The cgroup path of its init while it runs.
    cgroup_path: str | None = None
    #: Processes of its cgroup are held by pidfds that were opened before the inspect which then said not running.
    ghost: bool = False
    #: None: NVML was not asked, or does not answer.
    slots: tuple[SlotSeen, ...] | None = None
    #: In words, for people: why something is not known.
    trouble: str | None = None


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One container in a listing of the engine. A listing proves nothing; it only says where to look."""

    engine_id: EngineId
    name: str
    status: EngineStatus
    image: str = ""
    created_at: float = 0.0
    cgroup: CgroupStatus = CgroupStatus.UNKNOWN
    #: Our labels, where it carries them; a label alone proves nothing.
    label_id: ContainerId | None = None
    label_key: Key | None = None
    label_uid: Uid | None = None
    label_gid: int | None = None
    label_user: str | None = None
    label_name: str | None = None


class ForeignContainer(msgspec.Struct, frozen=True, kw_only=True):
    """A container that is not ours and names GPUs, from its one inspect."""

    engine_id: EngineId
    name: str
    #: `devcontainer`, `compose`, `aime`, `raw-docker`.
    origin: str
    user: str | None
    status: EngineStatus
    cgroup: CgroupStatus
    #: What it names: indices, UUIDs, `0:1`, device paths, CDI names; `all` for every GPU. Empty: no GPU.
    gpus: tuple[str, ...]


class GpuProcess(msgspec.Struct, frozen=True, kw_only=True):
    """A process that NVML shows on a card, attributed by its cgroup."""

    gpu: GpuUuid
    gi: int | None
    pid: int
    start_time: int
    uid: Uid | None
    user: str | None
    #: None: a process of the host.
    container: EngineId | None
    used_mib: int | None
    command: str = ""


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """The engine that answers: its own ID, and what it can do."""

    name: EngineName
    version: str
    #: Reads CDI specs.
    cdi: bool
    #: `systemd` or `cgroupfs`.
    cgroup_driver: str
    #: When its process last came up, as far as known; epoch seconds.
    since: float = 0.0
