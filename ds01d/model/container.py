"""A container as the daemon remembers it: whose it is, what it was made from, and how far it has come.

Two records make a workload (lifecycle.md): this one lives until the container's removal is proved, the allocation comes
and goes. What is outstanding, and what is still to be done, stands in the record: a restart has nothing to replay.
"""

from enum import StrEnum

import msgspec

from ds01d.model.gpu import GpuRequest
from ds01d.model.ids import ContainerId, EngineId, EngineName, Key, OrderId, SlotId, Uid


class Phase(StrEnum):
    """Where a container is in its life, as last observed."""

    CREATING = "creating"
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    REMOVING = "removing"


#: Every legal move. STOPPED → RUNNING is a raw start, RUNNING or STARTING → STOPPED an end by itself.
MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.CREATING: frozenset({Phase.STOPPED, Phase.REMOVING}),
    Phase.STOPPED: frozenset({Phase.STARTING, Phase.RUNNING, Phase.STOPPING, Phase.REMOVING}),
    Phase.STARTING: frozenset({Phase.RUNNING, Phase.STOPPED, Phase.STOPPING, Phase.REMOVING}),
    Phase.RUNNING: frozenset({Phase.STARTING, Phase.STOPPING, Phase.STOPPED, Phase.REMOVING}),
    Phase.STOPPING: frozenset({Phase.STOPPED, Phase.RUNNING, Phase.REMOVING}),
    Phase.REMOVING: frozenset({Phase.STOPPED, Phase.RUNNING, Phase.STOPPING}),
}


class Permission(StrEnum):
    """What we know of a container's grant and CDI spec on disk."""

    #: Neither exists, and that was seen.
    ABSENT = "absent"
    #: Both exist with the record's generation.
    PRESENT = "present"
    #: A write or a removal may have been cut short; neither presence nor absence may be built upon.
    UNSURE = "unsure"


class Then(StrEnum):
    """What follows once the container has stopped."""

    HOLD = "hold"
    PARK = "park"
    REMOVE = "remove"


class OrderName(StrEnum):
    """What can be asked of the world for a container; one order at a time."""

    CREATE = "create"
    PERMIT = "permit"
    WITHDRAW = "withdraw"
    START = "start"
    STOP = "stop"
    KILL = "kill"
    REMOVE = "remove"
    #: The engine's inspect, the cgroup, and NVML where it matters; nothing is changed.
    LOOK = "look"
    #: Ends exactly the processes that an earlier look held on to.
    KILL_GHOST = "kill-ghost"


class Outstanding(msgspec.Struct, frozen=True, kw_only=True):
    """The order that was given for a container and not yet answered."""

    id: OrderId
    name: OrderName
    #: Epoch seconds after which the answer is overdue.
    deadline: float
    #: Its time ran out and the call has not returned: the world may still carry it out.
    uncertain: bool = False


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A directory of the user's, resolved once with the user's own rights, and what it was then."""

    source: str
    target: str
    device: int
    inode: int
    read_only: bool = False


class ContainerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is told at create; None: no limit. Sizes in bytes."""

    cpus: float | None = None
    memory: int | None = None
    memory_swap: int | None = None
    shm_size: int | None = None
    pids: int | None = None


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a container is created from; it never changes afterwards."""

    image: str
    #: None: a container without a GPU.
    gpus: GpuRequest | None
    mounts: tuple[Mount, ...] = ()
    limits: ContainerLimits = ContainerLimits()
    cgroup_parent: str = ""
    network_host: bool = False
    #: Which door it came through: `atomic` (container-create) or `orchestration` (ds01-run).
    interface: str = "atomic"


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """One managed container."""

    id: ContainerId
    uid: Uid
    gid: int
    user: str
    group: str
    name: str
    key: Key
    spec: ContainerSpec
    phase: Phase
    created_at: float
    #: The engine that made it; an answer of any other proves nothing about it.
    engine: EngineName | None = None
    engine_id: EngineId | None = None
    #: The engine's StartedAt and FinishedAt of the last run we know of, epoch seconds; 0: never.
    started_at: float = 0.0
    finished_at: float = 0.0
    exit_code: int | None = None
    #: The cgroup of its last run, as read from its process; None: to be computed from parent and id.
    cgroup: str | None = None
    permission: Permission = Permission.ABSENT
    #: `lineage.counter`, raised whenever a permission is given anew, so that a late cache offers no old slot.
    generation: str = ""
    order: Outstanding | None = None
    #: For which devices (minor, GPU instance, compute instance; one a slot) the permission on disk was written.
    devices: tuple[tuple[int, int | None, int | None], ...] = ()
    #: What is on disk has to go before anything is written anew: it names devices that may be others now.
    withdraw: bool = False
    #: Its permission was written anew during this start, for directories that the guard did not take for the same.
    renewed: bool = False
    #: Something happened that only a look can tell.
    look: bool = False
    #: Not before this time is the next order given; epoch seconds.
    retry_at: float | None = None
    #: Failures in a row of what is being tried; sets the back-off.
    attempts: int = 0
    #: The look that found a ghost: its processes are to be ended.
    ghost: OrderId | None = None
    #: The engine could not or would not stop it in time: SIGKILL is next.
    kill: bool = False
    grace_s: float = 0.0
    #: While STOPPING: when its grace is over and sessions that nobody reads are cut.
    cut_at: float | None = None
    then: Then = Then.HOLD
    #: An operator's word that the engine which made it will not come back.
    engine_gone: bool = False
    #: It ran when the engine or the machine went down, and is to run again.
    interrupted: bool = False
    #: Why the engine refused the last start, or left it unanswered; shown, and judged when the look has come back.
    trouble: str | None = None
    #: Running without an allocation, or otherwise as it must not be; in words.
    violation: str | None = None
    #: Slots that a permission on disk named though the ledger did not give them: used until the contrary is proved.
    blocks: tuple[SlotId, ...] = ()
    #: Not made through a request that we remember: found by its label, its key or its permission. Never removed by us
    #: unless it never ran.
    stray: bool = False
    #: Bugs met in a row while handling it; three freeze it.
    confused: int = 0
    frozen: bool = False
    #: Why it is where it is, in a few words.
    why: str = ""

    @property
    def engine_name(self) -> str:
        """Its name on the engine, unique per user."""
        return f"{self.name}._.{self.uid}"

    @property
    def wants_gpu(self) -> bool:
        """Whether it was made to hold slots when it runs."""
        return self.spec.gpus is not None
