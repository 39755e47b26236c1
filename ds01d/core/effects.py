"""What the core wants done: orders, which are answered, and notes, which are not. Values only; the loop lets them go.

Every order carries all that its hand needs, names its container, and is answered by exactly one event.
"""

import msgspec

from ds01d.model.container import ContainerSpec, Mount
from ds01d.model.ids import ContainerId, EngineId, EngineName, Key, OperationId, OrderId, SlotId, Uid


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Something to be done to the world for one container."""

    container: ContainerId
    order: OrderId
    #: Seconds after which the hand must answer, if only with *uncertain*.
    timeout_s: float


class CreateContainer(Order, frozen=True, kw_only=True):
    """Make it on the engine; a container of this name with our label and key that never ran is this one."""

    key: Key
    name: str
    user: str
    uid: Uid
    gid: int
    spec: ContainerSpec
    created_at: float


class Permit(Order, frozen=True, kw_only=True):
    """Write the grant, then the CDI spec. The same content is not written again."""

    key: Key
    engine_id: EngineId
    generation: str
    uid: Uid
    gid: int
    slots: tuple[SlotId, ...]
    mounts: tuple[Mount, ...]


class Withdraw(Order, frozen=True, kw_only=True):
    """Remove the grant, then the CDI spec: from here on the guard lets no start through."""

    key: Key


class StartContainer(Order, frozen=True, kw_only=True):
    """Start it; one that runs already is a yes."""

    engine_id: EngineId


class StopContainer(Order, frozen=True, kw_only=True):
    """SIGTERM, the grace, SIGKILL."""

    engine_id: EngineId
    grace_s: float


class KillContainer(Order, frozen=True, kw_only=True):
    """SIGKILL through the engine."""

    engine_id: EngineId


class RemoveContainer(Order, frozen=True, kw_only=True):
    """Remove a stopped one, its files with it; a 404 of the engine that made it is a yes."""

    #: None: it is not known which engine made it, and any engine's answer will do.
    engine: EngineName | None
    engine_id: EngineId


class LookAt(Order, frozen=True, kw_only=True):
    """Look at one container: pidfds of its cgroup, the engine's inspect, then NVML for `slots`. Changes nothing."""

    #: None: any engine's answer will do, it was never created.
    engine: EngineName | None
    #: None: by name; then only one with our label and key counts.
    engine_id: EngineId | None
    name: str
    key: Key
    cgroup: str | None
    cgroup_parent: str
    slots: tuple[SlotId, ...]


class KillGhost(Order, frozen=True, kw_only=True):
    """SIGKILL to exactly the processes that this look held on to."""

    look: OrderId


class CutSessions(msgspec.Struct, frozen=True, kw_only=True):
    """Shut down every shell connection of this container: one that nobody reads holds the engine's die event back."""

    engine_id: EngineId


class Tell(msgspec.Struct, frozen=True, kw_only=True):
    """A word to a user about something of his that he did not do himself."""

    uid: Uid
    container: ContainerId
    text: str


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """A word to the operators: something is as it must not be."""

    text: str
    container: ContainerId | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """An operation has ended: whoever waits for it may read its outcome."""

    operation: OperationId


class Relist(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the engine for a listing now instead of at the next interval."""


Note = CutSessions | Tell | Alert | Finished | Relist
AnyOrder = (
    CreateContainer
    | Permit
    | Withdraw
    | StartContainer
    | StopContainer
    | KillContainer
    | RemoveContainer
    | LookAt
    | KillGhost
)
Effect = AnyOrder | Note
